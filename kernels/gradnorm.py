r"""The global norm of the gradients, and the factor that clips it.

.. math:: n = \frac{1}{L} \sqrt{\sum g^2}, \qquad k = \min\left(1, \frac{n_{max}}{n + 10^{-6}}\right)

with loss scale :math:`L`. Squares are added in float64, where those of a float32 are exact and cannot overflow, in an
order that each driver fixes: drivers agree to some units in the last place of float64. An infinite or undefined
gradient makes the norm so too, which is how one pass gives norm and finiteness together.

Where the norm takes several sums, as those of shards and of what each process has a copy of, every gradient has a part,
the index :math:`k` of the sum in which it counts, or -1 if it counts in none:

.. math:: s_k = \sum (w_k g)^2, \qquad w_k = 1 \text{ for gradients of part } k, \text{ else } 0

All gradients are read for each sum, since 0 times an infinite or undefined one is undefined: it makes every sum so, and
all processes learn of it from whichever they have.

Source: Pascanu, Mikolov & Bengio, "On the difficulty of training recurrent neural networks" (ICML 2013),
algorithm 1; epsilon as in ``torch.nn.utils.clip_grad_norm_``.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import triton.language as tl

    from gpuopt.kernels.triton_math import sqrt_rn

EPSILON = 1e-6


def norm_of(partials: Iterable[np.ndarray[Any, Any]], loss_scale: float = 1.0) -> float:
    """The norm, from sums of squares."""
    with np.errstate(all="ignore"):
        total = sum((partial.sum() for partial in partials), start=np.float64(0))
        return float(np.sqrt(total) / np.float64(loss_scale))


def clip_factor(norm: float, max_norm: float) -> float:
    """The factor for gradients of norm ``norm``; undefined where that is."""
    factor = max_norm / (norm + EPSILON)
    return 1.0 if factor >= 1 else factor


def triton_form(total, loss_scale, max_norm, epsilon):
    """``(norm, clip_factor)`` from the sum of all squares, on Triton tensors of float64."""
    norm = sqrt_rn(total) / loss_scale
    factor = max_norm / (norm + epsilon)
    return norm, tl.where(factor >= 1, 1.0, factor)
