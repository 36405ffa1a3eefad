"""Runs the NumPy form over cache-sized blocks. This is the oracle, and it needs nothing but NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np

from gpuopt.kernels import blocks, epilogue, prologue
from gpuopt.kernels.epilogue import Epilogue
from gpuopt.kernels.formats import Plane
from gpuopt.kernels.prologue import Prologue
from gpuopt.kernels.random import random_bits, slot_key
from gpuopt.kernels.signals import NO_SIGNALS, Signals
from gpuopt.kernels.table import HYPER_ROW, NUMEL, ORIGIN, PART, PITCH, POINTERS, RUN, Table
from gpuopt.kernels.variant import Variant

TILE = 3 << 14
"""The slots of a block and its temporaries about fill a second-level cache; larger temporaries would be mapped anew."""

DEVICE = "cpu"
SCHEDULES = False

Array = np.ndarray[Any, Any]

_Planes = tuple[Array, ...]
"""Those of a slot; empty where it is absent."""


def unavailable() -> str | None:
    """None: NumPy is always there."""
    return None


def place(table: Table, hyper: Array, stream: int = 0, signals: Signals = NO_SIGNALS) -> tuple[Array, Signals]:
    """Hyper and signals as they are: in host memory they can be read."""
    return hyper, signals


def prepare(table: Table, hyper: Array, threads: int | None = None) -> None:
    """Nothing is compiled."""


def sum_squares(table: Table, placed: Any, part: int = 0, stream: int = 0, threads: int | None = None) -> Array:
    """One sum per block of each tensor."""
    grad = table.variant.formats[1]
    assert grad is not None
    sums = []
    with np.errstate(all="ignore"):
        for row, (_, (stored,), *_) in zip(table.rows, _slots(table), strict=True):
            weight = np.float64(row[PART] == part)
            for start in range(0, stored.size, table.tile):
                wide = np.multiply(grad.load(stored[start : start + table.tile]), weight, dtype=np.float64)
                sums.append(np.square(wide, out=wide).sum())
    return np.array(sums, dtype=np.float64)


def run(table: Table, hyper: Array, stream: int = 0, signals: Signals = NO_SIGNALS) -> None:
    """One step over ``table``, see :class:`~gpuopt.kernels.drivers.driver.Driver`."""
    step(table, place(table, hyper, stream, signals), stream)


def step(table: Table, placed: tuple[Array, Signals], stream: int = 0, threads: int | None = None) -> None:
    """One step over ``table``, see :class:`~gpuopt.kernels.drivers.driver.Driver`."""
    hyper, signals = placed
    if signals.skip():
        zero_grads(table)
        return
    variant = table.variant
    hyper = signals.scaled(hyper)
    with np.errstate(all="ignore"):
        for row, slots in zip(table.rows, _slots(table), strict=True):
            scalars = hyper[row[HYPER_ROW]]
            for start in range(0, int(row[NUMEL]), table.tile):
                stop = min(start + table.tile, int(row[NUMEL]))
                parts = [
                    ()
                    if format is None
                    else tuple(
                        each[start // plane.block : plane.entries(stop)]
                        for each, plane in zip(arrays, format.planes, strict=True)
                    )
                    for arrays, format in zip(slots, variant.formats, strict=True)
                ]
                _step(variant, parts, tuple(scalars), _random(variant, row, start, stop - start, scalars))


def zero_grads(table: Table) -> None:
    """What a step that is skipped still does, if its variant zeroes gradients."""
    if table.variant.zero_grads:
        for _, (grad,), *_ in _slots(table):
            grad[:] = 0


def _slots(table: Table) -> list[list[_Planes]]:
    """Each tensor's slots as arrays, made when an address has changed."""
    version: int | None
    slots: list[list[_Planes]]
    version, slots = table.kept.get(__name__, (None, []))
    if version != table.version:
        layout = list(zip(table.variant.formats, table.variant.columns, strict=True))
        slots = [
            [
                ()
                if format is None
                else tuple(
                    _memory(int(row[POINTERS + column]), int(row[NUMEL]), plane)
                    for plane, column in zip(format.planes, columns, strict=True)
                )
                for format, columns in layout
            ]
            for row in table.rows
        ]
        table.kept[__name__] = table.version, slots
    return slots


class _Interface:
    """What NumPy asks of an object to see its memory as an array."""

    def __init__(self, address: int, entries: int, plane: Plane) -> None:
        self.__array_interface__ = {
            "version": 3,
            "shape": (entries,),
            "typestr": plane.storage.str,
            "data": (address, False),
        }


def _memory(address: int, numel: int, plane: Plane) -> Array:
    """The entries of ``numel`` elements from ``address`` on, as an array that does not own them."""
    return np.asarray(_Interface(address, plane.entries(numel), plane))


def _random(variant: Variant, row: Array, start: int, size: int, scalars: Array) -> list[Array | None]:
    """For each slot the random bits of the elements of one block; None where its format asks for none."""
    if not variant.is_random:
        return [None] * len(variant.formats)
    local = np.arange(start, start + size)
    index = row[ORIGIN] + local // row[RUN] * row[PITCH] + local % row[RUN]
    low, high = index.astype(np.uint32), (index >> 32).astype(np.uint32)
    key = scalars[-2:].astype(np.uint32)
    return [
        random_bits(slot)(low, high, slot_key(key[:1], key[1:], slot))
        if format is not None and format.is_random
        else None
        for slot, format in enumerate(variant.formats)
    ]


def _step(variant: Variant, stored: list[_Planes], scalars: tuple[Any, ...], random: list[Array | None]) -> None:
    """One step over one block of every slot."""
    before = len(Prologue._fields)
    after = before + len(variant.rule.hyper_fields)
    p, g, *state, average, _ = (
        None if format is None else blocks.load(format, planes).astype(variant.compute, copy=False)
        for planes, format in zip(stored, variant.formats, strict=True)
    )
    p, g = prologue.numpy_form(p, g, scalars[:before])
    relation = variant.relation
    if relation is not None:
        state = list(relation.numpy_restore(scalars[before:after], *state))
    p, *state = variant.rule.numpy_form(p, g, scalars[before:after], *state)
    if relation is not None and relation.numpy_reduce is not None:
        state = list(relation.numpy_reduce(scalars[before:after], *state))
    average = epilogue.numpy_form(p, average, scalars[after : after + len(Epilogue._fields)])
    values = p, None, *state, average, p
    for planes, format, value, bits in zip(stored, variant.formats, values, random, strict=True):
        if format is not None and value is not None:
            for plane, entries in zip(planes, blocks.store(format, value, bits), strict=True):
                if entries is not plane:
                    plane[:] = entries
    if variant.zero_grads:
        stored[1][0][:] = 0
