"""Division, square root and power that round to nearest, for the Triton forms of rules.

Triton's own ``/`` and ``tl.sqrt`` are approximate on float32 and exact on float64; its ``tl.div_rn`` and
``tl.sqrt_rn`` know float32 alone. The Triton driver binds ``tl`` and these names in a rule's module.
"""

import triton
import triton.language as tl

from gpuopt.kernels.power import BITS

_BITS = tl.constexpr(BITS)


@triton.jit
def div_rn(a, b):
    """``a / b``, rounded to nearest."""
    if a.dtype == tl.float64:
        return a / b
    else:
        return tl.div_rn(a, b)


@triton.jit
def sqrt_rn(a):
    """Square root of ``a``, rounded to nearest."""
    if a.dtype == tl.float64:
        return tl.sqrt(a)
    else:
        return tl.sqrt_rn(a)


@triton.jit
def power_rn(base, exponent):
    """``base`` to the whole power ``exponent``, both float64, as :func:`gpuopt.kernels.power.power`."""
    left = exponent.to(tl.int32)
    result = tl.full(base.shape, 1.0, tl.float64)
    for _ in tl.static_range(_BITS):
        result = tl.where(left & 1 != 0, result * base, result)
        base = base * base
        left = left >> 1
    return result
