r"""A float32 rounded to 24 bits, in two planes, of which the first is a bfloat16 that a model can compute with.

.. math::

    c = \text{round}(b / 2^8), \qquad \text{high} = \lfloor (c + 2^7) / 2^8 \rfloor, \qquad
    \text{low} = c - 2^8\, \text{high}

on the bits :math:`b` of the float32, rounded to nearest even. As for :mod:`~gpuopt.kernels.formats.split32`, the high
plane is the nearest bfloat16, of two as near the one away from zero, NaN becomes the quiet one of its sign, and what
others write to the high plane does not become NaN. What is within half a unit of 24 bits of infinity becomes that.
"""

from typing import TYPE_CHECKING, Any

import numpy as np

from gpuopt.kernels.formats.format import BFLOAT16, INT8, Format
from gpuopt.kernels.select import select

if TYPE_CHECKING:
    import triton.language as tl


def load(high: Any, low: Any) -> Any:
    """The float32 whose third byte is ``low``; of its upper half ``high`` is one too much where that is negative."""
    low = np.uint32(low)
    upper = np.uint32(np.uint32(high) - (low >> np.uint32(7)))
    bits = np.uint32(np.uint32(upper << np.uint32(16)) | np.uint32(low << np.uint32(8)))
    is_nan = np.uint32(bits & np.uint32(0x7FFFFFFF)) > np.uint32(0x7F800000)
    return np.uint32(select(is_nan, np.uint32(np.uint32(high) << np.uint32(16)), bits)).view(np.float32)


def store(value: Any, random: Any) -> Any:
    """The upper half and the third byte of ``value``, rounded to 24 bits."""
    value = np.float32(value)
    bits = value.view(np.uint32)
    is_nan = value != value
    quiet = np.uint32((bits & np.uint32(0x80000000)) | np.uint32(0x7FC00000))
    bits = select(is_nan, quiet, bits)
    half = np.uint32(0x7F) + ((bits >> np.uint32(8)) & np.uint32(1))
    rounded = np.uint32(np.uint32(bits + half) >> np.uint32(8))
    return np.uint16(np.uint32(rounded + np.uint32(0x80)) >> np.uint32(8)), np.uint8(rounded & np.uint32(0xFF))


CUDA_FORM = """
struct split24 {
    static __device__ inline float load(unsigned short high, unsigned char low) {
        const unsigned int byte = low;
        const unsigned int bits = ((static_cast<unsigned int>(high) - (byte >> 7)) << 16) | (byte << 8);
        const bool is_nan = (bits & 0x7fffffffu) > 0x7f800000u;
        return float_of(is_nan ? static_cast<unsigned int>(high) << 16 : bits);
    }
    template <class T>
    static __device__ inline void store(T value, unsigned int random, unsigned short& high, unsigned char& low) {
        unsigned int bits = bits_of(narrow(value));
        if ((bits & 0x7fffffffu) > 0x7f800000u) bits = (bits & 0x80000000u) | 0x7fc00000u;
        const unsigned int rounded = (bits + 0x7fu + ((bits >> 8) & 1u)) >> 8;
        high = static_cast<unsigned short>((rounded + 0x80u) >> 8);
        low = static_cast<unsigned char>(rounded);
    }
};
"""


def triton_load(high, low, compute):
    """As :func:`load`."""
    byte = low.to(tl.uint8, bitcast=True).to(tl.uint32)
    upper = high.to(tl.uint16, bitcast=True).to(tl.uint32)
    bits = ((upper - (byte >> 7)) << 16) | (byte << 8)
    bits = tl.where((bits & 0x7FFFFFFF) > 0x7F800000, upper << 16, bits)
    return bits.to(tl.float32, bitcast=True).to(compute)


def triton_store(value, random):
    """As :func:`store`."""
    value = value.to(tl.float32)
    bits = value.to(tl.uint32, bitcast=True)
    bits = tl.where(value != value, (bits & 0x80000000) | 0x7FC00000, bits)
    rounded = (bits + 0x7F + ((bits >> 8) & 1)) >> 8
    high = ((rounded + 0x80) >> 8).to(tl.uint16).to(tl.bfloat16, bitcast=True)
    return high, rounded.to(tl.uint8).to(tl.int8, bitcast=True)


FORMAT = Format("split24", (BFLOAT16, INT8), load, store, load, store, CUDA_FORM, triton_load, triton_store)
