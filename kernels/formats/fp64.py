"""IEEE 754 binary64."""

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
struct fp64 {
    static __device__ inline double load(double stored) { return stored; }
    static __device__ inline double store(double value) { return value; }
};
"""

FORMAT = Format("fp64", "float64", np.dtype(np.float64), load, store, load, store, "double", CUDA_FORM)
