"""IEEE 754 binary64."""

from typing import Any

from gpuopt.kernels.formats.format import FLOAT64, Format


def load(stored: Any) -> Any:
    """The value as it is stored."""
    return stored


def store(value: Any, random: Any) -> Any:
    """The value as it is."""
    return (value,)


CUDA_FORM = """
struct fp64 {
    static __device__ inline double load(double stored) { return stored; }
    static __device__ inline void store(double value, unsigned int random, double& stored) { stored = value; }
};
"""


def triton_load(stored, compute):
    """The value as it is stored."""
    return stored


def triton_store(value, random):
    """The value as it is."""
    return (value,)


FORMAT = Format("fp64", (FLOAT64,), load, store, load, store, CUDA_FORM, triton_load, triton_store)
