"""IEEE 754 binary16. Compiled code addresses it as uint16, since Numba has no float16 on CPUs."""

from typing import TYPE_CHECKING, Any

import numpy as np

from gpuopt.kernels.formats.format import FLOAT16, Format
from gpuopt.kernels.select import select

if TYPE_CHECKING:
    import triton.language as tl


def load(stored: Any) -> Any:
    """``stored`` in float32, by NumPy's own conversion."""
    return stored.view(np.float16).astype(np.float32)


def store(value: Any, random: Any) -> Any:
    """``value`` by way of float32 in float16, by NumPy's own conversion."""
    return (np.float32(value).astype(np.float16).view(np.uint16),)


def compiled_load(stored: Any) -> Any:
    """As :func:`load`, in integer arithmetic."""
    magnitude = np.uint32(np.uint32(stored & np.uint16(0x7FFF)) << np.uint32(13))
    # Rebiasing by a product is exact and normalises subnormals.
    finite = np.float32(magnitude.view(np.float32) * np.float32(2.0**112)).view(np.uint32)
    special = np.uint32(magnitude | np.uint32(0x7F800000))
    bits = select(magnitude >= np.uint32(0x0F800000), special, finite)
    sign = np.uint32(np.uint32(stored & np.uint16(0x8000)) << np.uint32(16))
    return np.uint32(bits | sign).view(np.float32)


def compiled_store(value: Any, random: Any) -> Any:
    """As :func:`store`, in integer arithmetic."""
    bits = np.float32(value).view(np.uint32)
    sign = np.uint32((bits >> np.uint32(16)) & np.uint32(0x8000))
    magnitude = np.uint32(bits & np.uint32(0x7FFFFFFF))
    odd = np.uint32((magnitude >> np.uint32(13)) & np.uint32(1))
    # From 2**-14 on: rebias the exponent by -112, round at bit 13; what overflows becomes infinity.
    rebiased = np.uint32(magnitude - np.uint32(112 << 23) + np.uint32(0xFFF) + odd)
    normal = np.uint32(min(rebiased >> np.uint32(13), np.uint32(0x7C00)))
    # Below: one half has 2**-24, the unit of subnormals, as its last bit, so the sum rounds there.
    half = np.float32(0.5)
    shifted = np.float32(magnitude.view(np.float32) + half).view(np.uint32)
    subnormal = np.uint32(shifted - half.view(np.uint32))
    finite = select(magnitude >= np.uint32(0x38800000), normal, subnormal)
    return (np.uint16(select(magnitude > np.uint32(0x7F800000), np.uint32(0x7E00), finite) | sign),)


CUDA_FORM = """
struct fp16 {
    static __device__ inline float load(unsigned short stored) {
        float value;
#ifdef __CUDA_ARCH__
        asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(stored));
#else
        _Float16 half;
        memcpy(&half, &stored, sizeof half);
        value = half;
#endif
        return value;
    }
    template <class T>
    static __device__ inline void store(T value, unsigned int random, unsigned short& stored) {
#ifdef __CUDA_ARCH__
        asm("cvt.rn.f16.f32 %0, %1;" : "=h"(stored) : "f"(narrow(value)));
#else
        const _Float16 half = static_cast<_Float16>(narrow(value));
        memcpy(&stored, &half, sizeof stored);
#endif
    }
};
"""


def triton_load(stored, compute):
    """As :func:`load`."""
    return stored.to(compute)


def triton_store(value, random):
    """As :func:`store`."""
    return (value.to(tl.float32).to(tl.float16),)


FORMAT = Format("fp16", (FLOAT16,), load, store, compiled_load, compiled_store, CUDA_FORM, triton_load, triton_store)
