"""Distributed checkpoints of sharded models are gone on with on any number of processes, and by torch.optim.

1. Saved on two processes, loaded on four, on two and on one, and saved there and loaded on two again: the next five
   steps give the bits of the run that was not interrupted, parameters, averages, originals and all state, in both
   forms that torch.distributed.checkpoint has. Gradients are the same on any number of processes.
2. ``get_optimizer_state_dict`` and ``set_optimizer_state_dict`` with whole state dicts, on the host, broadcast from the
   first process, or flat: to another optimizer of gpuopt, to one of torch.optim that is sharded alike, and back.
3. A process that is killed while it saves leaves the checkpoint before whole.
4. State that is not placed as its parameter is refused by name.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from kit import sharded_checkpoints
from kit.sharded_checkpoints import KINDS
from kit.tolerances import TORCH
from kit.world import FailedError, World, Worlds

pytestmark = pytest.mark.filterwarnings("ignore:torch.distributed is disabled")  # in this process

each_kind = pytest.mark.parametrize("kind", KINDS)
each_form = pytest.mark.parametrize("flat", [False, True], ids=["nested", "flat"])

HOW: dict[str, dict[str, Any]] = {
    "sharded": {},
    "whole": {"full_state_dict": True},
    "on the host": {"full_state_dict": True, "cpu_offload": True},
    "broadcast": {"full_state_dict": True, "broadcast_from_rank0": True},
    "flat": {"flatten_optimizer_state_dict": True},
}


def assert_same(made: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert set(made) == set(expected)
    assert all(torch.equal(made[name], expected[name]) for name in expected)


@pytest.mark.parametrize("rule", ["AdamW", "SGD"])
@each_kind
@each_form
def test_other_numbers_of_processes(worlds: Worlds, tmp_path: Path, rule: str, kind: str, flat: bool) -> None:
    options = KINDS[kind]
    expected, _ = worlds(2).run(sharded_checkpoints.save, f"{tmp_path}/2", rule, options, flat)
    if kind == "everything":
        assert {name.rpartition(".")[2] for name in expected} >= {"ema", "master_param"}
    for made in (
        *worlds(4).run(sharded_checkpoints.load, f"{tmp_path}/2", rule, options, flat, "gpuopt", f"{tmp_path}/4"),
        *worlds(2).run(sharded_checkpoints.load, f"{tmp_path}/4", rule, options, flat),
        sharded_checkpoints.load(f"{tmp_path}/2", rule, options, flat, "gpuopt", f"{tmp_path}/1"),
        *worlds(2).run(sharded_checkpoints.load, f"{tmp_path}/1", rule, options, flat),
    ):
        assert_same(made, expected)


@pytest.mark.parametrize("rule", ["AdamW", "SGD", "RMSprop", "Adagrad"])
@pytest.mark.parametrize("libraries", [("torch", "gpuopt"), ("gpuopt", "torch")], ids=" to ".join)
@each_form
def test_checkpoints_of_torch(
    worlds: Worlds, tmp_path: Path, rule: str, libraries: tuple[str, str], flat: bool
) -> None:
    rtol, atol = TORCH["float32"]
    first, second = libraries
    expected, _ = worlds(2).run(sharded_checkpoints.save, str(tmp_path), rule, {}, flat, first)
    for made in worlds(2).run(sharded_checkpoints.load, str(tmp_path), rule, {}, flat, second):
        torch.testing.assert_close(made, expected, rtol=rtol, atol=atol)


@pytest.mark.parametrize("rule", ["AdamW", "SGD"])
@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("libraries", [("gpuopt", "gpuopt"), ("torch", "gpuopt"), ("gpuopt", "torch")], ids=" to ".join)
def test_state_dicts(worlds: Worlds, rule: str, how: str, libraries: tuple[str, str]) -> None:
    is_ours = libraries == ("gpuopt", "gpuopt")
    options = {"ema_decay": 0.5, "max_grad_norm": 1e6} if is_ours else {}
    rtol, atol = TORCH["float32"]
    for expected, made in worlds(2).run(sharded_checkpoints.exchange, rule, options, HOW[how], libraries):
        if is_ours:
            assert_same(made, expected)
        else:
            torch.testing.assert_close(made, expected, rtol=rtol, atol=atol)


def test_killed_while_it_saves(tmp_path: Path) -> None:
    options = KINDS["everything"]
    doomed = World(2, tmp_path)
    with pytest.raises(FailedError, match="died or hung"):
        doomed.run(sharded_checkpoints.die_while_saving, str(tmp_path), "AdamW", options)
    doomed.close()
    assert not (tmp_path / "2" / ".metadata").exists()
    assert sharded_checkpoints.load(f"{tmp_path}/1", "AdamW", options, False)
