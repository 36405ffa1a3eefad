"""Signals that are given, with their scalars in host memory, and steps that take them."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product

import numpy as np

from gpuopt.kernels import epilogue
from gpuopt.kernels.drivers import numpy as oracle
from gpuopt.kernels.formats import FORMATS
from gpuopt.kernels.signals import Signals
from gpuopt.kernels.variant import Variant
from kit.tensors import Tensors, assert_same_bits
from kit.variants import hyper_rows, variants

VARIANTS = [
    variant
    for variant in variants()
    if variant.present[-1] in epilogue.SLOTS
    or (len(variant.state) == len(variant.rule.slots) and set(variant.formats) <= {FORMATS["fp32"], None})
]
"""Every rule with all of its slots: in every set of formats that has an epilogue, and in fp32 without one."""

COMBINATIONS: list[dict[str, float]] = [
    {field: value for field, value in zip(Signals._fields, values, strict=True) if value is not None}
    for values in product((None, 3.0), (None, 0.37), (None, 0.0))
]
"""Every way to give or leave out each signal."""

EDGES: list[dict[str, float]] = [
    {"loss_scale": 0.0},
    {"loss_scale": np.inf},
    {"loss_scale": np.nan, "clip_factor": 0.5},
    {"loss_scale": 1e-45},
    {"loss_scale": 65536.0, "clip_factor": 1.0},
    {"clip_factor": 0.0},
    {"clip_factor": np.inf, "loss_scale": np.inf},
    {"clip_factor": np.nan},
    {"clip_factor": 1e-45},
    {"clip_factor": 1e38, "loss_scale": 1e-38},
    {"found_inf": -0.0, "clip_factor": 0.5},
]
"""Values where arithmetic leaves the ordinary."""

FOUND = (1.0, -1.0, 1e-45, np.inf, np.nan)
"""All that means that an infinity was found: whatever is not zero."""


class Given:
    """Signals whose scalars have the values that are given; the others are absent.

    Attributes:
        scalars: An array of one element, or None, for each field of :class:`Signals`.
    """

    def __init__(self, variant: Variant, **values: float) -> None:
        dtypes = {"loss_scale": np.float32, "clip_factor": variant.compute.type, "found_inf": np.float32}
        self.scalars = [
            np.array([values[field]], dtypes[field]) if field in values else None for field in Signals._fields
        ]

    @property
    def signals(self) -> Signals:
        """Their addresses."""
        return Signals(*(0 if scalar is None else scalar.ctypes.data for scalar in self.scalars))


def assert_same_step(
    run: Callable[..., None], variant: Variant, tile: int, numels: list[int], values: dict[str, float]
) -> None:
    """Demands the oracle's bits of a step that takes the signals ``values``."""
    given = Given(variant, **values)
    tensors = Tensors(variant, numels, seed=4)
    expected = tensors.copy()
    rows = np.arange(len(numels)) % 2
    hyper = variant.hyper_array(hyper_rows(variant, 1))
    before = [scalar if scalar is None else scalar.copy() for scalar in given.scalars], hyper.copy()
    run(tensors.table(tile, rows), hyper, signals=given.signals)
    oracle.run(expected.table(oracle.TILE, rows), hyper, signals=given.signals)
    assert_same_bits(tensors, expected, f"{values}:")
    for was, now in zip((*before[0], before[1]), (*given.scalars, hyper), strict=True):
        assert was is None or was.tobytes() == now.tobytes()


def assert_untouched(run: Callable[..., None], variant: Variant, tile: int, numels: list[int], found: float) -> None:
    """Demands that a step for which an infinity was found leaves every byte alone, but gradients to be zeroed."""
    given = Given(variant, loss_scale=2.0, clip_factor=0.5, found_inf=found)
    tensors = Tensors(variant, numels, seed=5, ordinary_share=0.3)
    expected = tensors.copy()
    if variant.zero_grads:
        for tensor in range(len(numels)):
            expected.stored(tensor, "grad")[:] = 0
    rows = np.arange(len(numels)) % 2
    run(tensors.table(tile, rows), variant.hyper_array(hyper_rows(variant, 1)), signals=given.signals)
    assert _bytes(tensors) == _bytes(expected)


def _bytes(tensors: Tensors) -> list[dict[str, bytes]]:
    return [{slot: buffer.tobytes() for slot, buffer in slots.items()} for slots in tensors.buffers]
