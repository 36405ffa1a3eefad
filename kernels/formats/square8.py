r"""Means of squares in 8 bits, in blocks: a float of 5 bits of exponent and 3 of mantissa, rounded stochastically.

.. math::

    q = \min(\max(\lfloor (\text{bits}(x f) + r) / 2^{20} \rfloor - 761, 1), 255), \qquad
    x \approx \text{float}(2^{20} (q + 761))\, s

with 20 random bits :math:`r`, and scale :math:`s` and factor :math:`f` of :mod:`gpuopt.kernels.blocks`; 0 for zero
alone. So what is above :math:`2.9 \cdot 10^{-10} s` is stored to an eighth or less of it, and the mean of that is the
value: rounded to nearest, a slow average would stand still. Anything smaller is stored as that, since a divisor that
came back as zero would make steps explode; only where the scale is below :math:`10^{-35}`, float32 has no smaller
values to give. The largest value of a block comes back exactly. Signs are dropped.
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
    code = np.uint32(code)
    bits = np.uint32((code + np.uint32(761)) << np.uint32(20))
    share = np.uint32(select(code == np.uint32(0), np.uint32(0), bits)).view(np.float32)
    return np.float32(share * scale)


def store(value: Any, random: Any, factor: Any) -> Any:
    """The code of ``value`` in float32, rounded by ``random``, uint32."""
    bits = np.uint32(np.float32(value).view(np.uint32) & np.uint32(0x7FFFFFFF))
    share = np.float32(bits.view(np.float32) * factor)
    rounded = np.uint32(np.uint32(share.view(np.uint32) + (random >> np.uint32(12))) >> np.uint32(20))
    code = select(rounded < np.uint32(762), np.uint32(1), np.uint32(rounded - np.uint32(761)))
    code = select(rounded > np.uint32(761 + 255), np.uint32(255), code)
    return (np.uint8(select(bits == np.uint32(0), np.uint32(0), code)),)


CUDA_FORM = """
struct square8 {
    static __device__ inline float load(unsigned char code, float scale) {
        const ieee_float share = float_of(code == 0 ? 0u : (code + 761u) << 20);
        return narrow(share * ieee_float(scale));
    }
    template <class T>
    static __device__ inline void store(T value, unsigned int random, ieee_float factor, unsigned char& code) {
        const unsigned int bits = bits_of(narrow(value)) & 0x7fffffffu;
        const unsigned int share = bits_of(narrow(ieee_float(float_of(bits)) * factor));
        unsigned int rounded = (share + (random >> 12)) >> 20;
        rounded = rounded < 762u ? 762u : rounded > 1016u ? 1016u : rounded;
        code = static_cast<unsigned char>(bits == 0u ? 0u : rounded - 761u);
    }
};
"""


def triton_load(code, scale, compute):
    """As :func:`load`."""
    code = code.to(tl.uint32)
    share = tl.where(code == 0, 0, (code + 761) << 20).to(tl.uint32).to(tl.float32, bitcast=True)
    return (share * scale).to(compute)


def triton_store(value, random, factor):
    """As :func:`store`."""
    bits = value.to(tl.float32).to(tl.uint32, bitcast=True) & 0x7FFFFFFF
    share = (bits.to(tl.float32, bitcast=True) * factor).to(tl.uint32, bitcast=True)
    rounded = tl.minimum(tl.maximum((share + (random >> 12)) >> 20, 762), 1016)
    return (tl.where(bits == 0, 0, rounded - 761).to(tl.uint8),)


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
