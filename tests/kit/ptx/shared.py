"""The shared memory of blocks, and whether warps meet in it without a barrier between."""

from __future__ import annotations

from typing import Any

import numpy as np

from kit.ptx.memory import AccessError

Array = np.ndarray[Any, Any]

NOBODY, SEVERAL = -1, -2
"""In place of a warp."""


class Shared:
    """Shared memory of several blocks. Its addresses begin at 0 in each.

    Since the last barrier each byte may have been read by any warps, or written by one, which alone may read it then,
    or at once by several that write the same.

    Attributes:
        size: Bytes of a block.
        blocks: Number of blocks.
        block_of: For each thread, which of the blocks is its own.
    """

    def __init__(self, size: int, blocks: int, block_of: Array, warp: Array) -> None:
        self.size, self.blocks, self.block_of, self._warp = size, blocks, block_of, warp.astype(np.int64)
        self._bytes = np.full((blocks, size), 0xA5, np.uint8)
        self._reader, self._writer = (np.full((blocks, size), NOBODY) for _ in range(2))

    def load(self, lanes: Any, addresses: Array, dtype: Any, count: int) -> list[Array]:
        """As :meth:`Memory.load`, by some threads."""
        block, at, warp = self._reach(lanes, addresses, np.dtype(dtype).itemsize * count, "loads")
        if ((self._writer[block, at] != NOBODY) & (self._writer[block, at] != warp)).any():
            raise AccessError("a warp reads shared memory that another wrote, without a barrier between")
        before = self._reader[block, at]
        self._reader[block, at] = np.where((before == NOBODY) | (before == warp), warp, SEVERAL)
        met = self._reader[block, at] != warp  # of those that read it at once, one alone is noted
        self._reader[np.broadcast_to(block, at.shape)[met], at[met]] = SEVERAL
        found = np.ascontiguousarray(self._bytes[block, at]).view(dtype)
        return [found[:, k] for k in range(count)]

    def store(self, lanes: Any, addresses: Array, values: list[Array]) -> None:
        """As :meth:`Memory.store`, by some threads."""
        whole = np.stack(values, axis=1)
        block, at, warp = self._reach(lanes, addresses, whole.itemsize * len(values), "stores")
        for who in (self._reader[block, at], self._writer[block, at]):
            if ((who != NOBODY) & (who != warp)).any():
                raise AccessError("a warp writes shared memory that another reads or wrote, without a barrier between")
        written = whole.view(np.uint8).reshape(at.shape)
        self._bytes[block, at] = written
        if (self._bytes[block, at] != written).any():
            raise AccessError("two threads write to the same byte of shared memory at once, and not the same")
        self._writer[block, at] = warp
        met = self._writer[block, at] != warp  # of those that write the same at once, one alone is noted
        self._writer[np.broadcast_to(block, at.shape)[met], at[met]] = SEVERAL

    def pass_barrier(self, blocks: Array) -> None:
        """From now on the warps of some blocks may touch what others have touched."""
        self._reader[blocks] = self._writer[blocks] = NOBODY

    def _reach(self, lanes: Any, addresses: Array, size: int, does: str) -> tuple[Array, Array, Array]:
        """For each thread and byte of an access: the block, the byte in it, and the warp."""
        first = addresses.astype(np.int64)
        bad = (first % size != 0) | (first + size > self.size)
        if bad.any():
            where = int(first[bad][0])
            raise AccessError(f"a thread {does} {size} bytes at byte {where:,} of {self.size:,} of shared memory")
        at = first[:, None] + np.arange(size)
        return self.block_of[lanes][:, None], at, self._warp[lanes][:, None]
