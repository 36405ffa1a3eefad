"""Whether pieces of memory share an element: by sorted extents where these tell, else by strides."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from gpuopt.memory import Memory, share_memory

Extents = np.ndarray[Any, np.dtype[np.int64]]
"""Of shape (pieces, 2): first byte of each piece, and the one after its last."""


class Sorted:
    """Extents in the order of their first bytes, to be asked whether others may overlap them."""

    def __init__(self, extents: Extents) -> None:
        starts, ends = extents[np.argsort(extents[:, 0], kind="stable")].T
        self._starts, self._reach = starts, np.maximum.accumulate(ends)
        self.overlap = bool(np.any(starts[1:] < self._reach[:-1]))

    def may_meet(self, extents: Extents) -> bool:
        """Whether one of ``extents`` overlaps one of these."""
        before = np.searchsorted(self._starts, extents[:, 1])
        return bool(np.any((before > 0) & (self._reach[before - 1] > extents[:, 0])))


def sharing(pieces: Sequence[Memory]) -> Iterator[tuple[int, int]]:
    """Every two pieces that share an element, by their indices, the first before the second."""
    extents = [memory.extent for memory in pieces]
    open_ones: list[int] = []
    for current in sorted(range(len(pieces)), key=lambda index: extents[index][0]):
        open_ones = [before for before in open_ones if extents[before][1] > extents[current][0]]
        for before in open_ones:
            if share_memory(pieces[before], pieces[current]):
                yield min(before, current), max(before, current)
        open_ones.append(current)
