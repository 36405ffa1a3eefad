"""Random bits over the whole range of a format, and values as they come in training."""

from __future__ import annotations

from typing import Any

import numpy as np

from gpuopt.kernels.formats import Format

Array = np.ndarray[Any, Any]


def bits(stored: Array) -> Array:
    """Stored elements as unsigned integers of the same size."""
    return stored.view(f"u{stored.itemsize}")


def stored(format: Format, values: Array) -> Array:
    """``values`` as the format's oracle stores them."""
    out = np.empty(values.shape, format.storage)
    with np.errstate(all="ignore"):
        out[...] = format.store(values)
    return out


def edges(format: Format) -> Array:
    """The bits where an IEEE format changes its ways, in both signs."""
    one, infinity = (int(x) for x in bits(stored(format, np.array([1.0, np.inf]))))
    least_normal = infinity & -infinity
    positive = [0, 1, least_normal - 1, least_normal, one, one + 1, infinity - 1, infinity, infinity + 1]
    sign = 1 << (8 * format.itemsize - 1)
    return np.array([*positive, *(sign | x for x in positive)], f"u{format.itemsize}")


def whole_range(format: Format, numel: int, rng: np.random.Generator) -> Array:
    """Bits over the whole range of a format, about every fifth an edge."""
    drawn = np.frombuffer(rng.bytes(numel * format.itemsize), f"u{format.itemsize}")
    return np.where(rng.random(numel) < 0.2, rng.choice(edges(format), numel), drawn)


def ordinary(slot: str, format: Format, numel: int, rng: np.random.Generator) -> Array:
    """Bits of values as they come in training; state is not negative, since some of it goes under a root."""
    normal = rng.standard_normal(numel)
    return bits(stored(format, {"param": normal, "grad": 0.1 * normal}.get(slot, 0.01 * np.abs(normal))))
