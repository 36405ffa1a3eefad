"""IEEE 754 binary32. The assignment to memory rounds."""

from typing import Any

import numpy as np

from gpuopt.kernels.formats.format import Format


def load(stored: Any) -> Any:
    """The value as it is stored."""
    return stored


def store(value: Any) -> Any:
    """The value as it is."""
    return value


CUDA_FORM = """
struct fp32 {
    static __device__ inline float load(float stored) { return stored; }
    template <class T> static __device__ inline float store(T value) { return store(narrow(value)); }
    static __device__ inline float store(float value) { return value; }
};
"""

FORMAT = Format("fp32", "float32", np.dtype(np.float32), load, store, load, store, "float", CUDA_FORM)
