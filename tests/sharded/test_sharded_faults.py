"""What goes wrong in one process happens in all: they step together, or none does, and none waits for ever.

1. A gradient of one process that is not finite, the first or the last, under gpuopt's scaler: all skip the step, scale
   alike, and go on as if it had not been. So they do under torch's where all is sharded over one mesh; else all refuse
   it, since torch's would have only some skip the step.
2. Without a scaler the norm is not finite in any process, and if that is an error, it is one in all of them, and
   nothing has changed.
3. A process without any gradient, or without some, takes part in the norm, and its parameters stay.
4. Processes with different ``max_grad_norm`` refuse to step, all of them. Where only some have one at all, these say
   what is wrong once the time of the group is over.
5. A process that cannot prepare its step says why, the others that one could not, nothing has changed, and they go on.
"""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from kit import sharded_faults
from kit.sharded import LAYOUTS
from kit.world import World, Worlds

CASES = [(layout, size) for layout, (_, sizes) in LAYOUTS.items() for size in sizes if size == min(sizes)]
HAVE_PLAIN_PARAMETERS = ["tensor_parallel", "two_meshes"]
MIXED = "got mixed torch.Tensor and DTensor"
"""What torch's scaler says of gradients of both kinds."""


@pytest.mark.parametrize(("layout", "size"), CASES)
@pytest.mark.parametrize("kind", sharded_faults.SCALERS)
def test_an_overflow_in_one_process(worlds: Worlds, layout: str, size: int, kind: str) -> None:
    world = worlds(size)
    expected, *_ = world.run(sharded_faults.one_step, layout)
    for rank, at, value, options in (
        (0, 0, float("nan"), {}),
        (size - 1, -1, float("inf"), {"max_grad_norm": 1e6}),
        (size - 1, 0, float("-inf"), {"max_grad_norm": 1e6, "unscales": True, "error_if_nonfinite": True}),
    ):
        results = world.run(sharded_faults.overflow, layout, kind, rank, at, value, options)
        assert all(result["stays"] for result in results)
        if kind == "gpuopt" or layout == "fsdp2":
            for result in results:
                assert result["scales"] == (2.0, 2.0)
                assert result["left"] == 1
                assert all(map(torch.equal, result["params"], expected))
        else:
            expected_error = MIXED if layout in HAVE_PLAIN_PARAMETERS else "use gpuopt.GradScaler"
            assert all(expected_error in result["error"] for result in results)


@pytest.mark.parametrize("layout", ["fsdp2_and_tensor_parallel", "hsdp"])
def test_torchs_scaler_without_an_overflow(worlds: Worlds, layout: str) -> None:
    for result in worlds(4).run(sharded_faults.overflow, layout, "torch", 0, 0, 0.5, {}):
        assert bool(result["error"]) == (layout != "hsdp")
        assert "use gpuopt.GradScaler" in result["error"] or layout == "hsdp"


@pytest.mark.parametrize(("layout", "size"), CASES)
def test_a_norm_that_is_not_finite(worlds: Worlds, layout: str, size: int) -> None:
    for rank, at in ((0, 0), (size - 1, -1)):
        results = worlds(size).run(sharded_faults.not_finite, layout, rank, at, True)
        assert all("The total norm of order 2.0" in error and stays for error, _, stays in results)
    if size == 2:
        results = worlds(size).run(sharded_faults.not_finite, layout, size - 1, 0, False)
        assert not any(error or math.isfinite(norm) for error, norm, _ in results)


@pytest.mark.parametrize("which", [slice(None), slice(2), slice(-1, None)], ids=["all", "first", "last"])
def test_gradients_that_one_process_lacks(worlds: Worlds, which: slice) -> None:
    first, *others = worlds(2).run(sharded_faults.without_gradients, "fsdp2", 1, which)
    norm, expected, params, _ = first
    assert norm == pytest.approx(expected, rel=1e-6)
    for other_norm, _, other_params, stays in others:
        assert other_norm == norm
        assert all(map(torch.equal, params, other_params))
        assert stays


def test_other_norms(worlds: Worlds) -> None:
    for rank, (error, stays) in enumerate(worlds(2).run(sharded_faults.disagree, 1.0, 2.0)):
        assert f"max_grad_norm ({(1.0, 2.0)[rank]}), error_if_nonfinite and scaler must be the same" in error
        assert stays


def test_a_norm_in_one_process_alone(tmp_path: Path) -> None:
    world = World(2, tmp_path, patience=3.0)
    (error, stays), (none, stepped) = world.run(sharded_faults.disagree, 1.0, None)
    world.close()
    assert "each of them must call step, with max_grad_norm" in error
    assert stays
    assert not none
    assert not stepped


@pytest.mark.parametrize("scaled", [False, True])
def test_a_process_that_cannot_prepare(worlds: Worlds, scaled: bool) -> None:
    first, second = worlds(2).run(sharded_faults.fail_to_prepare, scaled)
    assert "one of them could not prepare it" in first[0]
    assert "lr of group 0 must be finite, but is nan" in second[0]
    assert first[1]
    assert second[1]
    assert first[2] == second[2]


def test_a_process_that_fails_before_sums_are_made(worlds: Worlds) -> None:
    first, second = worlds(2).run(sharded_faults.fail_before_sums_are_made)
    assert "one of them could not prepare it" in first[0]
    assert "ema_decay must be in [0, 1] or None, but is 3.0" in second[0]
    assert first[1]
    assert second[1]


def test_a_process_that_cannot_unscale(worlds: Worlds) -> None:
    first, second = worlds(2).run(sharded_faults.fail_to_unscale)
    assert "one of them could not prepare it" in first
    assert second == "ValueError: Attempting to unscale FP16 gradients."


def test_a_mesh_that_a_process_is_not_in(worlds: Worlds) -> None:
    [first], [plain, clipped] = worlds(2).run(sharded_faults.mesh_elsewhere)
    assert not first
    assert not plain
    assert "need every parameter's mesh to have this process" in clipped
