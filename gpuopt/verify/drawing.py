"""Random bits over the whole range of a format, and values as they come in training."""

from __future__ import annotations

from typing import Any

import numpy as np

from gpuopt.kernels import blocks
from gpuopt.kernels.formats import BY_DTYPE, Format, Plane
from gpuopt.kernels.formats.format import FLOAT32

Array = np.ndarray[Any, Any]


def bits(stored: Array) -> Array:
    """Stored elements as unsigned integers of the same size."""
    return stored.view(f"u{stored.itemsize}")


def stored(format: Format, values: Array) -> Array:
    """``values`` as the oracle stores them in a format of one plane."""
    (entries,) = stored_planes(format, values)
    return entries


def stored_planes(format: Format, values: Array) -> list[Array]:
    """``values`` as the oracle stores them, an array for each plane; a random format is given no random bits."""
    with np.errstate(all="ignore"):
        entries = blocks.store(format, values, np.zeros(values.shape, np.uint32) if format.is_random else None)
        return [each.astype(plane.storage) for each, plane in zip(entries, format.planes, strict=True)]


def edges(plane: Plane) -> Array:
    """The bits where a plane changes its ways, of floats in both signs."""
    size = plane.storage.itemsize
    sign = 1 << (8 * size - 1)
    if plane.dtype not in BY_DTYPE:
        return np.array([0, 1, sign - 1, sign, sign + 1, 2 * sign - 1], f"u{size}")
    one, infinity = (int(x) for x in bits(stored(BY_DTYPE[plane.dtype], np.array([1.0, np.inf]))))
    least_normal = infinity & -infinity
    positive = [0, 1, least_normal - 1, least_normal, one, one + 1, infinity - 1, infinity, infinity + 1]
    return np.array([*positive, *(sign | x for x in positive)], f"u{size}")


def whole_range(format: Format, numel: int, rng: np.random.Generator) -> list[Array]:
    """Bits over the whole range of a format, about every fifth an edge.

    Of several planes, half of the elements are what it stores of any float32, and half any bits in each plane; of codes
    and scales all are any bits.
    """
    if len(format.planes) == 1 or format.in_blocks:
        return [_any(plane, plane.entries(numel), rng) for plane in format.planes]
    values = _any(FLOAT32, numel, rng).view(np.float32)
    is_stored = rng.random(numel) < 0.5
    return [
        np.where(is_stored, bits(entries), _any(plane, numel, rng))
        for plane, entries in zip(format.planes, stored_planes(format, values), strict=True)
    ]


def _any(plane: Plane, numel: int, rng: np.random.Generator) -> Array:
    size = plane.storage.itemsize
    drawn = np.frombuffer(rng.bytes(numel * size), f"u{size}")
    return np.where(rng.random(numel) < 0.2, rng.choice(edges(plane), numel), drawn)


def ordinary(slot: str, format: Format, numel: int, rng: np.random.Generator) -> list[Array]:
    """Bits, for each plane, of values as they come in training; state is not negative: some goes under a root."""
    normal = rng.standard_normal(numel)
    values = {"param": normal, "grad": 0.1 * normal}.get(slot, 0.01 * np.abs(normal))
    return [bits(entries) for entries in stored_planes(format, values)]
