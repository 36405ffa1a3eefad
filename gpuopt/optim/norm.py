"""The one pass over gradients before a step: is one of them not finite, and what clips their global norm."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from math import isfinite
from typing import NamedTuple

import numpy as np
import torch

from gpuopt.kernels import gradnorm
from gpuopt.optim.selection import Outcome, Scaling, Selection
from gpuopt.optim.shards import is_shard, local, placed_grad

_CPU = torch.device("cpu")

Sums = list[torch.Tensor]
"""Sums of squares of gradients, float64, where they were read: their sum is that of all squares."""


class Read(NamedTuple):
    """What reading the gradients of this process once has told.

    Attributes:
        parts: The sums of squares, for each part of the model that is added up for itself.
        overflow: Not 0 if a gradient is not finite, or the scaler has found that; None where nobody asks.
    """

    parts: list[Sums]
    overflow: torch.Tensor | None


def read(steps: Sequence[Selection], parts: int, scaling: Scaling) -> Read:
    """Reads the gradients of all steps, once they are placed."""
    sums = [sum_squares(steps, part) for part in range(parts)]
    if scaling.is_to_be_found and scaling.found_inf is not None:
        return Read(sums, find_inf(steps, sums[0], scaling.found_inf.device))
    return Read(sums, scaling.found_inf)


def sum_squares(steps: Sequence[Selection], part: int) -> Sums:
    """The sums of one part of the model; of what is in other parts, whether it is finite."""
    arrays = [array for step in steps for array in step.sum_squares(part)]
    return [torch.from_numpy(array) if isinstance(array, np.ndarray) else array for array in arrays]


def total(sums: Sums) -> torch.Tensor:
    """The sum of all, of no dimension."""
    if not sums:
        return torch.zeros((), dtype=torch.float64)
    here = [part.to(sums[0].device, non_blocking=sums[0].is_cuda) for part in sums]
    return (here[0] if len(here) == 1 else torch.cat(here)).sum()


def find_inf(steps: Sequence[Selection], sums: Sums, device: torch.device) -> torch.Tensor:
    """Whether a gradient is not finite, of no dimension on ``device``.

    Squares of float64 can overflow where a gradient does not, so of these the largest elements tell.
    """
    grads = [grad for step in steps for grad in step.grads]
    if any(grad.dtype is torch.float64 for grad in grads):
        filled = [grad for grad in grads if grad.numel()]
        numbers = [norm.reshape(1) for norm in torch._foreach_norm(filled, float("inf"))] if filled else []
    else:
        numbers = [part for part in sums if part.numel()]
    if not numbers:
        return torch.zeros((), dtype=torch.bool, device=device)
    there = [number.to(device, non_blocking=device.type == "cuda") for number in numbers]
    largest = (there[0] if len(there) == 1 else torch.cat(there)).amax()  # NaN if one of them is
    return largest - largest != 0


def tell_overflow(steps: Sequence[Selection], scaling: Scaling, overflow: torch.Tensor) -> None:
    """Has all steps know whether there is an overflow, and the scaler, if that is to be found for it."""
    written = None
    if scaling.is_to_be_found and scaling.found_inf is not None:
        written = scaling.found_inf.copy_(overflow, non_blocking=True).device
    for step in steps:
        if step.found_inf is not None and step.found_inf.device != written:  # where it is, steps have no copy
            step.found_inf.copy_(overflow, non_blocking=True)


def clip(steps: Sequence[Selection], sums: Sums, max_norm: float, scaling: Scaling) -> Outcome:
    """Fills the outcome of every step, once they are placed, and returns one of them.

    The norm is ended where the first step is, without the host waiting, if all are on GPUs; else on the host.
    """
    is_on_device = steps and all(step.home.driver.SCHEDULES for step in steps)
    outcome = _on_device(steps[0], sums, max_norm) if is_on_device else _on_host(steps, sums, max_norm, scaling)
    for step in steps:
        assert step.outcome is not None
        for filled, to_fill in zip(outcome, step.outcome, strict=True):
            if filled is not to_fill:
                to_fill.copy_(filled, non_blocking=True)
    return outcome


def check_finite(norm: torch.Tensor, overflow: torch.Tensor | None) -> None:
    """Refuses a norm that is not finite, unless the step does nothing anyway. The host waits.

    Raises:
        RuntimeError: It is not.
    """
    if not isfinite(norm.item()) and not (overflow is not None and overflow.item()):
        raise RuntimeError(
            "The total norm of order 2.0 for gradients from `parameters` is non-finite, so it cannot be clipped. To "
            "disable this error and scale the gradients by the non-finite norm anyway, set `error_if_nonfinite=False`"
        )


def unscale(
    params: Sequence[torch.Tensor], inverse_scale: torch.Tensor, found_inf: torch.Tensor, allow_fp16: bool
) -> torch.Tensor:
    """Multiplies what is in this process of gradients by ``inverse_scale``.

    Returns:
        Not 0 if one of them is not finite, or ``found_inf`` is not, of no dimension where that is.

    Raises:
        ValueError: One is of float16, and that is not allowed.
    """
    found = found_inf.clone()
    by_kind: dict[tuple[torch.device, torch.dtype], list[torch.Tensor]] = {}
    for index, param in enumerate(params):
        if param.grad is not None:
            grad = local(placed_grad(param, str(index)) if is_shard(param) else param.grad)
            if grad.dtype is torch.float16 and not allow_fp16:
                raise ValueError("Attempting to unscale FP16 gradients.")
            if grad.is_sparse:
                grad = grad.coalesce()._values()
            by_kind.setdefault((grad.device, grad.dtype), []).append(grad)
    for (device, _), grads in by_kind.items():
        there = torch.zeros_like(found, device=device)
        torch._amp_foreach_non_finite_check_and_unscale_(grads, there, inverse_scale.to(device))
        found += there.to(found.device)
    return found


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


def _on_host(steps: Sequence[Selection], sums: Sequence[torch.Tensor], max_norm: float, scaling: Scaling) -> Outcome:
    scale = 1.0 if scaling.loss_scale is None else float(scaling.loss_scale)
    norm = gradnorm.norm_of([part.cpu().numpy() for part in sums], scale)
    own = steps[0].outcome if steps and steps[0].home.device == _CPU else None
    outcome = Outcome.on(_CPU) if own is None else own
    values = np.array([norm, gradnorm.clip_factor(norm, max_norm)])
    with np.errstate(over="ignore"):
        for tensor in outcome:
            tensor.numpy()[:] = values
    return outcome
