"""What a step moves is counted as it is made.

1. Of PyTorch's ways it is what their operators take and give, as derived below by hand from the source of torch.optim:
   each operator reads its inputs, and writes what is new or changed in place.
2. Of gpuopt it is what any code must move, and the gradients once more where their norm is taken.
3. Views, and a fused step's gradients that it does not unscale, are not moved. What is copied to is only written.
4. What is not made of PyTorch's operators, as compiled code, is not known.
"""

from __future__ import annotations

import pytest
import torch

from gpuopt.bench.contenders import contenders
from gpuopt.bench.contenders.contender import Entrant
from gpuopt.bench.problem import Problem
from gpuopt.bench.traffic import moved
from gpuopt.bench.workloads import TAILS, Workload

CONTENDERS = {contender.name: contender for contender in contenders("cpu")}

ADAM = (2 + 1) + (1 + 1) + (2 + 1) + (1 + 1) + (1 + 1) + (1 + 1) + (3 + 1)
"""Tensors that these read and write: lerp_, mul_, addcmul_, sqrt, div, add_, addcdiv_."""

RMSPROP = (1 + 1) + (2 + 1) + (1 + 1) + (1 + 1) + (3 + 1)
"""mul_, addcmul_, sqrt, add_, addcdiv_."""

DECAY = 1 + 1
"""mul_, of AdamW alone."""

TAIL = (1 + 1) + 1 + (1 + 1) + (2 + 1)
"""Unscale, norm, clip, and the lerp_ of the average."""

FUSED = 4 + 3
"""Adam in one pass: parameter, gradient and two averages, of which one is only read."""

STEP_COUNTS = 0.01
"""Share of these tensors' bytes that step counts, of one element each, may add."""


def bytes_per_element(workload: Workload, contender: str) -> float:
    problem = Problem(workload, "cpu")
    entrant = CONTENDERS[contender].set_up(problem)
    for _ in problem.warm_ups():
        entrant.prepare()
        entrant.step()
    counted = moved(workload, entrant)
    assert counted is not None
    return counted / workload.shapes.numel


@pytest.mark.parametrize(
    ("optimizer", "tail", "contender", "tensors"),
    [
        ("Adam", (), "torch for-loop", ADAM),
        ("Adam", (), "torch foreach", ADAM),
        ("Adam", (), "torch fused", FUSED),
        ("RMSprop", (), "torch for-loop", RMSPROP),
        ("RMSprop", (), "torch foreach", RMSPROP),
        ("AdamW", (), "torch foreach", DECAY + ADAM),
        ("AdamW", TAILS[0], "torch for-loop", DECAY + ADAM + TAIL),
        ("AdamW", TAILS[0], "torch fused", FUSED + TAIL),
        ("Adam", (), "gpuopt numba", FUSED),
        ("RMSprop", (), "gpuopt numpy", 3 + 2),
        ("AdamW", TAILS[0], "gpuopt numba", FUSED + 2 + 1),  # the average, and the gradients for their norm
        ("AdamW", TAILS[1], "torch fused", FUSED + TAIL + 1),  # zeros are written over gradients
        ("AdamW", TAILS[1], "torch foreach", DECAY + ADAM + TAIL + 1),
        ("AdamW", TAILS[1], "torch for-loop", DECAY + ADAM + TAIL + 1),
    ],
)
@pytest.mark.parametrize("shapes", ["one-12", "experts-64x4x256"])
def test_bytes_are_those_of_the_operators(
    optimizer: str, tail: tuple[str, ...], contender: str, tensors: int, shapes: str
) -> None:
    counted = bytes_per_element(Workload("many", optimizer, shapes, tail=tail), contender)
    assert 4 * tensors <= counted <= (1 + STEP_COUNTS) * 4 * tensors + 16 / 256


@pytest.mark.parametrize("contender", ["torch fused", "torch foreach", "torch for-loop", "gpuopt numba"])
def test_bytes_of_dtensors_are_those_of_plain_tensors(contender: str) -> None:
    plain, sharded = (Workload("many", "AdamW", "experts-64x4x256", sharded=sharded) for sharded in (False, True))
    assert bytes_per_element(sharded, contender) == pytest.approx(bytes_per_element(plain, contender), rel=STEP_COUNTS)


def of(step) -> int | None:
    return moved(Workload("many", "Adam", "one-10"), Entrant(step, dict, by_operators=True))


def test_views_are_not_moved_and_what_is_copied_to_is_only_written() -> None:
    one, other = torch.zeros(100), torch.ones(100)
    assert of(lambda: one.view(10, 10).T) == 0
    assert of(lambda: one.copy_(other)) == 800
    assert of(one.zero_) == of(lambda: one.fill_(3)) == 400
    assert of(lambda: one.mul_(2)) == 800
    assert of(lambda: one * one) == 800
    assert of(lambda: torch._foreach_add_([one, other], 1)) == 1600
    assert of(lambda: torch._foreach_zero_([one, other])) == 800
    assert of(lambda: torch._foreach_copy_([one], [other])) == 800


def test_gradients_that_are_unscaled_in_a_fused_step_are_written() -> None:
    tensors = [[torch.ones(100)] for _ in range(4)]
    settings = {"lr": 0.1, "beta1": 0.9, "beta2": 0.9, "weight_decay": 0.0, "eps": 0.1}
    flags = {"amsgrad": False, "maximize": False}

    def step(**given):
        torch._fused_adam_(*tensors, [], [torch.ones(())], **settings, **flags, **given)

    plain, unscaled = (of(lambda given=given: step(**given)) for given in ({}, {"grad_scale": torch.ones(())}))
    assert plain == 7 * 400 + 2 * 4  # and the step count, which is made and read
    assert unscaled - plain == 400 + 4


def test_what_is_compiled_is_not_known() -> None:
    assert moved(Workload("many", "Adam", "one-10"), Entrant(lambda: None, dict)) is None
