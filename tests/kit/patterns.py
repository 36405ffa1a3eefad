"""Loads and stores of every format by a driver's own kernel, for every pattern of 16 bits and many of 32.

A step of nothing reads one slot and writes its value to another: a load is seen in a copy of float32, and a store in a
copy of the format.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from gpuopt.kernels.drivers import numpy as oracle
from gpuopt.kernels.formats import FORMATS
from gpuopt.kernels.prologue import Prologue
from gpuopt.kernels.random import key_at
from gpuopt.kernels.rules import RULES
from gpuopt.kernels.variant import Variant, hyper_row
from gpuopt.verify.drawing import Array
from gpuopt.verify.tensors import Tensors
from kit.same import assert_same_bits

TAILS = np.array([0, 1, 0x7F, 0x80, 0x81, 0x180, 0x7F7F, 0x7F80, 0x7FFF, 0x8000, 0x8001, 0xFFFF], np.uint32)
"""Lower halves of a float32 at which rounding changes its ways."""

WIDE, NARROW = FORMATS["fp32"], FORMATS["bf16"]


def loads(name: str) -> Variant:
    """Of a step that loads a format."""
    return Variant(RULES["sgd"], (FORMATS[name], NARROW, None, None, WIDE))


def stores(name: str) -> Variant:
    """Of a step that stores a format."""
    return Variant(RULES["sgd"], (WIDE, NARROW, None, None, FORMATS[name]))


def assert_loads(run: Callable[..., None], name: str, tile: int, drawn: int) -> None:
    """Demands the oracle's values of every pattern of 16 bits in the first plane, and of ``drawn`` random ones."""
    variant = loads(name)
    rng = np.random.default_rng(1)
    first = np.concatenate([np.arange(1 << 16, dtype=np.uint16), rng.integers(0, 1 << 16, drawn, np.uint16)])
    tensors = Tensors(variant, [first.size], seed=2)
    stored = tensors.stored(0, "param")
    if stored.dtype == np.uint16:
        stored[:] = first
    _assert_step(run, tensors, tile)


def assert_stores(run: Callable[..., None], name: str, tile: int, drawn: int) -> None:
    """Demands the oracle's entries of every upper half of a float32 with lower ones, and of ``drawn`` random ones."""
    bits = (np.arange(1 << 16, dtype=np.uint32) << 16)[:, None] | TAILS
    values = np.concatenate([bits.ravel(), np.random.default_rng(3).integers(0, 1 << 32, drawn, np.uint32)])
    tensors = Tensors(stores(name), [values.size], seed=4)
    tensors.stored(0, "param")[:] = values.view(np.float32)
    _assert_step(run, tensors, tile)


def _assert_step(run: Callable[..., None], tensors: Tensors, tile: int) -> None:
    tensors.stored(0, "grad")[:] = 0
    variant = tensors.variant
    hyper: Array = variant.hyper_array(
        [hyper_row(Prologue(), RULES["sgd"].hyper_at(1, 0.0, 0.0, 0.0, 0.0), key=key_at(7, 1))]
    )
    expected = tensors.copy()
    oracle.run(expected.table(oracle.TILE), hyper)
    run(tensors.table(tile), hyper)
    assert_same_bits(tensors, expected)
