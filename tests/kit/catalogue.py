"""PyTorch's own catalogue of optimizer options and errors, and how an optimizer of gpuopt is held against it."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch

import gpuopt
from gpuopt.bench.contenders.torch import steps_fused
from kit.pairs import Pair, drawn

pytest.importorskip("expecttest", reason="PyTorch's catalogue of optimizers imports expecttest")
with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # PyTorch's catalogue imports what is installed, Numba's CUDA target for one
    from torch.testing._internal.common_optimizers import OptimizerErrorEnum, optim_db

Options = dict[str, Any]

CLASSES = ("Adam", "AdamW", "RMSprop", "SGD", "Adagrad")

INFOS = {info.optim_cls.__name__: info for info in optim_db if info.optim_cls.__name__ in CLASSES}

SHAPES = [(5, 7), (7,), (2, 3, 4), (), (1, 1)]

STEPS = 3

INPUTS = [
    pytest.param(name, given.kwargs, id=f"{name}-{given.desc.replace(' ', '-')}")
    for name in CLASSES
    # A CUDA device adds the capturable ones, and nothing is put on it here.
    for given in INFOS[name].optim_inputs_func(device="cuda")
]
"""Class and options of everything in the catalogue."""

ERRORS = [
    pytest.param(name, given, id=f"{name}-{index}-{given.optimizer_error_input.desc.replace(' ', '-')}")
    for name in CLASSES
    for index, given in enumerate(INFOS[name].optim_error_inputs_func(device="cpu", dtype=torch.float32))
]
"""Class and error of everything in the catalogue."""

FLAGS = [
    pytest.param(name, {flag: value}, id=f"{name}-{flag}={value}")
    for name in CLASSES
    for flag in ("foreach", "fused")
    for value in (True, False)
    if flag != "fused" or name != "RMSprop"
]
"""Class and the flags that choose an implementation of torch, each by itself."""

GROUPS: dict[str, tuple[Options, list[Options]]] = {
    "Adam": (
        {"lr": 0.01, "betas": (0.8, 0.9)},
        [{"amsgrad": True, "lr": 0.02}, {"maximize": True, "eps": 1e-3}, {"decoupled_weight_decay": True}],
    ),
    "AdamW": (
        {"weight_decay": 0.1, "amsgrad": True},
        [{"weight_decay": 0.0, "amsgrad": False}, {"lr": torch.tensor(0.03)}, {"maximize": True, "betas": (0.5, 0.6)}],
    ),
    "RMSprop": (
        {"centered": True, "weight_decay": 0.1},
        [{"momentum": 0.9, "alpha": 0.5}, {"centered": False, "maximize": True}, {"lr": 0.1, "eps": 1e-2}],
    ),
    "SGD": (
        {"lr": 0.1, "momentum": 0.9},
        [{"momentum": 0.0}, {"dampening": 0.3, "weight_decay": 0.1}, {"nesterov": True, "maximize": True}],
    ),
    "Adagrad": (
        {"lr": 0.1, "initial_accumulator_value": 0.2},
        [{"lr_decay": 0.5}, {"weight_decay": 0.1, "maximize": True}, {"lr": 0.2, "eps": 1e-2}],
    ),
}
"""By class, options of all groups, and what each of three groups has otherwise."""


def parameters(dtype: torch.dtype, device: str = "cpu") -> list[torch.nn.Parameter]:
    """One parameter of each of ``SHAPES``."""
    empties = [torch.empty(shape, dtype=dtype, device=device) for shape in SHAPES]
    return [torch.nn.Parameter(drawn(empty, index)) for index, empty in enumerate(empties)]


def assert_input_agrees(
    name: str, options: Options, dtype: torch.dtype, backend: str, device: str = "cpu", **own: Any
) -> None:
    """Demands what torch computes from the same gradients; ``own`` are options of gpuopt alone."""
    if options.get("fused") and not steps_fused(name, device):
        pytest.skip(f"torch.optim.{name} has no fused step on {device}")
    ours, theirs = parameters(dtype, device), parameters(dtype, device)
    optimizer = getattr(gpuopt, name)(ours, **{**options, **own}, backend=backend)
    expected = getattr(torch.optim, name)(theirs, **_for_torch(options, dtype, device))
    _assert_steps_agree(Pair(ours, theirs, optimizer, expected))


def assert_groups_agree(name: str, dtype: torch.dtype, backend: str, device: str = "cpu", **own: Any) -> None:
    """As :func:`assert_input_agrees`, for groups that override the options."""
    options, overrides = GROUPS[name]
    ours, theirs = parameters(dtype, device), parameters(dtype, device)
    optimizer = getattr(gpuopt, name)(_grouped(ours, overrides), **options, **own, backend=backend)
    expected = getattr(torch.optim, name)(
        _grouped(theirs, [_for_torch(override, dtype, device) for override in overrides]), **options
    )
    _assert_steps_agree(Pair(ours, theirs, optimizer, expected))


def assert_narrow_agrees(name: str, dtype: torch.dtype, backend: str, device: str = "cpu", **own: Any) -> None:
    """Demands of each step, in a dtype of 16 bits, what is computed in float32 and rounded once when it is stored.

    So does ``fused=True`` of Adam and AdamW. That of Adagrad rounds in between, that of SGD with weight decay is wrong
    on a CPU, and RMSprop has none: theirs is the step of float32 parameters and state.
    """
    options = {"lr": 0.05, "weight_decay": 0.1, **({"momentum": 0.9} if name in ("SGD", "RMSprop") else {})}
    ours, theirs = parameters(dtype, device), parameters(dtype, device)
    optimizer = getattr(gpuopt, name)(ours, **options, **own, backend=backend)
    if name in ("Adam", "AdamW"):
        expected = getattr(torch.optim, name)(theirs, **options, fused=True)
    else:
        theirs = [torch.nn.Parameter(param.detach().float()) for param in theirs]
        expected = getattr(torch.optim, name)(theirs, **options)
    pair = Pair(ours, theirs, optimizer, expected)
    for seed in range(STEPS):
        pair.step(seed)
        pair.assert_close(rounded=True)
        with torch.no_grad():
            for param, other in zip(ours, theirs, strict=True):
                other.copy_(param)
                for key, value in expected.state[other].items():
                    value.copy_(optimizer.state[param][key])


def assert_error(name: str, given: Any, backend: str) -> None:
    """Demands the error or the warning of the catalogue."""
    params = given.optimizer_error_input.params
    if params is None:
        params = parameters(torch.float32)

    def construct() -> Any:
        return getattr(gpuopt, name)(params, **given.optimizer_error_input.kwargs, backend=backend)

    if issubclass(given.error_type, Warning):
        with pytest.warns(given.error_type, match=given.error_regex):
            construct()
    elif given.error_on is OptimizerErrorEnum.CONSTRUCTION_ERROR:
        with pytest.raises(given.error_type, match=given.error_regex):
            construct()
    else:
        optimizer = construct()
        with pytest.raises(given.error_type, match=given.error_regex):
            optimizer.step()


def _assert_steps_agree(pair: Pair) -> None:
    for seed in range(STEPS):
        pair.step(seed)
    pair.assert_close()


def _for_torch(options: Options, dtype: torch.dtype, device: str) -> Options:
    """Options as torch takes them: it has nothing capturable on a CPU, and computes with float32 tensors in float32."""
    options = {key: value for key, value in options.items() if key != "capturable" or device != "cpu"}
    if dtype is torch.float64:
        return {
            key: tuple(map(_number, value)) if isinstance(value, tuple) else _number(value)
            for key, value in options.items()
        }
    return options


def _number(value: Any) -> Any:
    return float(value) if isinstance(value, torch.Tensor) else value


def _grouped(params: list[torch.nn.Parameter], overrides: list[Options]) -> list[dict[str, Any]]:
    rest = {"params": params[len(overrides) :]}
    return [*({"params": [param], **override} for param, override in zip(params, overrides, strict=False)), rest]
