"""Where tensors are and how they lie, and whether that is still so: asked of thousands of them in every step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from weakref import finalize

import numpy as np
import torch

from gpuopt.optim.c_interface import c_interface

address_of = torch.Tensor.data_ptr

_numel = torch.Tensor.numel
_strides = torch.Tensor.stride
_is_contiguous = torch.Tensor.is_contiguous


class Layouts:
    """Where parameters and their state are, and how the parameters lie, as it is when this is made.

    The tensors live as long as this does.

    Attributes:
        c: What they are asked through; None where Python asks them.
        handles: Of the parameters, then of their state, for ``c``.
    """

    def __init__(self, params: Sequence[torch.Tensor], state: Sequence[torch.Tensor]) -> None:
        self._params, self._tensors = params, [*params, *state]
        self._addresses = list(map(address_of, self._tensors))
        self.c = c_interface() if can_be_held() else None
        if self.c is None:
            self._numels = list(map(_numel, params))
            self._strides = strides_unless_contiguous(params)
            return
        self.handles = self.c.hold(self._tensors)
        finalize(self, self.c.release, self.handles)
        self._descriptions = self.c.describe(params)
        self._expected = np.array(self._addresses, dtype=np.int64)
        self._now = np.zeros_like(self._expected)

    def same(self) -> bool:
        """Whether every tensor is where it was, and every parameter lies as it did."""
        if self.c is not None:
            return self.c.see(self.handles, self._descriptions, self._now) and bool((self._now == self._expected).all())
        return (
            list(map(address_of, self._tensors)) == self._addresses
            and list(map(_numel, self._params)) == self._numels
            and lie(self._params, self._strides)
        )


def strides_unless_contiguous(tensors: Sequence[torch.Tensor]) -> list[Any] | None:
    """Strides of each tensor; None where all are contiguous."""
    return None if all(map(_is_contiguous, tensors)) else list(map(_strides, tensors))


def lie(tensors: Sequence[torch.Tensor], strides: list[Any] | None) -> bool:
    """Whether tensors have ``strides``, or are contiguous if that is None, which takes less time to find out."""
    return all(map(_is_contiguous, tensors)) if strides is None else list(map(_strides, tensors)) == strides


def can_be_held() -> bool:
    """Whether handles and weak references may be kept: PyTorch refuses to swap a tensor that has one."""
    return not torch.__future__.get_swap_module_params_on_conversion()
