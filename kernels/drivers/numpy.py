"""Runs the NumPy form over cache-sized blocks. This is the oracle, and it needs nothing but NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np

from gpuopt.kernels import prologue
from gpuopt.kernels.formats import Format
from gpuopt.kernels.prologue import Prologue
from gpuopt.kernels.table import HYPER_ROW, NUMEL, POINTERS, Table
from gpuopt.kernels.variant import Variant

TILE = 3 << 14
"""The slots of a block and its temporaries about fill a second-level cache; larger temporaries would be mapped anew."""

DEVICE = "cpu"


def unavailable() -> str | None:
    """None: NumPy is always there."""
    return None


def run(table: Table, hyper: np.ndarray[Any, Any], stream: int = 0) -> None:
    """One step over ``table``, see :class:`~gpuopt.kernels.drivers.driver.Driver`."""
    variant = table.variant
    before = len(Prologue._fields)
    with np.errstate(all="ignore"):
        for row, slots in zip(table.rows, _slots(table), strict=True):
            scalars = tuple(hyper[row[HYPER_ROW]])
            for start in range(0, int(row[NUMEL]), table.tile):
                block = slice(start, start + table.tile)
                blocks = [None if slot is None else slot[block] for slot in slots]
                _step(variant, blocks, scalars[:before], scalars[before:])


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
    prologue_hyper: tuple[Any, ...],
    rule_hyper: tuple[Any, ...],
) -> None:
    """One step over one block of every slot."""
    p, g, *state = (
        None if block is None or format is None else format.load(block).astype(variant.compute, copy=False)
        for block, format in zip(stored, variant.formats, strict=True)
    )
    p, g = prologue.numpy_form(p, g, prologue_hyper)
    p, *state = variant.rule.numpy_form(p, g, rule_hyper, *state)
    written = zip((stored[0], *stored[2:]), (variant.formats[0], *variant.formats[2:]), (p, *state), strict=True)
    for block, format, value in written:
        if block is not None and format is not None and value is not block:
            block[:] = format.store(value)
