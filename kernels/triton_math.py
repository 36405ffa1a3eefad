"""Division, square root and power that round to nearest, for the Triton forms of rules; and random bits.

Triton's own ``/`` and ``tl.sqrt`` are approximate on float32 and exact on float64; its ``tl.div_rn`` and
``tl.sqrt_rn`` know float32 alone. The Triton driver binds ``tl`` and their names in a rule's module.
"""

import triton
import triton.language as tl

from gpuopt.kernels.power import BITS
from gpuopt.kernels.random import PHI

_BITS = tl.constexpr(BITS)
_PHI = tl.constexpr(PHI)


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


@triton.jit
def mix(x):
    """As :func:`gpuopt.kernels.random.mix`."""
    x = x ^ (x >> 16)
    x = x * 0x7FEB352D
    x = x ^ (x >> 15)
    x = x * 0x846CA68B
    return x ^ (x >> 16)


@triton.jit
def slot_key(key_low, key_high, SLOT: tl.constexpr):
    """As :func:`gpuopt.kernels.random.slot_key`, the halves in a compute dtype."""
    return mix((key_low.to(tl.uint32) | (key_high.to(tl.uint32) << 16)) ^ (SLOT // 2))


@triton.jit
def random_bits(index, key, SLOT: tl.constexpr):
    """As what :func:`gpuopt.kernels.random.random_bits` gives, of indices in int64."""
    hashed = mix(index.to(tl.uint32) ^ (key + (index >> 32).to(tl.uint32) * _PHI))
    if SLOT % 2 == 1:
        return hashed & 0xFFFF
    else:
        return hashed >> 16


@triton.jit
def step_key(step, seed):
    """Both halves of the key of a step, as :func:`gpuopt.kernels.random.key_at`, from and to float64."""
    key = mix((step.to(tl.int64) * _PHI + seed.to(tl.int64)).to(tl.uint32))
    return (key & 0xFFFF).to(tl.float64), (key >> 16).to(tl.float64)
