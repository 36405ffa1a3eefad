r"""Means of squares in 8 bits, in blocks: a float of 5 bits of exponent and 3 of mantissa, rounded stochastically.

.. math::

    q = \lfloor (\max(\text{bits}(x f), 2^{20} \cdot 761) + 2^4 r) / 2^{20} \rfloor - 761, \qquad
    x \approx \text{float}(2^{20} (q + 761))\, s

with 16 random bits :math:`r`, and scale :math:`s` and factor :math:`f` of :mod:`gpuopt.kernels.blocks`. So what is
above :math:`2.6 \cdot 10^{-10} s` is stored to an eighth or less of it, and the mean of that is the value: rounded to
nearest, a slow average would stand still. Anything smaller is stored as that, zero too unless all of the block is,
since a divisor that came back as zero would make steps explode. The largest value of a block comes back exactly: as
:math:`x f` exceeds 1 by less than 16 units, it has no other code. Signs are dropped.
"""

from typing import TYPE_CHECKING, Any

import numpy as np

from gpuopt.kernels.formats.format import CODES, SCALES, Format
from gpuopt.kernels.select import select

if TYPE_CHECKING:
    import triton.language as tl

TOP = 1.0000002384185791
"""Above 1 by 2^-22, so that no rounding makes a smaller code of the largest value."""


def load(code: Any, scale: Any) -> Any:
    """The value of a code."""
    bits = np.uint32(np.uint32(np.uint32(code) << np.uint32(20)) + np.uint32(761 << 20))
    return np.float32(bits.view(np.float32) * scale)


def store(value: Any, random: Any, factor: Any) -> Any:
    """The code of ``value`` in float32, rounded by ``random``, uint32 below 2^16."""
    bits = np.uint32(np.float32(value).view(np.uint32) & np.uint32(0x7FFFFFFF))
    share = np.float32(bits.view(np.float32) * factor).view(np.uint32)
    share = np.uint32(select(share < np.uint32(761 << 20), np.uint32(761 << 20), share))
    rounded = np.uint32(share + np.uint32(random << np.uint32(4)) - np.uint32(761 << 20))
    return (np.uint8(rounded >> np.uint32(20)),)


CUDA_FORM = """
struct square8 {
    static __device__ inline float load(unsigned char code, float scale) {
        const ieee_float share = float_of((static_cast<unsigned int>(code) << 20) + (761u << 20));
        return narrow(share * ieee_float(scale));
    }
    template <class T>
    static __device__ inline void store(T value, unsigned int random, ieee_float factor, unsigned char& code) {
        const ieee_float magnitude = float_of(bits_of(narrow(value)) & 0x7fffffffu);
        const unsigned int share = bits_of(narrow(magnitude * factor)), least = 761u << 20;
        code = static_cast<unsigned char>(((share < least ? least : share) + (random << 4) - least) >> 20);
    }
};
"""


def triton_load(code, scale, compute):
    """As :func:`load`."""
    share = ((code.to(tl.uint32) << 20) + 0x2F900000).to(tl.float32, bitcast=True)
    return (share * scale).to(compute)


def triton_store(value, random, factor):
    """As :func:`store`."""
    bits = value.to(tl.float32).to(tl.uint32, bitcast=True) & 0x7FFFFFFF
    share = (bits.to(tl.float32, bitcast=True) * factor).to(tl.uint32, bitcast=True)
    rounded = tl.maximum(share, 0x2F900000) + (random << 4) - 0x2F900000
    return ((rounded >> 20).to(tl.uint8),)


FORMAT = Format(
    "square8",
    (CODES, SCALES),
    load,
    store,
    load,
    store,
    CUDA_FORM,
    triton_load,
    triton_store,
    is_random=True,
    top=TOP,
)
