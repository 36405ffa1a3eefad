"""Distributed checkpoints of sharded models are gone on with on any number of processes, and by torch.optim.

1. Saved on two processes, loaded on four, on two and on one, and saved there and loaded on two again: the next five
   steps give the bits of the run that was not interrupted, parameters, averages, originals and all state, in both
   forms that torch.distributed.checkpoint has. Gradients are the same on any number of processes.
2. ``get_optimizer_state_dict`` and ``set_optimizer_state_dict`` with whole state dicts, on the host, broadcast from the
   first process, or flat: to another optimizer of gpuopt, to one of torch.optim that is sharded alike, and back.
3. A process that is killed while it saves leaves the checkpoint before whole.
4. What is switched on for the first time is not in a checkpoint from before, which says so; after loading it begins
   from the parameters that were loaded.
5. State that is not placed as its parameter is refused by name, before anything is written.
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


@pytest.mark.parametrize(
    ("rule", "kind", "flat"),
    [("AdamW", "everything", False), ("AdamW", "everything", True), ("SGD", "plain", False)],
)
def test_other_numbers_of_processes(worlds: Worlds, tmp_path: Path, rule: str, kind: str, flat: bool) -> None:
    options = KINDS[kind]
    expected, _ = worlds(2).run(sharded_checkpoints.save, f"{tmp_path}/2", rule, options, flat)
    if kind == "everything":
        assert {name.rpartition(".")[2] for name in expected} >= {"ema", "param_remainder"}
    for made in (
        *worlds(4).run(sharded_checkpoints.load, f"{tmp_path}/2", rule, options, flat, "gpuopt", f"{tmp_path}/4"),
        *worlds(2).run(sharded_checkpoints.load, f"{tmp_path}/4", rule, options, flat),
        sharded_checkpoints.load(f"{tmp_path}/2", rule, options, flat, "gpuopt", f"{tmp_path}/1"),
        *worlds(2).run(sharded_checkpoints.load, f"{tmp_path}/1", rule, options, flat),
    ):
        assert_same(made, expected)


@pytest.mark.parametrize("libraries", [("torch", "gpuopt"), ("gpuopt", "torch")], ids=" to ".join)
@pytest.mark.parametrize(("rule", "flat"), [("AdamW", False), ("SGD", True), ("RMSprop", True), ("Adagrad", True)])
def test_checkpoints_of_torch(
    worlds: Worlds, tmp_path: Path, rule: str, libraries: tuple[str, str], flat: bool
) -> None:
    rtol, atol = TORCH["float32"]
    first, second = libraries
    expected, _ = worlds(2).run(sharded_checkpoints.save, str(tmp_path), rule, {}, flat, first)
    for made in worlds(2).run(sharded_checkpoints.load, str(tmp_path), rule, {}, flat, second):
        torch.testing.assert_close(made, expected, rtol=rtol, atol=atol)


@pytest.mark.parametrize(("rule", "how"), [*(("AdamW", how) for how in HOW), ("SGD", "flat")])
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


@pytest.mark.parametrize("flat", [False, True])
def test_averages_that_a_checkpoint_has_not(worlds: Worlds, tmp_path: Path, flat: bool) -> None:
    worlds(2).run(sharded_checkpoints.save, str(tmp_path), "AdamW", {}, flat)
    for error, before, made in worlds(2).run(sharded_checkpoints.load_and_switch_on, str(tmp_path), flat):
        assert "Missing key in checkpoint state_dict" in error
        for name, param in before.items():
            torch.testing.assert_close(made[f"{name}.ema"], (param + made[name]) / 2)


def test_killed_while_it_saves(tmp_path: Path) -> None:
    options = KINDS["everything"]
    doomed = World(2, tmp_path)
    with pytest.raises(FailedError, match="died or hung"):
        doomed.run(sharded_checkpoints.die_while_saving, str(tmp_path), "AdamW", options)
    doomed.close()
    assert not (tmp_path / "2" / ".metadata").exists()
    assert sharded_checkpoints.load(f"{tmp_path}/1", "AdamW", options, False)


def test_state_that_is_not_placed_as_its_parameter(worlds: Worlds) -> None:
    for errors, stays in worlds(2).run(sharded_checkpoints.load_state_placed_otherwise):
        assert len(errors) == 2
        for error in errors:
            assert error.startswith("exp_avg of param 0 of group 0 ('scale') must be placed as that is, ")
            assert "set_optimizer_state_dict" in error
        assert stays
