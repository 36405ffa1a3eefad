r"""bfloat16, rounded stochastically: up with a probability of how far a value lies above the lower neighbour.

.. math:: \text{magnitude} \leftarrow \lfloor (\text{magnitude} + r) / 2^{16} \rfloor

with 16 random bits :math:`r`, on the bits of the magnitude in float32. So the mean of what is stored is the value, and
updates that are smaller than half a unit add up. A finite value never becomes infinite: beyond the largest finite one
it is that.

Source: Gupta et al., "Deep Learning with Limited Numerical Precision" (ICML 2015), section 3.
"""

from typing import TYPE_CHECKING, Any

import numpy as np

from gpuopt.kernels.formats import bf16
from gpuopt.kernels.formats.format import BFLOAT16, Format
from gpuopt.kernels.select import select

if TYPE_CHECKING:
    import triton.language as tl


def store(value: Any, random: Any) -> Any:
    """The upper half of ``value`` in float32, rounded by ``random``, uint32 below 2^16."""
    bits = np.float32(value).view(np.uint32)
    magnitude = np.uint32(bits & np.uint32(0x7FFFFFFF))
    rounded = np.uint32((magnitude + random) >> np.uint32(16))
    # Above this, infinity and NaN alone; of the latter, all bits of the upper half might be zero.
    largest = np.uint32(0x7F7FFFFF)
    finite = select(rounded > np.uint32(0x7F7F), np.uint32(0x7F7F), rounded)
    special = select(magnitude > np.uint32(0x7F800000), np.uint32(0x7FC0), np.uint32(0x7F80))
    half = select(magnitude > largest, special, finite)
    return (np.uint16(half | ((bits >> np.uint32(16)) & np.uint32(0x8000))),)


CUDA_FORM = """
struct stochastic_bf16 {
    static __device__ inline float load(unsigned short stored) {
        return float_of(static_cast<unsigned int>(stored) << 16);
    }
    template <class T>
    static __device__ inline void store(T value, unsigned int random, unsigned short& stored) {
        const unsigned int bits = bits_of(narrow(value)), magnitude = bits & 0x7fffffffu;
        // What is finite stays below 0x7f800000, which infinity stays.
        const unsigned int most = magnitude > 0x7f7fffffu ? magnitude : 0x7f7fffffu;
        unsigned int rounded = magnitude + random;
        rounded = rounded > most ? most : rounded;
        if (magnitude > 0x7f800000u) rounded = 0x7fc00000u;
        stored = static_cast<unsigned short>((rounded | (bits & 0x80000000u)) >> 16);
    }
};
"""


def triton_store(value, random):
    """As :func:`store`."""
    bits = value.to(tl.float32).to(tl.uint32, bitcast=True)
    magnitude = bits & 0x7FFFFFFF
    # What is finite stays below 0x7F800000, which infinity stays.
    rounded = tl.minimum(magnitude + random, tl.maximum(magnitude, 0x7F7FFFFF))
    rounded = tl.where(magnitude > 0x7F800000, 0x7FC00000, rounded)
    return (((rounded | (bits & 0x80000000)) >> 16).to(tl.uint16).to(tl.bfloat16, bitcast=True),)


FORMAT = Format(
    "stochastic_bf16",
    (BFLOAT16,),
    bf16.load,
    store,
    bf16.load,
    store,
    CUDA_FORM,
    bf16.triton_load,
    triton_store,
    is_random=True,
)
