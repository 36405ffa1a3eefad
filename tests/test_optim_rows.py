"""The rows of parameters are made when these are first stepped, and stay.

1. A row is made anew only when its parameter, its gradient's layout, its state or the options change. Another set of
   parameters than last time costs a selection, and one that was seen before not even that; few are remembered.
2. Whatever sets of parameters have gradients, in whatever order the sets come, each parameter has the bits that it has
   by an optimizer of its own, on every driver, in groups of unlike settings, formats and step counts.
3. A selection reads where gradients are at this step, and not where they were when rows were made.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
import torch
from kit.pairs import bits, drawn

import gpuopt
from gpuopt.kernels.drivers import DRIVERS
from gpuopt.optim import rows
from gpuopt.plan import Plan

CLASSES: dict[str, dict[str, Any]] = {
    "Adam": {"amsgrad": True},
    "AdamW": {},
    "RMSprop": {"momentum": 0.5, "centered": True},
    "SGD": {"momentum": 0.9, "dampening": 0.2},
    "Adagrad": {"lr_decay": 0.1},
}

each_class = pytest.mark.parametrize("name", CLASSES)


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """How many rows and selections have been made."""
    counted = {"put": 0, "select": 0}

    def count(name: str) -> None:
        original = getattr(Plan, name)

        def counting(*arguments: Any) -> Any:
            counted[name] += 1
            return original(*arguments)

        monkeypatch.setattr(Plan, name, counting)

    for name in counted:
        count(name)
    return counted


def parameters(count: int) -> list[torch.nn.Parameter]:
    params = [torch.nn.Parameter(torch.full((4, 4), 0.5)) for _ in range(count)]
    give(params, range(count))
    return params


def give(params: list[torch.nn.Parameter], indices: Any) -> None:
    """Has those parameters alone have gradients, which are new."""
    for index, param in enumerate(params):
        param.grad = torch.full_like(param, 0.1) if index in indices else None


def test_a_row_is_made_once(made: dict[str, int]) -> None:
    params = parameters(5)
    optimizer = gpuopt.AdamW(params)
    for _ in range(3):
        optimizer.step()
        give(params, range(5))
    assert made == {"put": 5, "select": 1}


def test_rows_are_made_as_parameters_are_first_stepped(made: dict[str, int]) -> None:
    params = parameters(6)
    optimizer = gpuopt.AdamW(params)
    for indices, rows_made, selected in [([0, 1], 2, 1), ([1, 2], 3, 2), ([0, 1], 3, 2), (range(6), 6, 3)]:
        give(params, indices)
        optimizer.step()
        assert made == {"put": rows_made, "select": selected}
    give(params, [])
    optimizer.step()
    assert made == {"put": 6, "select": 3}


def test_a_mixture_of_experts_makes_no_rows_anew(made: dict[str, int]) -> None:
    params = parameters(16)
    optimizer = gpuopt.AdamW(params)
    for step in range(24):
        give(params, range(4 * (step % 4), 4 * (step % 4) + 4))
        optimizer.step()
    assert made == {"put": 16, "select": 4}


CHANGES: dict[str, tuple[Callable[[Any, list[torch.nn.Parameter]], Any], int]] = {
    "nothing": (lambda optimizer, params: None, 0),
    "settings": (lambda optimizer, params: optimizer.param_groups[0].update(lr=0.5, weight_decay=0.5), 0),
    "clipping": (lambda optimizer, params: setattr(optimizer, "max_grad_norm", 1.0), 0),
    "state read": (lambda optimizer, params: optimizer.state[params[1]]["exp_avg"], 0),
    "a gradient moved": (lambda optimizer, params: setattr(params[1], "grad", params[1].grad.clone()), 0),
    "a gradient of other strides": (lambda optimizer, params: setattr(params[1], "grad", params[1].grad.t()), 1),
    "a parameter replaced": (lambda optimizer, params: setattr(params[1], "data", params[1].data.clone()), 1),
    "a parameter transposed": (lambda optimizer, params: setattr(params[1], "data", params[1].data.t()), 1),
    "an entry of state": (lambda optimizer, params: optimizer.state[params[1]].update(exp_avg=torch.ones(4, 4)), 1),
    "the state of one": (lambda optimizer, params: optimizer.state.pop(params[1]), 4),
    "a checkpoint": (lambda optimizer, params: optimizer.load_state_dict(optimizer.state_dict()), 4),
    "an option of the group": (lambda optimizer, params: optimizer.param_groups[0].update(amsgrad=True), 4),
    "an extra": (lambda optimizer, params: setattr(optimizer, "ema_decay", 0.5), 4),
    "the order of parameters": (lambda optimizer, params: optimizer.param_groups[0]["params"].reverse(), 4),
}


@pytest.mark.parametrize("what", CHANGES)
def test_rows_are_made_anew_only_where_something_has_changed(what: str, made: dict[str, int]) -> None:
    change, rows_made = CHANGES[what]
    params = parameters(4)
    optimizer = gpuopt.AdamW(params)
    optimizer.step()
    change(optimizer, params)
    made.update(put=0, select=0)
    optimizer.step()
    assert made["put"] == rows_made
    optimizer.step()
    assert made["put"] == rows_made


def test_few_selections_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "MOST_SELECTIONS", 3)
    params = parameters(6)
    optimizer = gpuopt.SGD(params, lr=0.5)
    for index in range(6):
        give(params, [index])
        optimizer.step()
    assert len(optimizer._rows._selections) == 3
    assert all(torch.equal(param, torch.full((4, 4), 0.45)) for param in params)


def odd(seed: int) -> list[torch.nn.Parameter]:
    shapes = [((3, 4), torch.float32), ((), torch.float32), ((0,), torch.float32), ((33,), torch.float32)]
    shapes += [((6,), torch.float64), ((9,), torch.bfloat16), ((10, 4), torch.float32)]
    tensors = [drawn(torch.empty(shape, dtype=dtype), seed + k) for k, (shape, dtype) in enumerate(shapes)]
    return [torch.nn.Parameter(tensor) for tensor in (*tensors[:-1], tensors[-1].t(), tensors[-1].clone()[:, ::2])]


@pytest.mark.parametrize("driver", [name for name, entry in DRIVERS.items() if entry.device == "cpu"])
@pytest.mark.parametrize("zero_grads", [False, True])
@each_class
def test_each_parameter_is_stepped_as_by_an_optimizer_of_its_own(name: str, zero_grads: bool, driver: str) -> None:
    together, alone = odd(0), odd(0)
    options = {"backend": driver, "zero_grads": zero_grads, "ema_decay": 0.9, **CLASSES[name]}
    groups = [{"params": together[:3], "lr": 0.1}, {"params": together[3:], "lr": 0.01, "weight_decay": 0.1}]
    optimizer = getattr(gpuopt, name)(groups, **options)
    others = [
        getattr(gpuopt, name)([{**groups[k >= 3], "params": [param]}], **options) for k, param in enumerate(alone)
    ]
    chosen = random.Random(0)
    for seed in range(25):
        indices = chosen.sample(range(len(alone)), chosen.randint(0, len(alone)))
        for index, (one, other) in enumerate(zip(together, alone, strict=True)):
            one.grad = drawn(one, seed) if index in indices else None
            other.grad = drawn(other, seed) if index in indices else None
        optimizer.step()
        for index in indices:
            others[index].step()
    for one, other, own in zip(together, alone, others, strict=True):
        assert bits(one) == bits(other)
        state, expected = optimizer.state[one], own.state[other]
        assert state.keys() == expected.keys()
        assert all(bits(state[key]) == bits(expected[key]) for key in state)


def test_gradients_are_read_where_they_are_now() -> None:
    """Also where memory that a gradient had when its row was made is a parameter's by now."""
    memory = torch.zeros(8)
    first, second = torch.nn.Parameter(torch.zeros(4)), torch.nn.Parameter(torch.zeros(4))
    optimizer = gpuopt.SGD([first, second], lr=1.0)
    first.grad = memory[:4]
    optimizer.step()
    first.grad, second.data, second.grad = None, memory[:4], torch.ones(4)
    optimizer.step()
    first.grad = torch.full((4,), 2.0)
    optimizer.step()
    assert first.tolist() == [-2.0] * 4
    assert second.tolist() == [-2.0] * 4
