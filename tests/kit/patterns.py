"""Loads and stores of every format by a driver's own kernel, for every pattern of 16 bits and many of 32.

A step of nothing reads one slot and writes its value to another: a load is seen in a copy of float32, and a store in a
copy of the format. What is in blocks is state: of either sign, a momentum that the parameter takes or that takes the
gradient; squares, a mean that the parameter is divided by the root of, or that takes the square of the gradient.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from gpuopt.kernels.drivers import numpy as oracle
from gpuopt.kernels.formats import FORMATS
from gpuopt.kernels.prologue import Prologue
from gpuopt.kernels.random import key_at
from gpuopt.kernels.rules import RULES
from gpuopt.kernels.rules.rmsprop import RMSpropHyper
from gpuopt.kernels.rules.sgd import SGDHyper
from gpuopt.kernels.variant import Variant, hyper_row
from gpuopt.verify.drawing import Array
from gpuopt.verify.tensors import Tensors
from kit.same import assert_same_bits

TAILS = np.array([0, 1, 0x7F, 0x80, 0x81, 0x180, 0x7F7F, 0x7F80, 0x7FFF, 0x8000, 0x8001, 0xFFFF], np.uint32)
"""Lower halves of a float32 at which rounding changes its ways."""

WIDE, NARROW = FORMATS["fp32"], FORMATS["bf16"]

NOTHING = RULES["sgd"].hyper_at(1, 0.0, 0.0, 0.0, 0.0)


BLOCKS = {
    "signed8": ("sgd", SGDHyper(-1.0, 1.0, 0.0, 1.0, 0.0), SGDHyper(-1.0, 0.0, 1.0, 1.0, 0.0)),
    "square8": ("rmsprop", RMSpropHyper(1.0, 0.0, 0.0, 0.0), RMSpropHyper(1.0, 1.0, 0.0, 0.0)),
}
"""By format, the rule, and its hyper of a step that loads and of one that stores."""


def loads(name: str) -> Variant:
    """Of a step that loads a format."""
    if name in BLOCKS:
        rule = RULES[BLOCKS[name][0]]
        return Variant(rule, (WIDE, NARROW, FORMATS[name], *(None,) * (len(rule.slots) - 1)))
    return Variant(RULES["sgd"], (FORMATS[name], NARROW, None, None, WIDE))


def stores(name: str) -> Variant:
    """Of a step that stores a format."""
    if name in BLOCKS:
        rule = RULES[BLOCKS[name][0]]
        return Variant(rule, (WIDE, WIDE, FORMATS[name], *(None,) * (len(rule.slots) - 1)))
    return Variant(RULES["sgd"], (WIDE, NARROW, None, None, FORMATS[name]))


def assert_loads(run: Callable[..., None], name: str, tile: int, drawn: int) -> None:
    """Demands the oracle's values of every pattern of 16 bits in the first plane, and of ``drawn`` random ones.

    Of codes every one comes with scales of any bits.
    """
    variant = loads(name)
    if name in BLOCKS:
        codes = np.tile(np.arange(256, dtype=np.uint8), (drawn + (1 << 16)) // 256)
        tensors = Tensors(variant, [codes.size], seed=2, ordinary_share=0.0)
        (slot,) = variant.state
        tensors.stored(0, slot)[:] = codes
        tensors.stored(0, "param")[:] = 0
        tensors.stored(0, "grad")[:] = NARROW.store(np.ones(1, np.float32), None)[0]
        _assert_step(run, tensors, tile, BLOCKS[name][1])
        return
    rng = np.random.default_rng(1)
    first = np.concatenate([np.arange(1 << 16, dtype=np.uint16), rng.integers(0, 1 << 16, drawn, np.uint16)])
    tensors = Tensors(variant, [first.size], seed=2)
    stored = tensors.stored(0, "param")
    if stored.dtype == np.uint16:
        stored[:] = first
    tensors.stored(0, "grad")[:] = 0
    _assert_step(run, tensors, tile, NOTHING)


def assert_stores(run: Callable[..., None], name: str, tile: int, drawn: int) -> None:
    """Demands the oracle's entries of every upper half of a float32 with lower ones, and of ``drawn`` random ones."""
    bits = (np.arange(1 << 16, dtype=np.uint32) << 16)[:, None] | TAILS
    values = np.concatenate([bits.ravel(), np.random.default_rng(3).integers(0, 1 << 32, drawn, np.uint32)])
    tensors = Tensors(stores(name), [values.size], seed=4)
    if name in BLOCKS:
        for plane in tensors.planes_of(tensors.variant.state[0]):
            tensors.stored(0, plane)[:] = 0
        tensors.stored(0, "grad")[:] = values.view(np.float32)
        _assert_step(run, tensors, tile, BLOCKS[name][2])
        return
    tensors.stored(0, "grad")[:] = 0
    tensors.stored(0, "param")[:] = values.view(np.float32)
    _assert_step(run, tensors, tile, NOTHING)


def _assert_step(run: Callable[..., None], tensors: Tensors, tile: int, scalars: tuple[float, ...]) -> None:
    variant = tensors.variant
    hyper: Array = variant.hyper_array([hyper_row(Prologue(), scalars, key=key_at(7, 1))])
    expected = tensors.copy()
    oracle.run(expected.table(oracle.TILE), hyper)
    run(tensors.table(tile), hyper)
    assert_same_bits(tensors, expected)
