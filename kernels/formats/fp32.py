"""IEEE 754 binary32. The assignment to memory rounds."""

from typing import TYPE_CHECKING, Any

from gpuopt.kernels.formats.format import FLOAT32, Format

if TYPE_CHECKING:
    import triton.language as tl


def load(stored: Any) -> Any:
    """The value as it is stored."""
    return stored


def store(value: Any, random: Any) -> Any:
    """The value as it is."""
    return (value,)


CUDA_FORM = """
struct fp32 {
    static __device__ inline float load(float stored) { return stored; }
    template <class T>
    static __device__ inline void store(T value, unsigned int random, float& stored) { stored = narrow(value); }
};
"""


def triton_load(stored, compute):
    """The value, wide enough to compute with."""
    return stored.to(compute)


def triton_store(value, random):
    """The value in float32."""
    return (value.to(tl.float32),)


FORMAT = Format("fp32", (FLOAT32,), load, store, load, store, CUDA_FORM, triton_load, triton_store)
