"""Runs the NumPy form over cache-sized blocks. This is the oracle, and it needs nothing but NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np

from gpuopt.kernels import epilogue, prologue
from gpuopt.kernels.formats import Format
from gpuopt.kernels.prologue import Prologue
from gpuopt.kernels.signals import NO_SIGNALS, Signals
from gpuopt.kernels.table import HYPER_ROW, NUMEL, PART, POINTERS, Table
from gpuopt.kernels.variant import Variant

TILE = 3 << 14
"""The slots of a block and its temporaries about fill a second-level cache; larger temporaries would be mapped anew."""

DEVICE = "cpu"
SCHEDULES = False


def unavailable() -> str | None:
    """None: NumPy is always there."""
    return None


def place(
    table: Table, hyper: np.ndarray[Any, Any], stream: int = 0, signals: Signals = NO_SIGNALS
) -> tuple[np.ndarray[Any, Any], Signals]:
    """Hyper and signals as they are: in host memory they can be read."""
    return hyper, signals


def prepare(table: Table, hyper: np.ndarray[Any, Any], threads: int | None = None) -> None:
    """Nothing is compiled."""


def sum_squares(
    table: Table, placed: Any, part: int = 0, stream: int = 0, threads: int | None = None
) -> np.ndarray[Any, Any]:
    """One sum per block of each tensor."""
    grad = table.variant.formats[1]
    assert grad is not None
    sums = []
    with np.errstate(all="ignore"):
        for row, (_, stored, *_) in zip(table.rows, _slots(table), strict=True):
            assert stored is not None
            weight = np.float64(row[PART] == part)
            for start in range(0, stored.size, table.tile):
                wide = np.multiply(grad.load(stored[start : start + table.tile]), weight, dtype=np.float64)
                sums.append(np.square(wide, out=wide).sum())
    return np.array(sums, dtype=np.float64)


def run(table: Table, hyper: np.ndarray[Any, Any], stream: int = 0, signals: Signals = NO_SIGNALS) -> None:
    """One step over ``table``, see :class:`~gpuopt.kernels.drivers.driver.Driver`."""
    step(table, place(table, hyper, stream, signals), stream)


def step(
    table: Table, placed: tuple[np.ndarray[Any, Any], Signals], stream: int = 0, threads: int | None = None
) -> None:
    """One step over ``table``, see :class:`~gpuopt.kernels.drivers.driver.Driver`."""
    hyper, signals = placed
    if signals.skip():
        zero_grads(table)
        return
    variant = table.variant
    hyper = signals.scaled(hyper)
    with np.errstate(all="ignore"):
        for row, slots in zip(table.rows, _slots(table), strict=True):
            scalars = tuple(hyper[row[HYPER_ROW]])
            for start in range(0, int(row[NUMEL]), table.tile):
                block = slice(start, start + table.tile)
                blocks = [None if slot is None else slot[block] for slot in slots]
                _step(variant, blocks, scalars)


def zero_grads(table: Table) -> None:
    """What a step that is skipped still does, if its variant zeroes gradients."""
    if table.variant.zero_grads:
        for _, grad, *_ in _slots(table):
            assert grad is not None
            grad[:] = 0


def _slots(table: Table) -> list[list[np.ndarray[Any, Any] | None]]:
    """Each tensor's slots as arrays, made when an address has changed."""
    version: int | None
    slots: list[list[np.ndarray[Any, Any] | None]]
    version, slots = table.kept.get(__name__, (None, []))
    if version != table.version:
        slots = [
            [
                None if format is None else _memory(int(address), int(row[NUMEL]), format)
                for address, format in zip(row[POINTERS:], table.variant.formats, strict=True)
            ]
            for row in table.rows
        ]
        table.kept[__name__] = table.version, slots
    return slots


class _Interface:
    """What NumPy asks of an object to see its memory as an array."""

    def __init__(self, address: int, numel: int, format: Format) -> None:
        self.__array_interface__ = {
            "version": 3,
            "shape": (numel,),
            "typestr": format.storage.str,
            "data": (address, False),
        }


def _memory(address: int, numel: int, format: Format) -> np.ndarray[Any, Any]:
    """The ``numel`` elements from ``address`` on, as an array that does not own them."""
    return np.asarray(_Interface(address, numel, format))


def _step(
    variant: Variant,
    stored: list[np.ndarray[Any, Any] | None],
    scalars: tuple[Any, ...],
) -> None:
    """One step over one block of every slot."""
    before = len(Prologue._fields)
    after = before + len(variant.rule.hyper_fields)
    p, g, *state, average, _ = (
        None if block is None or format is None else format.load(block).astype(variant.compute, copy=False)
        for block, format in zip(stored, variant.formats, strict=True)
    )
    p, g = prologue.numpy_form(p, g, scalars[:before])
    p, *state = variant.rule.numpy_form(p, g, scalars[before:after], *state)
    average = epilogue.numpy_form(p, average, scalars[after:])
    for block, format, value in zip(stored, variant.formats, (p, None, *state, average, p), strict=True):
        if block is not None and format is not None and value is not None and value is not block:
            block[:] = format.store(value)
    if variant.zero_grads and stored[1] is not None:
        stored[1][:] = 0
