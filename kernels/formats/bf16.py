"""bfloat16: the upper half of a float32. NumPy has no such dtype, so memory is addressed as uint16."""

from typing import TYPE_CHECKING, Any

import numpy as np

from gpuopt.kernels.formats.format import BFLOAT16, Format
from gpuopt.kernels.select import select

if TYPE_CHECKING:
    import triton.language as tl

    from gpuopt.kernels.drivers.triton_launch import INTERPRETED


def load(stored: Any) -> Any:
    """The float32 whose upper half is ``stored``."""
    return np.uint32(np.uint32(stored) << np.uint32(16)).view(np.float32)


def store(value: Any, random: Any) -> Any:
    """The upper half of ``value`` in float32, rounded to nearest even by adding just under half a unit."""
    value = np.float32(value)
    bits = value.view(np.uint32)
    half = np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))
    rounded = np.uint16((bits + half) >> np.uint32(16))
    return (select(value != value, np.uint16(0x7FC0), rounded),)


CUDA_FORM = """
struct bf16 {
    static __device__ inline float load(unsigned short stored) {
        return float_of(static_cast<unsigned int>(stored) << 16);
    }
    template <class T>
    static __device__ inline void store(T value, unsigned int random, unsigned short& stored) {
#ifdef __CUDA_ARCH__
        asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(stored) : "f"(narrow(value)));
#else
        const unsigned int bits = bits_of(narrow(value));
        const bool is_nan = (bits & 0x7fffffffu) > 0x7f800000u;
        stored = is_nan ? 0x7fc0 : static_cast<unsigned short>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
#endif
    }
};
"""


def triton_load(stored, compute):
    """As :func:`load`."""
    if INTERPRETED:
        bits = stored.to(tl.uint16, bitcast=True).to(tl.uint32) << 16
        return bits.to(tl.float32, bitcast=True).to(compute)
    else:
        return stored.to(compute)


def triton_store(value, random):
    """As :func:`store`."""
    value = value.to(tl.float32)
    if INTERPRETED:
        # The interpreter's own conversion neither rounds ties to even nor keeps every NaN.
        bits = value.to(tl.uint32, bitcast=True)
        rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
        half = tl.where(value != value, 0x7FC0, rounded)
        return (half.to(tl.uint16).to(tl.bfloat16, bitcast=True),)
    else:
        return (value.to(tl.bfloat16),)


FORMAT = Format("bf16", (BFLOAT16,), load, store, load, store, CUDA_FORM, triton_load, triton_store)
