r"""What earlier work on the same device leaves for a step, which the host never sees.

.. math:: c \leftarrow c\, k / L

The gradient scale :math:`c` of every hyper row takes the clipping factor :math:`k` and the loss scale :math:`L`, in
the compute dtype and in this order. Where an infinity was found, the step changes nothing, except that gradients that
are to be zeroed still are: the infinity would otherwise stay in them.
"""

from __future__ import annotations

import ctypes
from typing import Any, NamedTuple

import numpy as np


class Signals(NamedTuple):
    """Addresses, in the memory of the driver, of scalars that govern a step; 0 for one that is not given.

    Attributes:
        loss_scale: float32. Gradients are divided by it.
        clip_factor: Of the compute dtype. Gradients are multiplied by it.
        found_inf: float32. Unless it is 0, nothing is written but zeros to gradients that are to be zeroed.
    """

    loss_scale: int = 0
    clip_factor: int = 0
    found_inf: int = 0

    def skip(self) -> bool:
        """Whether a step in host memory must leave all but gradients alone."""
        return bool(self.found_inf) and _scalar(self.found_inf, np.float32) != 0

    def scaled(self, hyper: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """Hyper rows, of which the gradient scale is the first field, as a step in host memory takes them."""
        if not self.loss_scale and not self.clip_factor:
            return hyper
        hyper = hyper.copy()
        with np.errstate(all="ignore"):
            if self.clip_factor:
                hyper[:, 0] *= _scalar(self.clip_factor, hyper.dtype.type)
            if self.loss_scale:
                hyper[:, 0] /= hyper.dtype.type(_scalar(self.loss_scale, np.float32))
        return hyper


NO_SIGNALS = Signals()

_C_TYPES = {np.float32: ctypes.c_float, np.float64: ctypes.c_double}


def _scalar(address: int, dtype: Any) -> Any:
    return dtype(_C_TYPES[dtype].from_address(address).value)
