"""State in 8 bits of sharded parameters.

1. A parameter whose rows are whole blocks, and not cut, has the bits of one process in every layout and on any number
   of processes, and so has its state.
2. Distributed checkpoints, flat or not: saved on four processes, loaded on two, saved there and loaded on one. Of rows
   that are whole blocks all bits survive. Elsewhere values are in place of codes; they survive on as many processes,
   and on others to half a unit. Which it is depends on the shape and on how it is sharded alone.
3. State dicts that are whole, on the host, broadcast or flat go to another optimizer, and whole ones to one that is not
   sharded.
4. Scales of another process, and parameters that FullyShardedDataParallel has flattened, are refused in a sentence, and
   nothing is written.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from kit.sharded_eight_bit import (
    IN_ROWS,
    LAYOUTS,
    SHAPES,
    Model,
    Tensors,
    everything,
    exchange,
    flattened,
    gathered,
    load,
    looks,
    save,
    start,
    state_of_one_process,
    step,
    stepped,
)
from kit.world import Worlds

CASES = [(layout, size) for layout, (_, sizes) in LAYOUTS.items() for size in sizes]

BOTH: dict[str, tuple[str, dict[str, Any]]] = {
    "alone": ("RMSprop", {}),
    "with all else": (
        "AdamW",
        {"master_weights": "24bit", "ema_decay": 0.5, "max_grad_norm": 1e6, "seed": 3, "amsgrad": True},
    ),
}

HOW: dict[str, dict[str, Any]] = {
    "sharded": {},
    "whole": {"full_state_dict": True},
    "broadcast": {"full_state_dict": True, "broadcast_from_rank0": True},
    "flat": {"flatten_optimizer_state_dict": True},
}


def assert_same(made: Tensors, expected: Tensors, params: tuple[str, ...] | None = None) -> None:
    """Demands the same names, and the same bits of ``params`` and their state, or of all."""
    assert set(made) == set(expected)
    for name, tensor in expected.items():
        if params is None or name.partition(".")[0] in params:
            assert torch.equal(made[name], tensor), name


def assert_close(made: Tensors, expected: Tensors) -> None:
    """Demands state to half a unit of codes, which is a sixteenth, and a smallest unit of the largest magnitude."""
    assert set(made) == set(expected)
    for name, tensor in expected.items():
        wide = tensor.double()
        bound = wide.abs() / 15 + 2e-6 * wide.abs().max()
        assert ((made[name] - wide).abs() <= bound).all(), name


@pytest.mark.parametrize(("layout", "size"), CASES)
def test_rows_have_the_bits_of_one_process(worlds: Worlds, layout: str, size: int) -> None:
    for rule, options in BOTH.values():
        expected = stepped(None, rule, options)
        for made in worlds(size).run(stepped, layout, rule, options):
            assert_same(made, expected, IN_ROWS)


@pytest.mark.parametrize(("layout", "flat"), [("fsdp2", False), ("fsdp2", True), ("hsdp", False)])
def test_checkpoints_on_other_numbers_of_processes(worlds: Worlds, tmp_path: Path, layout: str, flat: bool) -> None:
    for case, (rule, options) in BOTH.items():
        folder = tmp_path / case
        (saved, expected), *_ = worlds(4).run(save, f"{folder}/4", layout, rule, options, flat)
        for loaded, made, names in worlds(4).run(load, f"{folder}/4", layout, rule, options, flat):
            assert_same(loaded, saved)
            assert_same(made, expected)
            assert {is_placed for name, is_placed in names if name.endswith("_codes")} == {True}
            assert {is_placed for name, is_placed in names if name.endswith("_scales")} == {False}
        for size, source, again in ((2, "4", "2"), (1, "2", "")):
            target = f"{folder}/{again}" if again else ""
            arguments = f"{folder}/{source}", "fsdp2", rule, options, flat, target
            for loaded, made, _ in worlds(size).run(load, *arguments):
                assert_same(loaded, saved, IN_ROWS)
                assert_same(made, expected, IN_ROWS)
                if size == 2:
                    assert_close(loaded, saved)


@pytest.mark.parametrize(("layout", "in_codes"), [("fsdp2", (*IN_ROWS, "columns")), ("tensor parallel", IN_ROWS)])
def test_what_a_checkpoint_has_does_not_depend_on_the_number_of_processes(
    worlds: Worlds, layout: str, in_codes: tuple[str, ...]
) -> None:
    expected = {}
    for name, (*rest, last) in SHAPES.items():
        if name in in_codes:
            expected[f"{name}.momentum_buffer_codes"] = torch.uint8, (*rest, last)
            expected[f"{name}.momentum_buffer_scales"] = torch.float32, (*rest, last // 128)
        else:
            expected[f"{name}.momentum_buffer_codes.values"] = torch.float32, (*rest, last)
    for size in (1, 2, 4):
        assert all(found == expected for found in worlds(size).run(looks, layout))


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize(("layout", "size"), [("fsdp2", 2), ("tensor parallel", 2)])
def test_state_dicts(worlds: Worlds, layout: str, size: int, how: str) -> None:
    for expected, made in worlds(size).run(exchange, layout, "AdamW", HOW[how]):
        assert_same(made, expected)


def test_a_whole_state_dict_goes_on_without_shards(worlds: Worlds) -> None:
    (state, params, expected), *_ = worlds(2).run(gathered, "fsdp2", "AdamW")
    model, optimizer = start(None, "AdamW", {})
    model.load_state_dict(params)
    names = [name for name, _ in Model().named_parameters()]
    by_index = {index: state["state"][name] for index, name in enumerate(names)}
    groups = [{**group, "params": [names.index(name) for name in group["params"]]} for group in state["param_groups"]]
    optimizer.load_state_dict({"state": by_index, "param_groups": groups})
    step(model, optimizer, range(3, 6))
    assert_same(everything(model, optimizer), expected, IN_ROWS)


def test_scales_of_another_process(worlds: Worlds) -> None:
    for said in worlds(2).run(state_of_one_process, "fsdp2", "AdamW"):
        assert len(said) == 2
        for error in said:
            assert error.startswith("exp_avg_scales of param 5 of group 0 must be a tensor of float32 and shape (2,), ")


def test_flattened_parameters(worlds: Worlds) -> None:
    for said in worlds(2).run(flattened):
        assert len(said) == 2
        for error in said:
            assert error.startswith("state_dtype must not be '8bit' for parameters that FullyShardedDataParallel has")
            assert error.endswith("use fully_shard")
