"""Parameters of one device that are stepped together: their gradients, hyper rows or schedule, and signals."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import isfinite
from typing import Any, NamedTuple, Self

import numpy as np
import torch

from gpuopt.kernels.schedule import Common, Schedule, row_at
from gpuopt.kernels.signals import Signals
from gpuopt.optim.device import Device
from gpuopt.optim.member import Look, Member, address_of
from gpuopt.optim.settings import PLAIN, check_number, names_of
from gpuopt.optim.shards import increment_versions, is_shard, locals_of
from gpuopt.optim.state import real
from gpuopt.seen import Seen

Settings = Sequence[Sequence[Any]]
"""For each group what :func:`~gpuopt.kernels.schedule.row_at` takes, numbers or tensors."""

_WIDE, _NARROW = np.dtype(np.float64), np.dtype(np.float32)

_MOST_STEPS = 2**32

_is_contiguous = torch.Tensor.is_contiguous
_strides = torch.Tensor.stride
_numel = torch.Tensor.numel
_is_neg = torch.Tensor.is_neg


class Scaling(NamedTuple):
    """What a gradient scaler leaves for a step.

    Attributes:
        loss_scale: What gradients are to be divided by.
        found_inf: Unless it is 0, the step does nothing.
        is_to_be_found: Whether the step is to fill ``found_inf`` itself.
        is_there: Whether there is a scaler, which leaves no tensors where no parameter has a gradient.
    """

    loss_scale: torch.Tensor | None
    found_inf: torch.Tensor | None
    is_to_be_found: bool
    is_there: bool


class Outcome(NamedTuple):
    """The norm of the gradients and the factor that clips it, in both precisions."""

    wide: torch.Tensor
    narrow: torch.Tensor

    @classmethod
    def on(cls, device: torch.device) -> Self:
        """A new one, not filled."""
        return cls(*(torch.empty(2, dtype=dtype, device=device) for dtype in (torch.float64, torch.float32)))


class Selection:
    """Parameters of one device that are stepped together.

    Attributes:
        home: Their device.
        grads: Their gradients, while a step goes on.
        loss_scale, found_inf: Those of :class:`Scaling`, on the device.
        outcome: To be filled before the step where gradients are clipped.
    """

    def __init__(self, home: Device, members: Sequence[Member]) -> None:
        """Selects the rows of ``members``; raises what :meth:`gpuopt.plan.Plan.select` does."""
        self.home = home
        self._params = [member.param for member in members]
        self._is_sharded = any(map(is_shard, self._params))
        self.grads: list[torch.Tensor] = []
        self._rows = home.plan.select([member.index for member in members])
        self._groups = np.array([member.group for member in members], dtype=np.int64)
        lent = [pair for member in members if member.state.is_lent for pair in member.state_addresses]
        self._fixed = [*self._params, *(tensor for tensor, _ in lent)]
        self._addresses = [*(member.address for member in members), *(address for _, address in lent)]
        self._strides = _unless_contiguous(member.look for member in members)
        self._grad_strides = _unless_contiguous(member.grad_look for member in members)
        self._grad_dtypes = [member.grad_look.dtype for member in members]
        self._mastered = [member for member in members if member.has_original]
        self._is_complex = any(member.look.dtype.is_complex for member in members)
        self._grad_numels = [member.grad_look.numel for member in members]
        self._grad_addresses: list[int] = []
        self._seen: Seen | None = None
        self._expected = b""
        self._classes: list[tuple[int, int]] = []
        self._sources: list[torch.Tensor] = []
        self.loss_scale: torch.Tensor | None = None
        self.found_inf: torch.Tensor | None = None
        self.outcome: Outcome | None = None

    @property
    def is_wide(self) -> bool:
        """Whether a launch computes in float64."""
        return any(launch.table.variant.compute == _WIDE for launch in self._rows.launches)

    @property
    def skips(self) -> bool:
        """Whether the host sees that the step will do nothing, except to zero gradients that are to be zeroed."""
        return not self.home.scheduled and self.found_inf is not None and self.found_inf.item() != 0

    def take(self, grads: Sequence[torch.Tensor]) -> bool:
        """Takes the gradients of a step, what is in this process of one for each parameter.

        Returns:
            Whether they, the parameters and state that is lent lie as the rows say; if not, rows must be made anew.

        Raises:
            ValueError: A gradient shares memory with what is written.
        """
        try:
            views = list(map(real, grads)) if self._is_complex else list(grads)
            addresses = list(map(address_of, views))
        except RuntimeError:  # sparse ones have neither
            return False
        moved = addresses != self._grad_addresses
        fixed = locals_of(self._fixed) if self._is_sharded else self._fixed
        stays = list(map(address_of, fixed)) == self._addresses and _lie(fixed[: len(self._params)], self._strides)
        if not stays or not self._look_as_before(views, moved):
            return False
        if moved or self._rows.packs_grads:
            if 0 in addresses and any(view.numel() for view in views if not address_of(view)):  # freed
                return False
            if not self._rows.move_grads(addresses, views):
                return False
            self._grad_addresses = addresses
        self.grads = views
        return True

    def place(self, settings: Settings, scaling: Scaling, clipped: bool) -> None:
        """Brings what the step reads to where it is read, and writes nothing of the tensors.

        Where gradients are ``clipped``, ``outcome`` is to be filled with a norm and its factor before the step.

        Raises:
            TypeError, ValueError: A setting cannot be used.
        """
        self.loss_scale, self.found_inf = self.home.scalar(scaling.loss_scale), self.home.scalar(scaling.found_inf)
        self.outcome = Outcome.on(self.home.device) if clipped else None
        hyper = self._schedule(settings) if self.home.scheduled else self._hyper_rows(settings)
        self._rows.place(hyper, self._signals())
        threads = torch.get_num_threads()
        self._rows.prepare(self._threads())
        if torch.get_num_threads() != threads:  # Numba sets it for its own as these start, if both are OpenMP's
            torch.set_num_threads(threads)

    def renew_originals(self) -> None:
        """Has originals follow parameters that others have written to, before anything is read for the step."""
        for member in self._mastered:
            member.renew_original()

    def sum_squares(self, part: int) -> list[Any]:
        """See :meth:`gpuopt.plan.Selection.sum_squares`."""
        return self._rows.sum_squares(part, self._threads())

    def step(self) -> None:
        """The step, as it was placed. It advances the step counts unless it is skipped."""
        skips = self.skips
        if not skips:
            for member in self._mastered:
                member.adopt()
        self._rows.step(self._threads())
        if not skips:
            increment_versions(self._params, self._is_sharded)
            for member in self._mastered:
                member.keep_versions()
            if not self.home.scheduled:
                counts = self.home.host_counts[self._rows.indices] + np.float32(1)
                self.home.host_counts[self._rows.indices] = counts
                self._expected = counts.tobytes()
        if self.home.recipe.zero_grads:
            torch.autograd.graph.increment_version(self.grads)
        self.grads = []

    def _threads(self) -> int | None:
        return torch.get_num_threads() if self.home.device.type == "cpu" else None

    def _look_as_before(self, grads: list[torch.Tensor], moved: bool) -> bool:
        """Whether gradients lie as the rows say; the very ones that were seen before are asked less."""
        if not _lie(grads, self._grad_strides) or [grad.dtype for grad in grads] != self._grad_dtypes:
            return False
        if not moved and self._seen is not None and self._seen.same(grads):
            return True
        if list(map(_numel, grads)) != self._grad_numels or any(map(_is_neg, grads)):
            return False
        # PyTorch refuses to swap a tensor that has a weak reference.
        can_be_seen = not moved and not torch.__future__.get_swap_module_params_on_conversion()
        self._seen = Seen(grads) if can_be_seen else None
        return True

    def _signals(self) -> dict[np.dtype[Any], Signals] | None:
        if self.loss_scale is None and self.found_inf is None and self.outcome is None:
            return None
        loss_scale, found_inf = (0 if s is None else s.data_ptr() for s in (self.loss_scale, self.found_inf))
        factors = (0, 0) if self.outcome is None else (factor[1].data_ptr() for factor in self.outcome)
        wide, narrow = (Signals(loss_scale, factor, found_inf) for factor in factors)
        return {_WIDE: wide, _NARROW: narrow}

    def _hyper_rows(self, settings: Settings) -> list[tuple[float, ...]]:
        """The hyper rows of this step: one for each group and step count that differ."""
        counts = self.home.host_counts[self._rows.indices]
        if counts.tobytes() != self._expected:
            classes = self._groups * _MOST_STEPS + counts.astype(np.int64)
            _, firsts, rows = np.unique(classes, return_index=True, return_inverse=True)
            self._rows.assign_hyper_rows(rows)
            self._classes = list(zip(firsts.tolist(), self._groups[firsts].tolist(), strict=True))
            self._expected = counts.tobytes()
        numbers = {group: self._numbers(group, settings[group]) for group in {group for _, group in self._classes}}
        return [row_at(self.home.recipe.rule, int(counts[first]) + 1, numbers[group]) for first, group in self._classes]

    def _schedule(self, settings: Settings) -> Schedule:
        """What the device computes the hyper rows from."""
        rule, device = self.home.recipe.rule, self.home.device
        shape = len(settings), len(Common._fields) + len(rule.settings)
        values, sources = np.zeros(shape), np.zeros(shape, dtype=np.int64)
        self._sources = []
        for group in {*self._groups.tolist()}:
            given = list(settings[group])
            for column, value in enumerate(given):
                if isinstance(value, torch.Tensor) and (value.is_cuda or device.type == "cpu"):
                    source = value.detach().to(device, non_blocking=True)
                    if source.dtype not in (torch.float32, torch.float64):
                        raise TypeError(
                            f"{self._called(column, group)} must be float32 or float64, but is {source.dtype}"
                        )
                    self._sources.append(source)
                    sources[group, column] = source.data_ptr() + (source.dtype is torch.float64)
                    given[column] = 0.0
            values[group] = self._numbers(group, given)
        counts = self.home.counts
        addresses = counts.data_ptr() + counts.element_size() * self._rows.indices
        return Schedule(addresses, self._groups, values, sources, self.home.recipe.replayed)

    def _numbers(self, group: int, settings: Sequence[Any]) -> list[float]:
        """Settings as numbers of float64."""
        for column, value in enumerate(settings):
            if type(value) not in PLAIN:
                check_number(value, self._called(column, group))
        numbers = [float(value) for value in settings]
        for column, number in enumerate(numbers):
            if not isfinite(number):
                raise ValueError(f"{self._called(column, group)} must be finite, but is {number}")
        return numbers

    def _called(self, column: int, group: int) -> str:
        return f"{names_of(self.home.recipe.rule)[column]} of group {group}"


def _unless_contiguous(looks: Iterable[Look]) -> list[tuple[int, ...]] | None:
    """Strides of each tensor; None where all are contiguous, which takes less time to find out again."""
    looks = list(looks)
    return None if all(look.is_contiguous for look in looks) else [look.strides for look in looks]


def _lie(tensors: Sequence[torch.Tensor], strides: list[tuple[int, ...]] | None) -> bool:
    """Whether tensors have ``strides``, or are contiguous if that is None."""
    return all(map(_is_contiguous, tensors)) if strides is None else list(map(_strides, tensors)) == strides
