"""bfloat16: the upper half of a float32. NumPy has no such dtype, so memory is addressed as uint16."""

from typing import Any

import numpy as np

from gpuopt.kernels.formats.format import Format
from gpuopt.kernels.select import select


def load(stored: Any) -> Any:
    """The float32 whose upper half is ``stored``."""
    return np.uint32(np.uint32(stored) << np.uint32(16)).view(np.float32)


def store(value: Any) -> Any:
    """The upper half of ``value`` in float32, rounded to nearest even by adding just under half a unit."""
    value = np.float32(value)
    bits = value.view(np.uint32)
    half = np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))
    rounded = np.uint16((bits + half) >> np.uint32(16))
    return select(value != value, np.uint16(0x7FC0), rounded)


CUDA_FORM = """
struct bf16 {
    static __device__ inline float load(unsigned short stored) {
        const unsigned int bits = static_cast<unsigned int>(stored) << 16;
        float value;
        memcpy(&value, &bits, sizeof value);
        return value;
    }
    static __device__ inline unsigned short store(float value) {
#ifdef __CUDA_ARCH__
        unsigned short stored;
        asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(stored) : "f"(value));
        return stored;
#else
        if (value != value) return 0x7fc0;
        unsigned int bits;
        memcpy(&bits, &value, sizeof bits);
        return static_cast<unsigned short>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
#endif
    }
    template <class T> static __device__ inline unsigned short store(T value) { return store(narrow(value)); }
};
"""

FORMAT = Format("bf16", "bfloat16", np.dtype(np.uint16), load, store, load, store, "unsigned short", CUDA_FORM)
