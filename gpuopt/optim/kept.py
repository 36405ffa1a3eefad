"""What a step keeps for the next, and how it finds out in little time whether that still holds."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from operator import is_
from typing import Any

import torch

from gpuopt.optim.device_step import DeviceStep, Member
from gpuopt.optim.param_state import STEP, real
from gpuopt.seen import Seen

_address = torch.Tensor.data_ptr
_numel = torch.Tensor.numel
_strides = torch.Tensor.stride
_is_contiguous = torch.Tensor.is_contiguous

_END = object()


class Kept:
    """Steps for each device, and what they were planned for.

    Made from ``members``, all that is stepped; ``ends``, how many of them come before the end of each group; ``key``,
    what else the plan depends on; and ``state``, the optimizer's.

    Parameters and state are known by identity and address. Gradients, which are not kept alive, are known by address,
    and unless they are the very objects of the last step, by dtype and strides: PyTorch itself sees to it that a new
    gradient has the shape and the device of its parameter.
    """

    def __init__(
        self, members: Sequence[Member], device_steps: Sequence[DeviceStep], ends: list[int], key: Any, state: Any
    ) -> None:
        self.device_steps = device_steps
        self._ends = ends
        self._key = key
        self._state = state
        self._params = [member.param for member in members]
        self._numels = list(map(_numel, self._params))
        self._strides = _strides_unless_contiguous(self._params)
        self._is_complex = any(map(torch.is_complex, self._params))
        self._stateful = [member.param for member in members if member.state]
        self._stateless = [member.param for member in members if not member.state]
        self._states = [member.state for member in members if member.state]
        self._all_states: list[Any] = []
        self._entries = list(self._look_up())
        # The counts are views into memory of ours, so that only the others can be elsewhere.
        self._tensors = self._params + [
            entry
            for state in self._states
            for name, entry in state.items()
            if name != STEP and isinstance(entry, torch.Tensor)
        ]
        self._addresses = list(map(_address, self._tensors))
        grads = [real(member.grad) for member in members]
        self._identities: list[int] = []
        self._seen: Seen | None = None
        self._grad_addresses = list(map(_address, grads))
        self._dtypes = [grad.dtype for grad in grads]
        self._grad_strides = _strides_unless_contiguous(grads)
        self._needs_grads = self._is_complex or any(step.plans.packs_grads for step in device_steps)

    def keep_state(self) -> None:
        """Gives the optimizer the state that was made for the step, once nothing stands in the way of it."""
        for param in self._stateless:
            self._state.pop(param, None)
        self._state.update(zip(self._stateful, self._states, strict=True))
        self._all_states = list(self._state.values())

    def fits(self, params: Sequence[torch.Tensor], ends: list[int], key: Any, state: Any) -> bool:
        """Whether parameters and state are those that the steps were planned for, where they were."""
        if ends != self._ends or key != self._key or state is not self._state:
            return False
        return (
            _same(state.values(), self._all_states)
            and all(map(is_, params, self._params))
            and _lie(params, self._strides)
            and _same(self._look_up(), self._entries)
            and list(map(_address, self._tensors)) == self._addresses
        )

    def take(self, grads: Sequence[torch.Tensor]) -> bool:
        """Takes the gradients of this step, one per parameter; False where they do not lie like the last."""
        if (
            self._seen is not None
            and self._seen.same(grads)
            and _lie(grads, self._grad_strides)
            and list(map(_address, grads)) == self._grad_addresses
        ):
            return True
        if not self._look_at(list(map(real, grads)) if self._is_complex else grads):
            return False
        # Gradients that come again are worth remembering.
        identities = list(map(id, grads))
        self._seen = Seen(grads) if identities == self._identities and not self._needs_grads else None
        self._identities = identities
        return True

    def _look_at(self, grads: Sequence[torch.Tensor]) -> bool:
        """Takes gradients that may be others than those of the last step."""
        try:
            addresses = list(map(_address, grads))
        except RuntimeError:  # sparse
            return False
        if list(map(_numel, self._params)) != self._numels:
            return False
        if [grad.dtype for grad in grads] != self._dtypes or not _lie(grads, self._grad_strides):
            return False
        if any(map(torch.Tensor.is_neg, grads)):
            return False
        if addresses != self._grad_addresses or self._needs_grads:
            if 0 in addresses and any(
                not address and grad.numel() for address, grad in zip(addresses, grads, strict=True)
            ):
                return False
            for device_step in self.device_steps:
                device_step.move_grads(addresses, grads)
            self._grad_addresses = addresses
        return True

    def _look_up(self) -> Iterator[Any]:
        return chain.from_iterable(map(dict.values, self._states))


def _same(items: Iterable[Any], those: Sequence[Any]) -> bool:
    """Whether ``items`` are the very objects of ``those``, no more and no fewer."""
    return all(map(is_, chain(items, (_END,)), chain(those, (_END,))))


def _strides_unless_contiguous(tensors: Sequence[torch.Tensor]) -> list[Any] | None:
    return None if all(map(_is_contiguous, tensors)) else list(map(_strides, tensors))


def _lie(tensors: Sequence[torch.Tensor], strides: list[Any] | None) -> bool:
    """Whether tensors have ``strides``, or are contiguous if that is None, which takes less time to find out."""
    return all(map(_is_contiguous, tensors)) if strides is None else list(map(_strides, tensors)) == strides
