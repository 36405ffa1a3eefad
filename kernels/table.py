"""The numbers that one launch reads: where every slot of every tensor is, and which tile is whose."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Self

import numpy as np

from gpuopt.kernels.formats import BLOCK
from gpuopt.kernels.variant import Variant

ALIGNMENT = 16
"""Bytes that one thread of a GPU moves at best in one access."""

NUMEL, FAST_NUMEL, FIRST_TILE, HYPER_ROW, PART, ORIGIN, RUN, PITCH, POINTERS = range(9)
"""Columns of a row; from POINTERS on, one address per plane, in the order of :attr:`Variant.columns`."""


class Whereabouts(NamedTuple):
    """Where the elements of a tensor are in the whole model, of which random bits depend.

    Element :math:`i` is element ``origin + i // run * pitch + i % run`` there, which is ``origin + i`` where ``run``
    and ``pitch`` are the same.

    Attributes:
        origin: Place of the first.
        run: How many follow each other there.
        pitch: From the first of a run to the first of the next.
    """

    origin: int = 0
    run: int = 1
    pitch: int = 1


class Table:
    """What one launch covers, as plain integers that NumPy, compiled code and a GPU can all walk.

    Attributes:
        variant: The rule and the formats of its slots.
        tile: Elements that one program or thread block takes at a time; where something is in blocks, whole ones.
        device: Index of the CUDA device that the addresses belong to; None for host memory.
        numel: Number of elements of all tensors.
        rows: int64 of shape (tensors, POINTERS + width of the variant): elements; elements that may be accessed 16
            bytes at a time in every plane but the gradient's, whose own address tells (all of them, or none where a
            plane is not aligned); index of the first tile; index of the hyper row; index of the sum of squares in
            which the gradient counts, -1 if it counts in none, since a copy of it is counted elsewhere; what
            :class:`Whereabouts` says; then the address of each plane, 0 where its slot is absent.
        tile_tensor: int32 of shape (tiles,): the tensor that each tile belongs to.
        version: Counts the changes of ``rows``, so that copies on a device know when they are stale.
        kept: What drivers keep of this table between steps, such as a copy on a device.
    """

    def __init__(
        self,
        variant: Variant,
        tile: int,
        numels: Sequence[int],
        addresses: Sequence[Sequence[int]],
        hyper_rows: Sequence[int] | np.ndarray[Any, Any] | None = None,
        device: int | None = None,
        whereabouts: Sequence[Whereabouts] | None = None,
    ) -> None:
        numbers = np.zeros((len(numels), POINTERS + variant.width), dtype=np.int64)
        numbers[:, NUMEL] = numels
        numbers[:, ORIGIN : PITCH + 1] = whereabouts or Whereabouts()
        if hyper_rows is not None:
            numbers[:, HYPER_ROW] = hyper_rows
        if len(numels):
            numbers[:, POINTERS:] = addresses
        self._fill(variant, tile, numbers, device)

    @classmethod
    def of(cls, variant: Variant, tile: int, rows: np.ndarray[Any, Any], device: int | None = None) -> Self:
        """A table of ``rows``, of which it takes hold; what follows from elements and addresses is filled here."""
        table = cls.__new__(cls)
        table._fill(variant, tile, rows, device)
        return table

    def _fill(self, variant: Variant, tile: int, rows: np.ndarray[Any, Any], device: int | None) -> None:
        if variant.in_blocks and tile % BLOCK:
            raise ValueError(f"tile must be a multiple of {BLOCK} for {variant}, but is {tile}")
        self.variant = variant
        self.tile = tile
        self.device = device
        self.version = 0
        self.kept: dict[Any, Any] = {}
        self.rows = rows
        elements = rows[:, NUMEL]
        self.numel = int(elements.sum())
        tiles = -(-elements // tile)
        self.tile_tensor = np.repeat(np.arange(len(rows), dtype=np.int32), tiles)
        rows[:, FIRST_TILE] = np.cumsum(tiles) - tiles
        self._update_fast_numel()

    @property
    def tiles(self) -> int:
        """Number of tiles: the size of the launch."""
        return len(self.tile_tensor)

    def move(self, slot: str, addresses: Sequence[int] | np.ndarray[Any, Any]) -> None:
        """Takes the new addresses of one slot, one per tensor, as after a gradient was allocated anew."""
        column = self.rows[:, POINTERS + self.variant.slots.index(slot)]
        if np.array_equal(column, addresses):
            return
        column[:] = addresses
        if slot != "grad":
            self._update_fast_numel()
        self.version += 1

    def assign_hyper_rows(self, hyper_rows: Sequence[int] | np.ndarray[Any, Any]) -> None:
        """Takes the index of the hyper row of each tensor."""
        column = self.rows[:, HYPER_ROW]
        if not np.array_equal(column, hyper_rows):
            column[:] = hyper_rows
            self.version += 1

    def _update_fast_numel(self) -> None:
        others = np.delete(self.rows[:, POINTERS:], self.variant.slots.index("grad"), axis=1)
        bits = np.bitwise_or.reduce(others, axis=1)
        self.rows[:, FAST_NUMEL] = self.rows[:, NUMEL] * (bits % ALIGNMENT == 0)
