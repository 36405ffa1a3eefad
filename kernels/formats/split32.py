r"""A float32 in two planes, of which the first is a bfloat16 that a model can compute with.

.. math:: \text{high} = \lfloor (b + 2^{15}) / 2^{16} \rfloor, \qquad \text{low} = b - 2^{16}\, \text{high}

on the bits :math:`b` of the float32. The high plane is the nearest bfloat16, of two as near the one away from zero:
with ties to even no int16 would tell all float32 that are rounded to one bfloat16 from each other. NaN becomes the
quiet one of its sign, with nothing in the low plane. Where somebody has written to the high plane alone, so that both
together would be NaN and it is not, it is what is loaded.

Source: the idea of a remainder beside a bfloat16 is that of Zamirai et al., "Revisiting BFloat16 Training" (2020), and
of Transformer Engine's FusedAdam.
"""

from typing import TYPE_CHECKING, Any

import numpy as np

from gpuopt.kernels.formats.format import BFLOAT16, INT16, Format
from gpuopt.kernels.select import select

if TYPE_CHECKING:
    import triton.language as tl


def load(high: Any, low: Any) -> Any:
    """The float32 whose lower half is ``low``; of its upper half ``high`` is one too much where that is negative."""
    low = np.uint32(low)
    upper = np.uint32(np.uint32(high) - (low >> np.uint32(15)))
    bits = np.uint32(np.uint32(upper << np.uint32(16)) | low)
    is_nan = np.uint32(bits & np.uint32(0x7FFFFFFF)) > np.uint32(0x7F800000)
    return np.uint32(select(is_nan, np.uint32(np.uint32(high) << np.uint32(16)), bits)).view(np.float32)


def store(value: Any, random: Any) -> Any:
    """Both halves of ``value`` in float32."""
    value = np.float32(value)
    bits = value.view(np.uint32)
    is_nan = value != value
    quiet = np.uint32((bits & np.uint32(0x80000000)) | np.uint32(0x7FC00000))
    bits = select(is_nan, quiet, bits)
    high = np.uint16(np.uint32(bits + np.uint32(0x8000)) >> np.uint32(16))
    return high, np.uint16(bits & np.uint32(0xFFFF))


CUDA_FORM = """
struct split32 {
    static __device__ inline float load(unsigned short high, unsigned short low) {
        const unsigned int bits = ((static_cast<unsigned int>(high) - (low >> 15)) << 16) | low;
        const bool is_nan = (bits & 0x7fffffffu) > 0x7f800000u;
        return float_of(is_nan ? static_cast<unsigned int>(high) << 16 : bits);
    }
    template <class T>
    static __device__ inline void store(T value, unsigned int random, unsigned short& high, unsigned short& low) {
        unsigned int bits = bits_of(narrow(value));
        if ((bits & 0x7fffffffu) > 0x7f800000u) bits = (bits & 0x80000000u) | 0x7fc00000u;
        high = static_cast<unsigned short>((bits + 0x8000u) >> 16);
        low = static_cast<unsigned short>(bits);
    }
};
"""


def triton_load(high, low, compute):
    """As :func:`load`."""
    lower = low.to(tl.uint16, bitcast=True).to(tl.uint32)
    upper = high.to(tl.uint16, bitcast=True).to(tl.uint32)
    bits = ((upper - (lower >> 15)) << 16) | lower
    bits = tl.where((bits & 0x7FFFFFFF) > 0x7F800000, upper << 16, bits)
    return bits.to(tl.float32, bitcast=True).to(compute)


def triton_store(value, random):
    """As :func:`store`."""
    value = value.to(tl.float32)
    bits = value.to(tl.uint32, bitcast=True)
    bits = tl.where(value != value, (bits & 0x80000000) | 0x7FC00000, bits)
    high = ((bits + 0x8000) >> 16).to(tl.uint16).to(tl.bfloat16, bitcast=True)
    return high, bits.to(tl.uint16).to(tl.int16, bitcast=True)


FORMAT = Format("split32", (BFLOAT16, INT16), load, store, load, store, CUDA_FORM, triton_load, triton_store)
