"""One step of the parameters on one device: plans, step counts, hyper rows or what they follow from, and signals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any, NamedTuple, Self

import numpy as np
import torch

from gpuopt import backends
from gpuopt.kernels.rules import Rule
from gpuopt.kernels.schedule import Common, Schedule, row_at
from gpuopt.kernels.signals import Signals
from gpuopt.optim.param_state import EMA, MASTER, STEP, real
from gpuopt.plan import Plans, Tensor

_WIDE, _NARROW = np.dtype(np.float64), np.dtype(np.float32)

_MOST_STEPS = 2**32


@dataclass
class Member:
    """A parameter that is stepped.

    Attributes:
        name: What an error message calls it.
        group: Index of its group.
        index: Its place among all that are stepped.
        param: The parameter.
        grad: Its gradient.
        state: Its state.
        slots: Those of the rule that the step uses.
        count: Steps so far, a number or a tensor of one element.
        counts: Whether the state has a step count.
        average: Whether the average in the state is updated.
        master: Whether the original in the state is stepped.
    """

    name: str
    group: int
    index: int
    param: torch.Tensor
    grad: torch.Tensor
    state: dict[str, Any]
    slots: tuple[str, ...]
    count: Any
    counts: bool
    average: bool
    master: bool


class DeviceStep:
    """One step of some parameters on one device.

    Step counts are on the host, where hyper rows are computed from them, unless the steps are scheduled: then both
    are on the device, and no number comes from the host.

    Attributes:
        device: Where the parameters are.
        choice: The backend, and why it was picked.
        plans: The launches.
    """

    def __init__(
        self,
        rule: Rule,
        members: Sequence[Member],
        backend: str | None,
        zero_grads: bool,
        scheduled: bool,
        replayed: bool,
    ) -> None:
        """Checks and plans.

        Args:
            rule: The arithmetic.
            members: What is stepped, all on one device.
            backend: The name of the backend; None for the fastest.
            zero_grads: Whether gradients are set to zero.
            scheduled: Whether step counts are on the device, if the backend can follow a schedule.
            replayed: Whether steps may be captured in a CUDA graph.

        Raises:
            TypeError, ValueError, RuntimeError: As :class:`gpuopt.plan.Plans` and :func:`gpuopt.backends.choose`.
        """
        self.device = members[0].param.device
        self.choice = backends.choose(self.device.type, backend, prefer="triton")
        self.driver = self.choice.driver
        self.scheduled = scheduled and self.driver.SCHEDULES
        self._rule = rule
        self._replayed = replayed
        self._indices = [member.index for member in members]
        self._groups = np.array([member.group for member in members], dtype=np.int64)
        self._views = [real(member.grad) for member in members]
        tensors = [_tensor(rule, member, grad) for member, grad in zip(members, self._views, strict=True)]
        self.plans = Plans(rule, tensors, self.driver, zero_grads)
        self._counts = self._new_counts(members)
        self._expected: np.ndarray[Any, Any] = np.empty(0)  # like none, until the first step finds out
        self._first_of_class: np.ndarray[Any, Any] = np.empty(0, dtype=np.int64)
        self._constants: dict[torch.dtype, tuple[float, torch.Tensor]] = {}
        self._sources: list[torch.Tensor] = []
        self.loss_scale: torch.Tensor | None = None
        self.found_inf: torch.Tensor | None = None
        self.outcome: Outcome | None = None

    @property
    def is_wide(self) -> bool:
        """Whether a launch computes in float64."""
        return any(launch.table.variant.compute == _WIDE for launch in self.plans.launches)

    def prepare(self, settings: Sequence[Sequence[Any]]) -> None:
        """Checks settings, and has what is compiled on the host compiled, before anything is written.

        Args:
            settings: For each group, see :meth:`place`.
        """
        if self.scheduled:
            self._schedule(settings)
        else:
            threads = torch.get_num_threads()
            self.plans.prepare(self._rows(settings))
            if torch.get_num_threads() != threads:  # Numba sets it for its own as these start, if both are OpenMP's
                torch.set_num_threads(threads)

    def move_grads(self, addresses: Sequence[int] | np.ndarray[Any, Any], grads: Sequence[torch.Tensor]) -> None:
        """Takes gradients at new addresses, of all that are stepped, in the layout of those before."""
        self._views = [grads[index] for index in self._indices]
        self.plans.move_grads_to(np.asarray(addresses, dtype=np.int64)[self._indices], self._views)

    def place(
        self,
        settings: Sequence[Sequence[Any]],
        grad_scale: torch.Tensor | None,
        found_inf: torch.Tensor | None,
        clipped: bool,
    ) -> None:
        """Brings what the step reads to where it is read, and writes nothing of the tensors.

        Args:
            settings: For each group what :func:`~gpuopt.kernels.schedule.row_at` takes, numbers or tensors.
            grad_scale: The loss scale, which gradients are divided by.
            found_inf: Unless it is 0, the step does nothing.
            clipped: Whether ``outcome`` is to be filled with a norm and its factor before the step.

        Raises:
            TypeError, ValueError: A setting cannot be used.
        """
        self.loss_scale, self.found_inf = self._here(grad_scale), self._here(found_inf)
        self.outcome = Outcome.on(self.device) if clipped else None
        self.plans.place(self._schedule(settings) if self.scheduled else self._rows(settings), self._signals())

    def sum_squares(self) -> list[Any]:
        """See :meth:`gpuopt.plan.Plans.sum_squares`."""
        return self.plans.sum_squares()

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

    def step(self) -> None:
        """The step, as it was placed. It advances the step counts unless it is skipped."""
        self.plans.step()
        self._views = []
        if not self.scheduled and (self.found_inf is None or self.found_inf.item() == 0):
            counts = self._counts.numpy()
            counts += 1
            self._expected = counts.copy()

    def _here(self, scalar: torch.Tensor | None) -> torch.Tensor | None:
        """A scalar as the step reads it: float32, and where the parameters are. The host waits for its own."""
        if scalar is None:
            return None
        return scalar.detach().to(self.device, torch.float32, non_blocking=self.device.type == "cuda")

    def _signals(self) -> dict[np.dtype[Any], Signals] | None:
        loss_scale, found_inf = (0 if s is None else s.data_ptr() for s in (self.loss_scale, self.found_inf))
        factors = (
            (0, 0) if self.outcome is None else (self.outcome.wide[1].data_ptr(), self.outcome.narrow[1].data_ptr())
        )
        if not (loss_scale or found_inf or any(factors)):
            return None
        wide, narrow = (Signals(loss_scale, factor, found_inf) for factor in factors)
        return {_WIDE: wide, _NARROW: narrow}

    def _rows(self, settings: Sequence[Sequence[Any]]) -> list[tuple[float, ...]]:
        """The hyper rows of this step: one for each group and step count that differ."""
        counts = self._counts.numpy()
        if not np.array_equal(counts, self._expected):
            classes = self._groups * _MOST_STEPS + counts.astype(np.int64)
            _, self._first_of_class, rows = np.unique(classes, return_index=True, return_inverse=True)
            self.plans.assign_hyper_rows(rows)
            self._expected = counts.copy()
        numbers = {
            group: self._numbers(group, settings[group]) for group in {*self._groups[self._first_of_class].tolist()}
        }
        return [
            row_at(self._rule, int(counts[first]) + 1, numbers[int(self._groups[first])])
            for first in self._first_of_class
        ]

    def _schedule(self, settings: Sequence[Sequence[Any]]) -> Schedule:
        """What the device computes the hyper rows from."""
        shape = len(settings), len(Common._fields) + len(self._rule.settings)
        values, sources = np.zeros(shape), np.zeros(shape, dtype=np.int64)
        self._sources = []
        for group in {*self._groups.tolist()}:
            given = list(settings[group])
            for column, value in enumerate(given):
                if isinstance(value, torch.Tensor) and (value.is_cuda or self.device.type == "cpu"):
                    source = value.detach().to(self.device, non_blocking=True)
                    if source.dtype not in (torch.float32, torch.float64):
                        raise TypeError(
                            f"{self._called(column, group)} must be float32 or float64, but is {source.dtype}"
                        )
                    self._sources.append(source)
                    sources[group, column] = source.data_ptr() + (source.dtype is torch.float64)
                    given[column] = 0.0
            values[group] = self._numbers(group, given)
        addresses = self._counts.data_ptr() + self._counts.element_size() * np.arange(len(self._groups))
        return Schedule(addresses, self._groups, values, sources, self._replayed)

    def _numbers(self, group: int, settings: Sequence[Any]) -> list[float]:
        """Settings as numbers of float64."""
        numbers = [float(value) for value in settings]
        for column, number in enumerate(numbers):
            if not isfinite(number):
                raise ValueError(f"{self._called(column, group)} must be finite, but is {number}")
        return numbers

    def _called(self, column: int, group: int) -> str:
        return f"{(*Common._fields, *self._rule.settings)[column]} of group {group}"

    def _new_counts(self, members: Sequence[Member]) -> torch.Tensor:
        """Step counts in one tensor, of which those in the states become views."""
        device = self.device if self.scheduled else torch.device("cpu")
        given = [member.count for member in members]
        if any(isinstance(count, torch.Tensor) and count.device == device != torch.device("cpu") for count in given):
            counts = torch.stack(
                [torch.as_tensor(count, dtype=torch.float32, device=device).reshape(()) for count in given]
            )
        else:
            counts = torch.tensor([float(count) for count in given], dtype=torch.float32, device=device)
        for member, count in zip(members, counts, strict=True):
            if member.counts:
                member.state[STEP] = count
        return counts


class Outcome(NamedTuple):
    """The norm of the gradients and the factor that clips it, in both precisions."""

    wide: torch.Tensor
    narrow: torch.Tensor

    @classmethod
    def on(cls, device: torch.device) -> Self:
        """A new one, not filled."""
        return cls(*(torch.empty(2, dtype=dtype, device=device) for dtype in (torch.float64, torch.float32)))


def _tensor(rule: Rule, member: Member, grad: torch.Tensor) -> Tensor:
    """The slots of a parameter as a plan takes them."""
    state = [real(member.state[slot]) if slot in member.slots else None for slot in rule.slots]
    average = real(member.state[EMA]) if member.average else None
    if member.master:
        return Tensor(member.name, (member.state[MASTER], grad, *state, average, member.param.detach()))
    return Tensor(member.name, (real(member.param.detach()), grad, *state, average, None))
