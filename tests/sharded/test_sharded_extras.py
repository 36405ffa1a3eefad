"""What a step does beside the step, it does for sharded models too, and with no more than one collective.

1. Inside ``averaged_weights`` a model computes with the averages, and outside with its parameters, also where FSDP2
   keeps a module whole from one forward to the next, and in the backward that follows.
2. Averages, originals, state of another dtype, step counts on the device, gradients that are zeroed: parameters, all
   state and gradients have the bits of one process that is given the same gradients.
3. All state but step counts is placed as its parameter is, with its shape and strides, and its dtype is its own.
4. FSDP2's policies, to compute in bfloat16 and to keep parameters on the host, change nothing of this.
5. A step of all local tensors is one launch, whatever the mesh or the alignment of gradients. It takes no collective
   but those that add up gradients which are partial sums; with clipping it takes one launch more, and one all-reduce
   over meshes that have the same processes.
6. State and step take no more memory than the state of torch.optim, within 2%.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from kit import sharded_extras
from kit.sharded import LAYOUTS
from kit.tolerances import TORCH
from kit.world import Worlds

CASES = [(layout, min(sizes)) for layout, (_, sizes) in LAYOUTS.items()]


@pytest.mark.parametrize(("layout", "size"), CASES)
def test_averages_are_evaluated(worlds: Worlds, layout: str, size: int) -> None:
    rtol, atol = TORCH["float64"]
    for made, expected in worlds(size).run(sharded_extras.evaluate_averages, layout):
        assert len(set(expected)) > len(expected) / 2
        torch.testing.assert_close(made, expected, rtol=rtol, atol=atol)


@pytest.mark.parametrize(
    "options",
    [
        {"ema_decay": 0.5, "zero_grads": True},
        {"master_weights": True, "ema_decay": 0.5, "max_grad_norm": 1e6},
        {"state_dtype": torch.bfloat16, "capturable": True},
        {"amsgrad": True, "max_grad_norm": 1e6, "error_if_nonfinite": True},
    ],
    ids=", ".join,
)
def test_extras(worlds: Worlds, options: dict[str, Any]) -> None:
    for made, expected, is_well in worlds(2).run(sharded_extras.step_with, options):
        assert len(made) == len(expected) > 60
        assert all(map(torch.equal, made, expected))
        assert is_well


def test_state_is_placed_as_parameters(worlds: Worlds) -> None:
    for entries in worlds(4).run(sharded_extras.placements_of_state):
        assert {name for name, *_ in entries} == {"exp_avg", "exp_avg_sq", "max_exp_avg_sq", "ema", "param_remainder"}
        assert all(placed == wanted for _, wanted, placed in entries)


def test_policies_of_fsdp2(worlds: Worlds) -> None:
    rtol, atol = TORCH["float32"]
    for made, expected, devices in worlds(2).run(sharded_extras.under_policies):
        torch.testing.assert_close(made, expected, rtol=rtol, atol=atol)
        assert set(devices) == {"cpu"}


@pytest.mark.parametrize(("layout", "size"), CASES)
def test_launches_and_collectives(worlds: Worlds, layout: str, size: int) -> None:
    # Tensor parallelism leaves weight and bias of both norms with gradients that are partial sums.
    sums = {"c10d_functional.all_reduce": 4} if layout == "tensor_parallel" else {}
    for plain, clipped, misaligned in worlds(size).run(sharded_extras.counts, layout):
        assert plain == ({"step": 1}, sums)
        assert clipped == ({"sum_squares": 1, "step": 1}, {**sums, "c10d.allreduce_": 1})
        assert misaligned or layout != "fsdp2"


def test_memory(worlds: Worlds) -> None:
    for state_of_torch, state, step in worlds(2).run(sharded_extras.memory):
        assert state + step <= 1.02 * state_of_torch
