"""What all steps of an optimizer on one device share: the rows, the step counts, and constants."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from gpuopt import backends
from gpuopt.optim.member import Member, Recipe
from gpuopt.optim.state import STEP
from gpuopt.plan import Plan, Tensor

_CPU = torch.device("cpu")


class Device:
    """What steps on one device share.

    Step counts are on the host, where hyper rows are computed from them, unless the steps are scheduled: then both
    are on the device, and no number comes from the host.

    Attributes:
        recipe: What rows are made by.
        device: Where the parameters are.
        driver: Runs the launches.
        scheduled: Whether step counts are on the device.
        plan: The rows.
        counts: The step count of every row, float32.
        host_counts: The same memory as an array, where it is on the host.
    """

    def __init__(self, recipe: Recipe, device: torch.device, size: int) -> None:
        """A device for ``size`` rows, made by ``recipe``.

        Raises:
            ValueError, RuntimeError: As :func:`gpuopt.backends.choose`.
        """
        self.recipe, self.device = recipe, device
        self.driver = backends.choose(device.type, recipe.backend, prefer="triton").driver
        self.scheduled = recipe.scheduled and self.driver.SCHEDULES
        self.plan = Plan(recipe.rule, self.driver, size, recipe.zero_grads)
        self.counts = torch.zeros(size, dtype=torch.float32, device=device if self.scheduled else "cpu")
        self.host_counts = np.empty(0) if self.scheduled else self.counts.numpy()
        self._constants: dict[torch.dtype, tuple[float, torch.Tensor]] = {}

    def put(self, made: Sequence[tuple[Member, Tensor, Any]]) -> None:
        """Makes rows of what :func:`~gpuopt.optim.member.member_of` has made, whose step counts become views of ours.

        Raises:
            TypeError, ValueError: As :meth:`gpuopt.plan.Plan.put`.
        """
        for member, tensor, _ in made:
            self.plan.put(member.index, tensor)
        given = [count for *_, count in made]
        home = next((c.device for c in given if isinstance(c, torch.Tensor) and c.device.type != "cpu"), _CPU)
        counts = torch.stack([torch.as_tensor(c, dtype=torch.float32, device=home).reshape(()) for c in given])
        self.counts[torch.tensor([each.index for each, *_ in made], device="cpu")] = counts.to(self.counts.device)
        for member, *_ in made:
            if STEP in member.state:
                dict.__setitem__(member.state, STEP, self.counts[member.index])

    def constant(self, value: float, dtype: torch.dtype) -> torch.Tensor:
        """A tensor of one element on the device, one for each dtype, filled where ``value`` has changed."""
        if dtype not in self._constants:
            self._constants[dtype] = value, torch.full((1,), value, dtype=dtype, device=self.device)
        filled, tensor = self._constants[dtype]
        if filled != value:  # which a capture would only record
            if self.device.type == "cuda" and torch.cuda.is_current_stream_capturing():
                raise RuntimeError("max_grad_norm was changed: a step must be taken outside of the CUDA graph first")
            self._constants[dtype] = value, tensor.fill_(value)
        return tensor

    def scalar(self, scalar: torch.Tensor | None) -> torch.Tensor | None:
        """A scalar as a step reads it: float32, and on the device. The host waits for its own."""
        if scalar is None:
            return None
        return scalar.detach().to(self.device, torch.float32, non_blocking=self.device.type == "cuda")
