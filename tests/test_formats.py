"""A format's load is exact and its store rounds to nearest even, in NumPy, compiled by Numba and in C++.

The references are ml_dtypes' bfloat16 and NumPy's float16. Loads are compared for every stored value; stores for
every value halfway between two neighbours, both neighbours of each of these in float32, every exponent, and a
large sample of random float32 bits. NaN stays NaN; its payload is free. A float64 value rounds to float32 first.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ml_dtypes
import numba
import numpy as np
import pytest
from kit import host_cuda
from numba.extending import register_jitable

from gpuopt.kernels.drivers import numba as _  # noqa: F401 (it teaches Numba to compile select)
from gpuopt.kernels.formats import BY_DTYPE, FORMATS, Format
from gpuopt.verify.compare import different
from gpuopt.verify.drawing import Array, stored

REFERENCE = {"bf16": np.dtype(ml_dtypes.bfloat16), "fp16": np.dtype(np.float16)}
"""The narrow formats, and who knows them."""

EVERY = np.arange(1 << 16, dtype=np.uint16)


def numpy_load(format: Format, elements: Array) -> Array:
    return format.load(elements)


def numba_load(format: Format, elements: Array) -> Array:
    return compiled(format.compiled_load)(elements, np.empty(elements.size, np.float32))


def cuda_load(format: Format, elements: Array) -> Array:
    return host_cuda.convert(format, "load", elements, np.dtype(np.float32))


def numba_store(format: Format, values: Array) -> Array:
    return compiled(format.compiled_store)(values, np.empty(values.size, format.storage))


def cuda_store(format: Format, values: Array) -> Array:
    return host_cuda.convert(format, "store", values, format.storage)


def compiled(function: Callable[[Any], Any]) -> Callable[[Array, Array], Array]:
    """``function`` over an array, as the Numba driver compiles it."""
    scalar = register_jitable(function)

    @numba.njit(error_model="numpy")
    def loop(values, out):
        for i in range(values.size):
            out[i] = scalar(values[i])
        return out

    return loop


each_narrow = pytest.mark.parametrize("format", [FORMATS[name] for name in REFERENCE], ids=REFERENCE)
each_format = pytest.mark.parametrize("format", FORMATS.values(), ids=FORMATS)
each_load = pytest.mark.parametrize("load", [numpy_load, numba_load, cuda_load])
each_store = pytest.mark.parametrize("store", [stored, numba_store, cuda_store])


def midpoints(format: Format) -> Array:
    """Every float32 halfway between two neighbours of a narrow format, and past its largest value."""
    with np.errstate(invalid="ignore"):
        values = np.unique(EVERY.view(REFERENCE[format.name]).astype(np.float64))
    finite = values[np.isfinite(values)]
    halfway = (finite[1:] + finite[:-1]) / 2
    overflow = finite[-1] + (finite[-1] - finite[-2]) / 2
    with np.errstate(over="ignore"):
        return np.array([*halfway, overflow, -overflow], np.float32)


def sample(format: Format) -> Array:
    """float32 values that show every kind of rounding."""
    ties = midpoints(format)
    heads = np.arange(1 << 16, dtype=np.uint32) << 16
    tails = np.array([0, 1, 0x7FFF, 0x8000, 0x8001, 0xFFFF], np.uint32)
    drawn = np.random.default_rng(0).integers(0, 1 << 32, 1_000_000, np.uint32)
    bits = np.concatenate([(heads[:, None] | tails).ravel(), drawn])
    with np.errstate(over="ignore"):
        beside = [np.nextafter(ties, np.float32(side)) for side in (-np.inf, np.inf)]
    return np.concatenate([ties, *beside, bits.view(np.float32)])


def assert_same(format: Format, got: Array, expected: Array, given: Array) -> None:
    differ = different(format, got, expected)
    at = int(differ.argmax())
    assert not differ.any(), f"{given[at]!r}: got {got[at]:#x}, expected {expected[at]:#x}, and {differ.sum()} in all"


@each_narrow
@each_load
def test_every_load_is_exact(format: Format, load: Callable[..., Array]) -> None:
    with np.errstate(invalid="ignore"):
        expected = EVERY.view(REFERENCE[format.name]).astype(np.float32)
        got = load(format, EVERY)
    assert got.dtype == np.float32
    differ = different(FORMATS["fp32"], got, expected)
    assert not differ.any(), f"at {EVERY[differ][:8]}"


@each_narrow
@each_store
def test_a_store_rounds_to_nearest_even(format: Format, store: Callable[..., Array]) -> None:
    values = sample(format)
    with np.errstate(all="ignore"):
        expected = values.astype(REFERENCE[format.name]).view(np.uint16)
    assert_same(format, store(format, values), expected, values)


@each_narrow
@each_store
def test_a_store_from_float64_rounds_to_float32_first(format: Format, store: Callable[..., Array]) -> None:
    # Just past a tie: rounded at once these go up, by way of float32 they become the tie, which goes to even.
    past = midpoints(format).astype(np.float64) * (1 + 2.0**-40)
    values = np.concatenate([past, np.random.default_rng(1).integers(0, 1 << 64, 100_000, np.uint64).view(np.float64)])
    with np.errstate(all="ignore"):
        expected = values.astype(np.float32).astype(REFERENCE[format.name]).view(np.uint16)
        at_once = values.astype(REFERENCE[format.name]).view(np.uint16)
    assert_same(format, store(format, values), expected, values)
    if format.name == "fp16":  # ml_dtypes itself goes by way of float32
        assert different(format, expected, at_once).sum() > 10_000


@each_format
@each_store
def test_a_store_undoes_a_load(format: Format, store: Callable[..., Array]) -> None:
    elements = np.frombuffer(np.random.default_rng(2).bytes(10_000 * format.itemsize), format.storage)
    with np.errstate(invalid="ignore"):
        assert_same(format, store(format, format.load(elements)), elements, elements)


@each_store
def test_fp32_rounds_float64_to_nearest_even(store: Callable[..., Array]) -> None:
    format = FORMATS["fp32"]
    near = np.random.default_rng(3).standard_normal(100_000)
    whole = np.random.default_rng(4).integers(0, 1 << 64, 100_000, np.uint64).view(np.float64)
    values = np.concatenate([near, whole, [1 + 2.0**-24, 1 + 3 * 2.0**-24, 2.0**-150, 3 * 2.0**-150]])
    with np.errstate(all="ignore"):
        expected = values.astype(np.float32)
    assert expected[-4:].tolist() == [1.0, 1 + 2.0**-22, 0.0, 2.0**-148]
    differ = different(format, store(format, values), expected)
    assert not differ.any(), f"at {values[differ][:8]}"


def test_the_registry_is_consistent() -> None:
    for name, format in FORMATS.items():
        assert format.name == name
        assert BY_DTYPE[format.dtype] is format
        assert format.itemsize == format.storage.itemsize
        if name in REFERENCE:
            assert REFERENCE[name].name == format.dtype
