"""The one pass over gradients before a step: is one of them not finite, and what clips their global norm."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from math import isfinite

import numpy as np
import torch

from gpuopt.kernels import gradnorm
from gpuopt.optim.selection import Outcome, Selection

_CPU = torch.device("cpu")

Sums = list[torch.Tensor]
"""Sums of squares of gradients, float64, where they were read: their sum is that of all squares."""


def sum_squares(steps: Sequence[Selection]) -> Sums:
    """The sums of all steps, once they are placed."""
    parts = [part for step in steps for part in step.sum_squares()]
    return [torch.from_numpy(part) if isinstance(part, np.ndarray) else part for part in parts]


def find_inf(steps: Sequence[Selection], sums: Sums, found_inf: torch.Tensor) -> None:
    """Sets ``found_inf`` to 1 if a gradient is not finite, also where steps have a copy of it; else leaves it 0.

    Squares of float64 can overflow where a gradient does not, so of these the largest elements tell.
    """
    grads = [grad for step in steps for grad in step.grads]
    if any(grad.dtype is torch.float64 for grad in grads):
        filled = [grad for grad in grads if grad.numel()]
        numbers = [norm.reshape(1) for norm in torch._foreach_norm(filled, float("inf"))] if filled else []
    else:
        numbers = [part for part in sums if part.numel()]
    if numbers:
        there = [number.to(found_inf.device, non_blocking=found_inf.is_cuda) for number in numbers]
        largest = (there[0] if len(there) == 1 else torch.cat(there)).amax()  # NaN if one of them is
        found_inf.copy_(largest - largest != 0)
    for step in steps:
        if step.found_inf is not None and step.found_inf.device != found_inf.device:
            step.found_inf.copy_(found_inf, non_blocking=True)


def clip(steps: Sequence[Selection], sums: Sums, max_norm: float, error_if_nonfinite: bool) -> torch.Tensor:
    """Fills the outcome of every step, once they are placed.

    The norm is ended where the first step is, without the host waiting, if all are on GPUs; else on the host.

    Returns:
        The norm of the unscaled gradients, of no dimension, float64 if one of the steps is.

    Raises:
        RuntimeError: It is not finite, ``error_if_nonfinite``, and the steps would not be skipped anyway.
    """
    first = steps[0]
    is_on_device = all(step.home.driver.SCHEDULES for step in steps)
    outcome = _on_device(first, sums, max_norm) if is_on_device else _on_host(first, sums, max_norm)
    for step in steps:
        assert step.outcome is not None
        for filled, to_fill in zip(outcome, step.outcome, strict=True):
            if filled is not to_fill:
                to_fill.copy_(filled, non_blocking=True)
    norm = (outcome.wide if any(step.is_wide for step in steps) else outcome.narrow)[0]
    found_inf = first.found_inf
    if error_if_nonfinite and not isfinite(norm.item()) and not (found_inf is not None and found_inf.item()):
        raise RuntimeError(
            "The total norm of order 2.0 for gradients from `parameters` is non-finite, so it cannot be clipped. To "
            "disable this error and scale the gradients by the non-finite norm anyway, set `error_if_nonfinite=False`"
        )
    return norm


def _on_device(first: Selection, sums: Sequence[torch.Tensor], max_norm: float) -> Outcome:
    from gpuopt.kernels.drivers import triton_norm

    assert first.outcome is not None
    device = first.home.device
    here = [part.to(device, non_blocking=True) for part in sums]
    limit = first.home.constant(max_norm, torch.float64)
    loss_scale = first.home.constant(1.0, torch.float32) if first.loss_scale is None else first.loss_scale
    with torch.cuda.device(device) if device.type == "cuda" else nullcontext():
        triton_norm.clip(here[0] if len(here) == 1 else torch.cat(here), limit, loss_scale, *first.outcome)
    return first.outcome


def _on_host(first: Selection, sums: Sequence[torch.Tensor], max_norm: float) -> Outcome:
    scale = 1.0 if first.loss_scale is None else float(first.loss_scale)
    norm = gradnorm.norm_of([part.cpu().numpy() for part in sums], scale)
    outcome = first.outcome if first.home.device == _CPU and first.outcome is not None else Outcome.on(_CPU)
    values = np.array([norm, gradnorm.clip_factor(norm, max_norm)])
    with np.errstate(over="ignore"):
        for tensor in outcome:
            tensor.numpy()[:] = values
    return outcome
