"""What libraries and trainers do with the optimizers of torch.optim they can do with those of gpuopt.

1. A class may be put in place of its namesake, and be derived from there.
2. A training step under ``torch.compile`` gives the bits of one that is not compiled, and is not compiled anew when the
   learning rate changes.
3. An optimizer says that it unscales gradients itself where one of torch.optim would, if it is fused: so trainers that
   clip gradients themselves take it. It also does under ``gpuopt.GradScaler``, and where it is to zero gradients, which
   an overflow would else prevent.
4. Printed, it shows its extras, and the backend that steps.
5. A parameter that is listed twice in a group is stepped once, and checkpoints have torch's format.
6. Warnings point at the line of the caller.
7. An extra in a group is refused, which is one for all of them.
"""

from __future__ import annotations

import copy
import pickle
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from kit.pairs import drawn, set_grads
from kit.tolerances import TORCH
from torch import nn

import gpuopt
from gpuopt import backends
from gpuopt.kernels import warn

NAMES = ["Adam", "AdamW", "RMSprop", "SGD", "Adagrad"]

each_class = pytest.mark.parametrize("name", NAMES)


def parameters() -> list[nn.Parameter]:
    return [nn.Parameter(drawn(torch.empty(shape), 5)) for shape in [(3, 4), (), (5, 7)]]


# In place of torch's


@each_class
def test_a_class_in_place_of_its_namesake(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = getattr(torch.optim, name)
    made: list[list[nn.Parameter]] = [parameters() for _ in range(3)]
    monkeypatch.setattr(torch.optim, name, getattr(gpuopt, name))
    derived = type("Derived", (getattr(torch.optim, name),), {})
    for params, kind in zip(made, (theirs, getattr(torch.optim, name), derived), strict=True):
        optimizer = kind(params, lr=0.01)
        for seed in range(3):
            set_grads(params, seed)
            optimizer.step()
        assert isinstance(copy.deepcopy(optimizer), kind)
    assert isinstance(pickle.loads(pickle.dumps(getattr(torch.optim, name)(parameters()))), theirs)
    rtol, atol = TORCH["float32"]
    for param, wanted, other in zip(made[1], made[0], made[2], strict=True):
        torch.testing.assert_close(param, wanted, rtol=rtol, atol=atol)
        assert torch.equal(param, other)


# Compiled


def trained(name: str, compiles: bool) -> list[torch.Tensor]:
    """Parameters after steps of a function that is compiled, or not; each with another learning rate."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 2))
    optimizer = getattr(gpuopt, name)(model.parameters(), lr=0.01, max_grad_norm=1.0, ema_decay=0.9)
    inputs, targets = drawn(torch.empty(4, 8), 1), drawn(torch.empty(4, 2), 2)

    def train() -> torch.Tensor:
        optimizer.zero_grad()
        loss = nn.functional.mse_loss(model(inputs), targets)
        loss.backward()
        optimizer.step()
        return loss.detach()

    step = torch.compile(train, backend="aot_eager") if compiles else train
    for at in range(5):
        for group in optimizer.param_groups:
            group["lr"] = 0.01 / (at + 1)
        with torch._dynamo.config.patch(error_on_recompile=at >= 2):  # a first step makes gradients and state
            step()
    return [*model.parameters(), *(optimizer.state[param]["ema"] for param in model.parameters())]


@pytest.mark.filterwarnings("ignore:.*:UserWarning:torch")
@pytest.mark.parametrize("name", ["AdamW", "SGD"])
def test_a_compiled_training_step(name: str) -> None:
    torch._dynamo.reset()
    for got, wanted in zip(trained(name, True), trained(name, False), strict=True):
        assert torch.equal(got, wanted)


def test_a_compiled_step_alone() -> None:
    torch._dynamo.reset()
    params, others = parameters(), parameters()
    set_grads(params, 0)
    set_grads(others, 0)
    torch.compile(gpuopt.Adam(params).step, backend="eager")()
    gpuopt.Adam(others).step()
    assert all(map(torch.equal, params, others))


def test_a_compiled_model_in_a_closure_stays_compiled() -> None:
    """As trainers have it that hand the whole of a training step to ``step``."""
    torch._dynamo.reset()
    graphs = []

    def backend(graph: torch.fx.GraphModule, _: Any) -> Callable[..., Any]:
        graphs.append(graph)
        return graph.forward

    model = nn.Linear(4, 4)
    compiled = torch.compile(model, backend=backend)
    optimizer = gpuopt.AdamW(model.parameters())

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss: torch.Tensor = compiled(torch.ones(2, 4)).sum()
        loss.backward()
        return loss

    losses = [optimizer.step(closure).item() for _ in range(3)]
    assert losses[2] < losses[0]
    assert len(graphs) == 1


# Gradient scaling


@pytest.mark.parametrize("fused", [None, False, True])
@pytest.mark.parametrize("zeroes", [False, True])
@each_class
def test_who_unscales(name: str, zeroes: bool, fused: bool | None) -> None:
    params = parameters()
    optimizer = getattr(gpuopt, name)(params, fused=fused, zero_grads=zeroes)
    assert optimizer._step_supports_amp_scaling == bool(fused or zeroes)
    if name != "RMSprop":
        expected = getattr(torch.optim, name)(parameters(), fused=fused)
        assert getattr(expected, "_step_supports_amp_scaling", False) == bool(fused)
    for other in (copy.deepcopy(optimizer), pickle.loads(pickle.dumps(optimizer))):
        assert other._step_supports_amp_scaling == bool(fused or zeroes)


@pytest.mark.parametrize("kind", [torch.amp.GradScaler, gpuopt.GradScaler], ids=["torch", "gpuopt"])
@pytest.mark.parametrize("fused", [None, True])
def test_gradients_are_unscaled_in_place_by_torchs_scaler_alone(kind: type[Any], fused: bool | None) -> None:
    param = nn.Parameter(torch.zeros(3))
    optimizer = gpuopt.SGD([param], lr=1.0, fused=fused)
    scaler = kind("cpu", init_scale=64.0)
    scaler.scale(param.sum()).backward()
    scaler.step(optimizer)
    assert param.tolist() == [-1.0] * 3
    in_place = kind is torch.amp.GradScaler and not fused
    assert param.grad is not None
    assert param.grad.tolist() == ([1.0] if in_place else [64.0]) * 3
    assert optimizer._step_supports_amp_scaling == bool(fused)


@pytest.mark.parametrize("kind", [torch.amp.GradScaler, gpuopt.GradScaler], ids=["torch", "gpuopt"])
def test_an_overflow_does_not_stay_in_gradients_that_are_to_be_zeroed(kind: type[Any]) -> None:
    param = nn.Parameter(torch.zeros(2))
    optimizer, scaler = gpuopt.SGD([param], lr=1.0, zero_grads=True), kind("cpu", init_scale=2.0)
    for factor in (float("inf"), 1.0):
        scaler.scale((param * factor).sum()).backward()
        scaler.step(optimizer)
        scaler.update()
    assert param.tolist() == [-1.0] * 2


# Printed


@each_class
def test_printed(name: str) -> None:
    expected = repr(getattr(torch.optim, name)(parameters(), lr=0.25))
    optimizer = getattr(gpuopt, name)(parameters(), lr=0.25, ema_decay=0.5, max_grad_norm=1.0, backend="numpy")
    shown = repr(optimizer)
    assert set(expected.splitlines()) <= set(shown.splitlines())
    assert shown.endswith(
        "\n\nAll groups\n    backend: numpy\n    ema_decay: 0.5\n    error_if_nonfinite: False\n"
        "    master_weights: False\n    max_grad_norm: 1.0\n    norm_group: None\n    seed: 0\n"
        "    state_dtype: None\n    stochastic_rounding: False\n    zero_grads: False\n)"
    )
    optimizer.backend = None
    assert f"    backend: None ({backends.choose('cpu').name})\n" in repr(optimizer)
    on_meta = getattr(gpuopt, name)([torch.ones(3, device="meta", requires_grad=True)])
    assert "    backend: None (none on meta)\n" in repr(on_meta)


# Listed twice


@each_class
def test_a_parameter_that_is_listed_twice_is_stepped_once(name: str) -> None:
    twice, once = parameters(), parameters()
    with pytest.warns(UserWarning, match="a parameter group with duplicate parameters"):
        optimizer = getattr(gpuopt, name)([twice[0], twice[1], twice[0], twice[2]], lr=0.1, max_grad_norm=1.0)
    expected = getattr(gpuopt, name)(once, lr=0.1, max_grad_norm=1.0)
    for seed in range(3):
        set_grads(twice, seed)
        set_grads(once, seed)
        optimizer.step()
        expected.step()
        if seed == 1:
            twice[1].grad = once[1].grad = None
    assert all(map(torch.equal, twice, once))
    assert torch.equal(optimizer.last_grad_norm, expected.last_grad_norm)
    with pytest.warns(UserWarning, match="a parameter group with duplicate parameters"):
        theirs = getattr(torch.optim, name)([twice[0], twice[1], twice[0], twice[2]])
    theirs.load_state_dict(optimizer.state_dict())
    assert theirs.state_dict()["param_groups"][0]["params"] == optimizer.state_dict()["param_groups"][0]["params"]
    optimizer.load_state_dict(theirs.state_dict())
    set_grads(twice, 5)
    optimizer.step()


# Warnings


@pytest.mark.parametrize("wraps", [lambda step: step, torch.no_grad()], ids=["plain", "wrapped"])
def test_warnings_point_at_the_line_of_the_caller(wraps: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where a backend is slow, of which nobody would know else."""
    monkeypatch.setattr(backends, "_warned", set())
    monkeypatch.setitem(backends.DRIVERS, "numba", replace(backends.DRIVERS["numba"], packages=("no_such_package",)))
    params = parameters()
    set_grads(params, 0)
    optimizer = gpuopt.Adam(params)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        wraps(optimizer.step)()
    (one,) = (each for each in caught if "no_such_package" in str(each.message))
    assert Path(one.filename) == Path(__file__)
    assert issubclass(one.category, UserWarning)


def test_a_warning_without_a_caller() -> None:
    space: dict[str, Any] = {"__name__": "gpuopt.somewhere", "warn": warn.warn}
    with pytest.warns(UserWarning, match="something") as caught:
        exec("warn('something')", space)
    assert caught[0].filename == __file__


# Extras in groups

EXTRAS_IN_GROUPS: list[tuple[str, Any]] = [
    ("max_grad_norm", 1.0),
    ("ema_decay", 0.5),
    ("zero_grads", True),
    ("master_weights", True),
    ("master_weights", "24bit"),
    ("stochastic_rounding", True),
    ("seed", 1),
    ("state_dtype", torch.float32),
    ("state_dtype", "8bit"),
    ("backend", "numpy"),
    ("error_if_nonfinite", True),
]


def _constructed(name: str, group: dict[str, Any]) -> None:
    getattr(gpuopt, name)([{"params": parameters(), **group}])


def _added(name: str, group: dict[str, Any]) -> None:
    optimizer = getattr(gpuopt, name)(parameters())
    try:
        optimizer.add_param_group({"params": parameters(), **group})
    finally:
        assert len(optimizer.param_groups) == 1


def _written(name: str, group: dict[str, Any]) -> None:
    params = parameters()
    optimizer = getattr(gpuopt, name)(params)
    set_grads(params, 0)
    optimizer.step()
    optimizer.param_groups[0].update(group)
    before = [param.detach().clone() for param in params]
    try:
        optimizer.step()
    finally:
        assert all(map(torch.equal, params, before))


@pytest.mark.parametrize(("extra", "value"), EXTRAS_IN_GROUPS)
@pytest.mark.parametrize("how", [_constructed, _added, _written])
@each_class
def test_extras_in_a_group_are_refused(how: Callable[..., None], name: str, extra: str, value: Any) -> None:
    with pytest.raises(ValueError, match=rf"^{extra} must be given to the constructor.* is in group [01]"):
        how(name, {extra: value})
