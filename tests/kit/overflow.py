"""Training under ``torch.amp.GradScaler``, where some gradients overflow."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, NamedTuple

import torch

import gpuopt
from kit.checkpoints import OPTIONS, WAYS, bits
from kit.tolerances import TORCH

CASES = ["Adam-amsgrad", "AdamW", "RMSprop-both", "SGD-momentum", "SGD-dampening", "Adagrad"]

STEPS = 7

DECAY = 0.9

SHAPES = ((3, 2), (5,), (), (2, 2))
"""Of the parameters, the first two of which are a group."""


class Overflow(NamedTuple):
    """In which steps a gradient is infinite, or undefined in every second of them, and in which group."""

    steps: Collection[int]
    group: int


OVERFLOWS = {
    "first": Overflow({0}, 0),
    "first two": Overflow({0, 1}, 1),
    "middle": Overflow({3}, 1),
    "twice in a row": Overflow({2, 3}, 0),
}


class Mode(NamedTuple):
    """What comes before ``scaler.step``."""

    unscales: bool = False
    max_norm: float | None = None


MODES = {
    "step": Mode(),
    "unscale": Mode(unscales=True),
    "clip": Mode(max_norm=0.5),
    "unscale and clip": Mode(unscales=True, max_norm=0.5),
}

EXTRAS: dict[str, dict[str, Any]] = {
    "ema": {"ema_decay": DECAY},
    "zero": {"zero_grads": True},
    "master": {"master_weights": True},
    "all": {"ema_decay": DECAY, "zero_grads": True, "master_weights": True},
}


def params(dtype: torch.dtype) -> list[torch.nn.Parameter]:
    """Parameters whose values are numbers of bfloat16."""
    generator = torch.Generator().manual_seed(0)
    return [torch.nn.Parameter(torch.randn(shape, generator=generator).bfloat16().to(dtype)) for shape in SHAPES]


def backward(step: int, made: list[torch.nn.Parameter], overflow: Overflow, scaler: torch.amp.GradScaler) -> None:
    """Adds the gradients of one step, whose values are numbers of bfloat16 under any scale."""
    generator = torch.Generator().manual_seed(100 + step)
    loss = torch.zeros(())
    for index, param in enumerate(made):
        grad = torch.randn(param.shape, generator=generator).bfloat16().to(param.dtype)
        if step in overflow.steps and index == (1, 3)[overflow.group]:
            grad.view(-1)[-1] = float("nan") if step % 2 else float("inf")
        loss = loss + (param * grad).sum().float()
    scaler.scale(loss).backward()


def groups(made: list[torch.nn.Parameter]) -> list[dict[str, Any]]:
    """Two groups of different settings."""
    return [{"params": made[:2]}, {"params": made[2:], "lr": 0.05, "weight_decay": 0.02}]


def new_scaler(kind: type[torch.amp.GradScaler] = torch.amp.GradScaler) -> torch.amp.GradScaler:
    """One whose scale changes often, and from the start does not hide that it is used twice."""
    return kind("cpu", init_scale=64.0, growth_interval=2)


class Trained(NamedTuple):
    """What training came to.

    Attributes:
        params: Parameters, or their originals.
        averages: Of the parameters.
        scales: The loss scale after each step.
        counts: Step counts at the end, if the optimizer has them.
        norms: Of the unscaled gradients in each step that was not skipped.
    """

    params: list[torch.Tensor]
    averages: list[torch.Tensor]
    scales: list[float]
    counts: list[float]
    norms: list[torch.Tensor]


def train_by_torch(case: str, overflow: Overflow, mode: Mode, way: str) -> Trained:
    """Training of float32 parameters by torch.optim, with an average that is updated unless a step is skipped."""
    name, arguments = OPTIONS[case]
    made, scaler = params(torch.float32), new_scaler()
    optimizer = getattr(torch.optim, name)(groups(made), **arguments, **WAYS[way])
    averages = [param.detach().clone() for param in made]
    scales, norms = [], []
    for step in range(STEPS):
        optimizer.zero_grad()
        backward(step, made, overflow, scaler)
        if mode.unscales or mode.max_norm is not None:
            scaler.unscale_(optimizer)
        if mode.max_norm is not None:
            norm = torch.nn.utils.clip_grad_norm_(made, mode.max_norm)
            norms += [norm] if step not in overflow.steps else []
        scaler.step(optimizer)
        scaler.update()
        scales.append(scaler.get_scale())
        if step not in overflow.steps:
            for average, param in zip(averages, made, strict=True):
                average.lerp_(param.detach(), 1 - DECAY)
    counts = [state["step"].item() for state in optimizer.state.values() if "step" in state]
    return Trained([param.detach() for param in made], averages, scales, counts, norms)


def train_by_gpuopt(
    case: str, overflow: Overflow, mode: Mode, kind: type[torch.amp.GradScaler], fused: bool | None, **extras: Any
) -> Trained:
    """Training by gpuopt, under a scaler of some kind, which unscales gradients in place if it is torch's and not told
    that the step is ``fused``.

    Demands that an overflow changes nothing, and what holds for the gradients.
    """
    name, arguments = OPTIONS[case]
    zeroes, has_master = extras.get("zero_grads", False), extras.get("master_weights", False)
    made, scaler = params(torch.bfloat16 if has_master else torch.float32), new_scaler(kind)
    optimizer = getattr(gpuopt, name)(groups(made), **arguments, fused=fused, max_grad_norm=mode.max_norm, **extras)
    unscales = kind is torch.amp.GradScaler and not fused
    scales, norms = [], []
    for step in range(STEPS):
        if not zeroes:
            optimizer.zero_grad(set_to_none=step % 3 == 0)
        backward(step, made, overflow, scaler)
        if mode.unscales:
            scaler.unscale_(optimizer)
        grads = [param.grad for param in made]
        grad_bits = [bits(grad) for grad in grads]
        before = snapshot(optimizer, made)
        scaler.step(optimizer)
        scaler.update()
        scales.append(scaler.get_scale())
        skipped = step in overflow.steps
        assert all(param.grad is grad for param, grad in zip(made, grads, strict=True))
        if zeroes:
            assert not any(grad.count_nonzero() for grad in grads), f"step {step} left gradients"
        elif not unscales:
            assert [bits(grad) for grad in grads] == grad_bits, f"step {step} changed gradients"
        if skipped:
            assert_unchanged(before, snapshot(optimizer, made), initial(optimizer, made), f"step {step}")
        elif mode.max_norm is not None:
            norms.append(optimizer.last_grad_norm.clone())
    states = [optimizer.state[param] for param in made]
    if has_master:
        for param in made:
            assert bits(param) == bits(optimizer.master_weight(param).bfloat16())
    return Trained(
        [optimizer.master_weight(param) for param in made],
        [state["ema"] for state in states if "ema" in state],
        scales,
        [state["step"].item() for state in states if "step" in state],
        norms,
    )


def snapshot(optimizer: torch.optim.Optimizer, made: list[torch.nn.Parameter]) -> dict[tuple[int, str], bytes]:
    """The bits of parameters and state."""
    entries = {(index, "param"): bits(param) for index, param in enumerate(made)}
    for index, param in enumerate(made):
        entries |= {(index, name): bits(tensor) for name, tensor in optimizer.state.get(param, {}).items()}
    return entries


def initial(optimizer: torch.optim.Optimizer, made: list[torch.nn.Parameter]) -> dict[tuple[int, str], bytes]:
    """The bits of state that no step has changed."""
    entries = {}
    for index, param in enumerate(made):
        for name, tensor in optimizer.state.get(param, {}).items():
            start = optimizer.defaults.get("initial_accumulator_value", 0) if name == "sum" else 0
            same = param.detach().to(tensor.dtype)
            entries[index, name] = bits(same if name == "ema" else torch.full_like(tensor, start))
    return entries


def assert_unchanged(before: dict[Any, bytes], after: dict[Any, bytes], start: dict[Any, bytes], what: str) -> None:
    """Demands the same bits; what was not there yet may have been made, as it is before the first step."""
    assert before.keys() <= after.keys(), what
    for key, value in after.items():
        assert value == before.get(key, start.get(key)), f"{what} changed {key}"


def assert_as_by_torch(
    case: str,
    overflow: Overflow,
    mode: Mode,
    ways: Collection[str],
    kind: type[torch.amp.GradScaler] = torch.amp.GradScaler,
    fused: bool | None = True,
    **extras: Any,
) -> None:
    """Demands that training by gpuopt comes to what it comes to by torch, in each of its ``ways``.

    Args:
        case: Key of ``OPTIONS``.
        overflow: Where gradients overflow.
        mode: What comes before ``scaler.step``.
        ways: Keys of ``WAYS``.
        kind: The scaler of gpuopt's training.
        fused: That of gpuopt's optimizer.
        extras: Keywords of gpuopt's optimizer.
    """
    ours = train_by_gpuopt(case, overflow, mode, kind, fused, **extras)
    rtol, atol = TORCH["float32"]
    for way in ways:
        theirs = train_by_torch(case, overflow, mode, way)
        assert ours.scales == theirs.scales
        assert len(set(ours.scales)) > 1
        if ours.counts and theirs.counts:
            assert ours.counts == theirs.counts == [STEPS - len(overflow.steps)] * len(SHAPES)
        pairs = [(ours.params, theirs.params), (ours.norms, theirs.norms)]
        if "ema_decay" in extras:
            pairs.append((ours.averages, theirs.averages))
        for mine, other in pairs:
            assert len(mine) == len(other)
            torch.testing.assert_close(mine, other, rtol=rtol, atol=atol, msg=lambda m, way=way: f"{way}: {m}")
