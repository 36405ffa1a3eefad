"""Whether the drivers on the real GPU give the bits of the NumPy driver, for every rule, option and format."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from gpuopt import arrays, backends
from gpuopt.kernels.drivers import DRIVERS
from gpuopt.kernels.formats import FORMATS, Format
from gpuopt.kernels.prologue import Prologue
from gpuopt.kernels.rules import RULES, Rule

Array = np.ndarray[Any, Any]

MANY = (1, 7, 127, 1024, 4096 + 5, 70_001)
"""Elements of tensors that are stepped in one launch."""

ONE = (5_003,)
"""Elements of a tensor that is stepped alone, which the CuPy driver does by its plain form."""

STEPS = 2


def compare(on_gpu: bool = True) -> Iterator[dict[str, Any]]:
    """One comparison after the other: what was compared, and how many elements differ.

    Args:
        on_gpu: Whether the GPU's drivers are compared; else those of host memory, by which this code is tested.
    """
    drivers = [
        name
        for name, why in backends.available().items()
        if why is None and (DRIVERS[name].device == "cuda") == on_gpu and name != "numpy"
    ]
    for rule in RULES.values():
        for slots in rule.option_sets():
            for format in FORMATS.values():
                for driver in drivers:
                    for sizes in (MANY, ONE):
                        yield {
                            "driver": driver,
                            "rule": rule.name,
                            "slots": list(slots),
                            "format": format.name,
                            "tensors": len(sizes),
                            "elements": STEPS * sum(sizes) * (1 + len(slots)),
                            "different": different(rule, slots, format, driver, sizes),
                        }


def different(rule: Rule, slots: tuple[str, ...], format: Format, driver: str, sizes: tuple[int, ...]) -> int:
    """Number of stored elements that are neither the same bits nor both NaN, over all slots and steps."""
    rng = np.random.default_rng(0)
    dtype = _dtype(format)
    host = [[_drawn(rng, size, dtype, slot) for size in sizes] for slot in ("param", *slots)]
    there = [[_moved(array, driver) for array in column] for column in host]
    count = 0
    for step in range(STEPS):
        grads = [_drawn(rng, size, dtype, "grad") for size in sizes]
        hyper = [0.3 + 0.07 * index + 0.01 * step for index in range(len(rule.hyper_fields))]
        prologue = Prologue(0.7, 0.03, 0.02)
        state = dict(zip(slots, host[1:], strict=True))
        arrays.step(rule.name, host[0], grads, state, hyper, prologue=prologue, backend="numpy")
        state = dict(zip(slots, there[1:], strict=True))
        moved = [_moved(array, driver) for array in grads]
        arrays.step(rule.name, there[0], moved, state, hyper, prologue=prologue, backend=driver)
        for wanted_column, got_column in zip(host, there, strict=True):
            for wanted, got in zip(wanted_column, got_column, strict=True):
                count += _count(_back(got), wanted)
    return count


def _dtype(format: Format) -> np.dtype[Any]:
    if format.dtype == "bfloat16":
        import ml_dtypes

        bfloat16: np.dtype[Any] = np.dtype(ml_dtypes.bfloat16)
        return bfloat16
    return np.dtype(format.dtype)


def _drawn(rng: np.random.Generator, size: int, dtype: np.dtype[Any], slot: str) -> Array:
    """One half of ordinary values, one of any bits at all: subnormals, infinities and NaN among them."""
    ordinary = rng.standard_normal(size)
    if slot not in ("param", "grad"):
        ordinary = np.abs(ordinary) * 0.01
    any_bits = np.frombuffer(rng.bytes(size * dtype.itemsize), dtype)
    with np.errstate(all="ignore"):
        drawn: Array = np.where(rng.random(size) < 0.5, ordinary.astype(dtype), any_bits).astype(dtype)
    return drawn


def _count(got: Array, wanted: Array) -> int:
    unsigned = f"u{wanted.dtype.itemsize}"
    with np.errstate(all="ignore"):
        both_nan = np.isnan(got) & np.isnan(wanted)
    return int(((got.view(unsigned) != wanted.view(unsigned)) & ~both_nan).sum())


def _moved(array: Array, driver: str) -> Any:
    if DRIVERS[driver].device == "cpu":
        return array.copy()
    import cupy

    return cupy.asarray(array)


def _back(array: Any) -> Array:
    if isinstance(array, np.ndarray):
        return array
    back: Array = array.get()
    return back
