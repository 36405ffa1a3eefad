"""Training of given parameters by given gradients, which can be stopped, saved, and gone on with in another process."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any

import torch

import gpuopt

OPTIONS: dict[str, tuple[str, dict[str, Any]]] = {
    "Adam": ("Adam", {"weight_decay": 0.01}),
    "Adam-amsgrad": ("Adam", {"amsgrad": True}),
    "AdamW": ("AdamW", {}),
    "RMSprop": ("RMSprop", {}),
    "RMSprop-centered": ("RMSprop", {"centered": True}),
    "RMSprop-momentum": ("RMSprop", {"momentum": 0.9}),
    "RMSprop-both": ("RMSprop", {"centered": True, "momentum": 0.9, "weight_decay": 0.01}),
    "SGD": ("SGD", {"lr": 0.1}),
    "SGD-momentum": ("SGD", {"lr": 0.1, "momentum": 0.9}),
    "SGD-dampening": ("SGD", {"lr": 0.1, "momentum": 0.9, "dampening": 0.5}),
    "SGD-nesterov": ("SGD", {"lr": 0.1, "momentum": 0.9, "nesterov": True}),
    "Adagrad": ("Adagrad", {"lr_decay": 0.1, "initial_accumulator_value": 0.1}),
}
"""By name: the class, here and in torch, and its arguments."""

WAYS: dict[str, dict[str, bool]] = {
    "for-loop": {"foreach": False},
    "foreach": {"foreach": True},
    "fused": {"fused": True},
}
"""The implementations of torch.optim."""

STOP, END = 5, 10
"""After how many steps training is saved, and after how many it ends."""

SHAPES = ((3, 5), (4,), (), (2, 3, 2, 2), (0, 2))


def ways(case: str) -> list[str]:
    """The implementations that torch.optim has for a case."""
    return [way for way in WAYS if way != "fused" or OPTIONS[case][0] != "RMSprop"]


def params(dtype: torch.dtype = torch.float32, device: str = "cpu") -> list[torch.nn.Parameter]:
    """Parameters in several shapes, one of them channels-last."""
    generator = torch.Generator().manual_seed(0)
    made = [torch.randn(shape, generator=generator).to(dtype) for shape in SHAPES]
    made[3] = made[3].to(memory_format=torch.channels_last)
    return [torch.nn.Parameter(tensor.to(device)) for tensor in made]


def groups(made: list[torch.nn.Parameter]) -> list[dict[str, Any]]:
    """Two groups of different settings."""
    return [{"params": made[:2]}, {"params": made[2:], "lr": 0.05, "weight_decay": 0.02}]


def new(library: Any, case: str, made: list[torch.nn.Parameter], **extras: Any) -> torch.optim.Optimizer:
    """The optimizer of a case, in ``torch.optim`` or ``gpuopt``."""
    name, arguments = OPTIONS[case]
    optimizer: torch.optim.Optimizer = getattr(library, name)(groups(made), **arguments, **extras)
    return optimizer


def train(optimizer: torch.optim.Optimizer, steps: Iterable[int], without: Iterable[int] = ()) -> None:
    """Steps with gradients that follow from the number of the step alone.

    The second parameter has none in step 3, so that step counts differ, nor have those of index ``without``.
    """
    made = [param for group in optimizer.param_groups for param in group["params"]]
    for step in steps:
        generator = torch.Generator().manual_seed(100 + step)
        for index, param in enumerate(made):
            grad = torch.randn(param.shape, generator=generator, dtype=torch.float64)
            like = torch.empty_like(param).copy_(grad)
            param.grad = None if index in without or (index == 1 and step == 3) else like
        optimizer.step()


def checkpoint(optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Parameters and state dict."""
    made = [param.detach() for group in optimizer.param_groups for param in group["params"]]
    return {"params": made, "optimizer": optimizer.state_dict()}


@cache
def makes_missing_state(case: str) -> bool:
    """Whether torch.optim makes the state that a checkpoint lacks, which Adagrad does in newer versions alone."""
    optimizer = new(torch.optim, case, params())
    optimizer.load_state_dict({**optimizer.state_dict(), "state": {}})
    try:
        train(optimizer, range(1))
    except KeyError:
        return False
    return True


def through_a_file(saved: Any) -> Any:
    """What is loaded where ``saved`` was saved, by weights alone."""
    file = BytesIO()
    torch.save(saved, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def resume(optimizer: torch.optim.Optimizer, saved: dict[str, Any], **settings: Any) -> None:
    """Takes parameters and state from a checkpoint, and gives every group ``settings``."""
    made = [param for group in optimizer.param_groups for param in group["params"]]
    with torch.no_grad():
        for param, values in zip(made, saved["params"], strict=True):
            param.copy_(values)
    optimizer.load_state_dict(saved["optimizer"])
    for group in optimizer.param_groups:
        group.update(settings)


def save_all(folder: Path) -> None:
    """Trains every case by gpuopt and in every way of torch, and saves each in the middle."""
    for case in OPTIONS:
        for source in ("gpuopt", *ways(case)):
            library, arguments = (gpuopt, {}) if source == "gpuopt" else (torch.optim, WAYS[source])
            optimizer = new(library, case, params(), **arguments)
            train(optimizer, range(STOP))
            torch.save(checkpoint(optimizer), folder / f"{case} {source}.pt")


def go_on_all(folder: Path) -> None:
    """Goes on by gpuopt from everything that was saved, and in every way of torch from what gpuopt saved."""
    ended = {}
    for case in OPTIONS:
        for source in ("gpuopt", *ways(case)):
            optimizer = new(gpuopt, case, params())
            resume(optimizer, torch.load(folder / f"{case} {source}.pt", weights_only=True))
            train(optimizer, range(STOP, END))
            ended[case, source, "gpuopt"] = checkpoint(optimizer)
        for way in ways(case):
            optimizer = new(torch.optim, case, params())
            resume(optimizer, torch.load(folder / f"{case} gpuopt.pt", weights_only=True), **WAYS[way])
            train(optimizer, range(STOP, END))
            ended[case, "gpuopt", way] = checkpoint(optimizer)
    torch.save(ended, folder / "ended.pt")


def tensors(saved: dict[str, Any]) -> dict[str, torch.Tensor]:
    """Every tensor of a checkpoint by a name."""
    return {f"param {index}": tensor for index, tensor in enumerate(saved["params"])} | {
        f"{name} {index}": tensor
        for index, state in saved["optimizer"]["state"].items()
        for name, tensor in state.items()
    }


def assert_same(a: dict[str, Any], b: dict[str, Any]) -> None:
    """Demands two checkpoints of the same bits, dtypes, shapes and names."""
    ours, theirs = tensors(a), tensors(b)
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        other = theirs[name]
        assert (tensor.dtype, tensor.shape) == (other.dtype, other.shape), name
        assert bits(tensor) == bits(other), name


def bits(tensor: torch.Tensor) -> bytes:
    """The bytes of a tensor in the order of its indices."""
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
