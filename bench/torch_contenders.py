"""The contenders that step PyTorch's parameters: gpuopt's optimizers for PyTorch, and torch.optim's.

They start from the parameters and gradients of :mod:`gpuopt.bench.contenders`, on the CPU.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from importlib.util import find_spec
from typing import Any

import numpy as np

from gpuopt import arrays, backends
from gpuopt.bench.contenders import (
    TOLERANCE,
    TORCH_WAYS,
    WARM_UP,
    Array,
    Job,
    Start,
    absent,
    no_torch,
    torch_contenders,
    torch_params,
    warm,
)
from gpuopt.bench.timing import Contender
from gpuopt.kernels.drivers import DRIVERS

EMA_DECAY = 0.99

MAX_NORM_SHARE = 0.5
"""Gradients are clipped to this share of their norm."""


def steps(job: Job, begun: Start, begin: Callable[[str], None]) -> list[Contender]:
    """``step`` of gpuopt's optimizer on each driver for the host, and of torch.optim's in each of its ways."""
    made = list(_gpuopt_contenders(begin, lambda driver: _gpuopt_step(driver, job, begun)))
    return made + list(torch_contenders("cpu", job, begun, begin))


def tails(job: Job, begun: Start, begin: Callable[[str], None]) -> list[Contender]:
    """What follows a backward pass: unscale, look for infinities, clip, step, and average the weights.

    gpuopt is given ``max_grad_norm`` and ``ema_decay``; for torch it is what its documentation says: ``unscale_``,
    ``clip_grad_norm_``, ``step`` and ``AveragedModel``'s own update, each over all tensors at once. The loss scale is
    1, so that gradients unscaled in place stay what they are.
    """
    expected = _expected_tail(job, begun)
    made = list(_gpuopt_contenders(begin, lambda driver: _gpuopt_tail(driver, job, begun, expected)))
    if find_spec("torch") is None:
        return made + [no_torch(f"torch {way}") for way in TORCH_WAYS]
    for way, flags in TORCH_WAYS.items():
        begin(f"torch {way}")
        made.append(_torch_tail(way, flags, job, begun, expected))
    return made


def max_norm(begun: Start) -> float:
    """What gradients are clipped to."""
    squares = sum(float(np.square(g, dtype=np.float64).sum()) for g in begun.grads)
    return float(MAX_NORM_SHARE * np.sqrt(squares))


def _gpuopt_contenders(begin: Callable[[str], None], make: Callable[[str], Contender]) -> Iterator[Contender]:
    for driver, reason in backends.available().items():
        if DRIVERS[driver].device != "cpu":
            continue
        name = f"gpuopt {driver}"
        if reason is not None or find_spec("torch") is None:
            yield absent(name, reason) if reason else no_torch(name)
            continue
        begin(name)
        yield make(driver)


def _arrays(tensors: list[Any]) -> list[Array]:
    return [tensor.detach().numpy() for tensor in tensors]


def _gpuopt_step(driver: str, job: Job, begun: Start) -> Contender:
    from gpuopt import optim

    params = torch_params(begun, own_grads=True)
    optimizer = getattr(optim, job.torch_name)(params, **job.torch_settings, backend=driver)
    return warm(f"gpuopt {driver}", optimizer.step, lambda: _arrays(params), begun.expected, tolerance=0)


def _gpuopt_tail(driver: str, job: Job, begun: Start, expected: list[Array]) -> Contender:
    from gpuopt import optim

    params = torch_params(begun, own_grads=True)
    optimizer = getattr(optim, job.torch_name)(
        params, **job.torch_settings, backend=driver, max_grad_norm=max_norm(begun), ema_decay=EMA_DECAY
    )
    scaler = _scaler()

    def step() -> None:
        scaler.step(optimizer)
        scaler.update()

    def outcome() -> list[Array]:
        return _arrays([*params, *(optimizer.state[param]["ema"] for param in params)])

    return warm(f"gpuopt {driver}", step, outcome, expected, TOLERANCE)


def _torch_tail(way: str, flags: dict[str, bool], job: Job, begun: Start, expected: list[Array]) -> Contender:
    import torch
    from torch.optim.swa_utils import get_ema_multi_avg_fn

    params = torch_params(begun, own_grads=True)
    averages = [param.detach().clone() for param in params]
    average = get_ema_multi_avg_fn(EMA_DECAY)  # type: ignore[no-untyped-call]
    optimizer = getattr(torch.optim, job.torch_name)(params, **job.torch_settings, **flags)
    clip = partial(torch.nn.utils.clip_grad_norm_, params, max_norm(begun), foreach=True)
    scaler = _scaler()

    def step() -> None:
        scaler.unscale_(optimizer)
        clip()
        scaler.step(optimizer)
        scaler.update()
        average(averages, params, None)

    return warm(f"torch {way}", step, lambda: _arrays([*params, *averages]), expected, TOLERANCE)


def _scaler() -> Any:
    import torch

    scaler = torch.amp.GradScaler("cpu", init_scale=1.0, growth_interval=1 << 30)
    scaler.scale(torch.ones(()))
    return scaler


def _expected_tail(job: Job, begun: Start) -> list[Array]:
    """Parameters, then averages, after the warm-up, by the NumPy driver and NumPy."""
    params = {str(index): array.copy() for index, array in enumerate(begun.params)}
    averages = {name: array.copy() for name, array in params.items()}
    # The norm of a clipped gradient is the limit, so that clipping it again changes nothing of note.
    grads = {str(index): array * np.float32(MAX_NORM_SHARE) for index, array in enumerate(begun.grads)}
    optimizer = getattr(arrays, job.name)(**job.settings, backend="numpy")
    for _ in range(WARM_UP):
        optimizer.update(params, grads)
        for name, average in averages.items():
            averages[name] = average + (params[name] - average) * np.float32(1 - EMA_DECAY)
    return [*params.values(), *averages.values()]
