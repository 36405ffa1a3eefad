"""Whether gradients are those that a step was planned for, or lie like them. None is kept alive."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import torch

from gpuopt.optim.c_interface import CInterface, Integers
from gpuopt.optim.device_step import DeviceStep
from gpuopt.optim.layouts import address_of, can_be_held, lie, strides_unless_contiguous
from gpuopt.optim.param_state import real, resolve_grads
from gpuopt.seen import Seen


class Grads(Protocol):
    """The gradients of some parameters."""

    def take(self, steps: Sequence[DeviceStep]) -> bool:
        """Looks at the gradients that there are now, and tells ``steps`` where they are if they have moved.

        Returns:
            Whether there is one for every parameter, and it lies as it did when the steps were planned.
        """


class GradsByC:
    """Asks through ``c``, for gradients that are read where they are; ``handles`` are those of the parameters."""

    def __init__(self, params: Sequence[torch.Tensor], c: CInterface, handles: Integers) -> None:
        self._params, self._c, self._handles = params, c, handles
        grads = _grads_of(params)
        self._descriptions = c.describe(grads)
        self._addresses: Integers = np.array(list(map(address_of, grads)), dtype=np.int64)
        self._impls: Integers = np.zeros(len(grads), dtype=np.int64)
        self._seen: Seen | None = None

    def take(self, steps: Sequence[DeviceStep]) -> bool:
        """See :meth:`Grads.take`."""
        impls, addresses = np.empty_like(self._impls), np.empty_like(self._addresses)
        if not self._c.see_grads(self._handles, self._descriptions, impls, addresses):
            return False
        # An implementation may be a new one where one that died has been: hence those that were seen must be alive.
        again, stayed = bool((impls == self._impls).all()), bool((addresses == self._addresses).all())
        self._impls = impls
        if stayed and again and self._seen is not None and self._seen.all_alive:
            return True
        grads = _grads_of(self._params)
        if not _readable(grads, addresses):
            return False
        # Gradients that come again are worth remembering.
        self._seen = Seen(grads) if again else None
        if not stayed:
            _move(steps, addresses, grads)
            self._addresses = addresses
        return True


class GradsByPython:
    """Asks each gradient from Python, where there is no Numba or the steps need the gradients themselves."""

    def __init__(self, params: Sequence[torch.Tensor], needs_grads: bool, zeroed: bool) -> None:
        self._params, self._needs_grads = params, needs_grads
        self._resolved = params if zeroed and any(map(torch.is_complex, params)) else ()
        grads = list(map(real, _grads_of(params)))
        self._addresses = list(map(address_of, grads))
        self._dtypes = [grad.dtype for grad in grads]
        self._strides = strides_unless_contiguous(grads)
        self._remembers = can_be_held() and not needs_grads
        self._identities: list[int] = []
        self._seen: Seen | None = None

    def take(self, steps: Sequence[DeviceStep]) -> bool:
        """See :meth:`Grads.take`."""
        resolve_grads(self._resolved)
        grads = _grads_of(self._params)
        if any(grad is None for grad in grads):
            return False
        if (
            self._seen is not None
            and self._seen.same(grads)
            and lie(grads, self._strides)
            and [grad.dtype for grad in grads] == self._dtypes
            and list(map(address_of, grads)) == self._addresses
        ):
            return True
        if not self._take_others(steps, list(map(real, grads)) if self._needs_grads else grads):
            return False
        # Gradients that come again are worth remembering.
        identities = list(map(id, grads))
        self._seen = Seen(grads) if identities == self._identities and self._remembers else None
        self._identities = identities
        return True

    def _take_others(self, steps: Sequence[DeviceStep], grads: list[torch.Tensor]) -> bool:
        """Takes gradients that may be others than those of the last step."""
        try:
            addresses = list(map(address_of, grads))
        except RuntimeError:  # sparse
            return False
        if [grad.dtype for grad in grads] != self._dtypes or not lie(grads, self._strides):
            return False
        if not _readable(grads, addresses):
            return False
        if addresses != self._addresses or self._needs_grads:
            _move(steps, addresses, grads)
            self._addresses = addresses
        return True


def _grads_of(params: Sequence[torch.Tensor]) -> list[Any]:
    return [param.grad for param in params]


def _readable(grads: Sequence[torch.Tensor], addresses: Sequence[int] | Integers) -> bool:
    """Whether no gradient is a view that negates, and none has lost its storage."""
    return not any(map(torch.Tensor.is_neg, grads)) and not any(
        grads[index].numel() for index in np.flatnonzero(np.equal(addresses, 0)).tolist()
    )


def _move(steps: Sequence[DeviceStep], addresses: Any, grads: Sequence[torch.Tensor]) -> None:
    for step in steps:
        step.move_grads(addresses, grads)
