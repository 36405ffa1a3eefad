"""The memory that a kernel may touch, which is host memory, and what it has touched of it."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


class AccessError(Exception):
    """A kernel touched memory that is not its own, or its own in a way that a GPU refuses."""


@dataclass(frozen=True)
class Buffer:
    """A stretch of memory.

    Attributes:
        name: What messages call it.
        address: Where it begins.
        size: In bytes.
        writable: Whether a kernel may write to it.
    """

    name: str
    address: int
    size: int
    writable: bool


class Memory:
    """Every buffer that was handed to a kernel; what lies between them is nobody's.

    Attributes:
        loads: Addresses and bytes of an access, for each instruction that loaded; one address a thread.
        stores: The same of those that stored.
    """

    def __init__(self, buffers: list[Buffer]) -> None:
        self.buffers = sorted((each for each in buffers if each.size), key=lambda each: each.address)
        for one, other in zip(self.buffers, self.buffers[1:], strict=False):
            if one.address + one.size > other.address and (one.writable or other.writable):
                raise ValueError(f"{one.name} and {other.name} overlap, and one of them is written")
        self._first = [each.address for each in self.buffers]
        self._firsts = np.array(self._first, np.uint64)
        self._ends = np.array([each.address + each.size for each in self.buffers], np.uint64)
        self._writable = np.array([each.writable for each in self.buffers])
        self._views: dict[np.dtype[Any], tuple[int, Array]] = {}
        self.loads: list[tuple[Array, int]] = []
        self.stores: list[tuple[Array, int]] = []

    def load(self, addresses: Array, dtype: Any, count: int) -> list[Array]:
        """``count`` neighbours from each address on; the first of all addresses, then the second, and so on."""
        self._check(addresses, np.dtype(dtype).itemsize * count, "loads", writes=False)
        self.loads.append((addresses, np.dtype(dtype).itemsize * count))
        at, view = self._indices(addresses, dtype)
        return [view[at + k] for k in range(count)]

    def store(self, addresses: Array, values: list[Array]) -> None:
        """The opposite: to each address the element of the first array, behind it that of the second, and so on."""
        dtype = values[0].dtype
        self._check(addresses, dtype.itemsize * len(values), "stores", writes=True)
        self.stores.append((addresses, dtype.itemsize * len(values)))
        at, view = self._indices(addresses, dtype)
        for k, value in enumerate(values):
            view[at + k] = value

    def counts(self, accesses: list[tuple[Array, int]], buffer: Buffer) -> Array:
        """How often each byte of a buffer occurs in ``loads`` or ``stores``."""
        counts = np.zeros(buffer.size, np.int64)
        for addresses, size in accesses:
            offsets = addresses.astype(np.int64) - buffer.address
            inside = offsets[(offsets >= 0) & (offsets < buffer.size)]
            for k in range(size):
                counts += np.bincount(inside + k, minlength=buffer.size)
        return counts

    def _indices(self, addresses: Array, dtype: Any) -> tuple[Array, Array]:
        """Indices of elements in a view of all memory from the first buffer to the last."""
        dtype = np.dtype(dtype)
        if dtype not in self._views:
            first = self._first[0] & -16
            self._views[dtype] = first, np.asarray(_Interface(first, int(self._ends.max()) - first, dtype))
        first, view = self._views[dtype]
        return (addresses - np.uint64(first)) // np.uint64(dtype.itemsize), view

    def _check(self, addresses: Array, size: int, does: str, writes: bool) -> None:
        low, high = int(addresses.min()), int(addresses.max())
        if (addresses & np.uint64(size - 1)).any():
            bad = int(addresses[(addresses & np.uint64(size - 1)) != 0][0])
            raise AccessError(f"a thread {does} {size} bytes at {self._where(bad)}, which is no multiple of {size}")
        index = bisect_right(self._first, low) - 1
        if index >= 0 and high + size <= int(self._ends[index]):
            allowed = not writes or self.buffers[index].writable
            if not allowed:
                raise AccessError(f"a thread {does} {size} bytes at {self._where(low)}, which is only to be read")
            return
        indices = np.searchsorted(self._firsts, addresses, side="right") - 1
        outside = (indices < 0) | (addresses + np.uint64(size) > self._ends[indices])
        if outside.any():
            bad = int(addresses[outside][0])
            raise AccessError(f"a thread {does} {size} bytes at {self._where(bad)}, which lies in no buffer")
        if writes and not self._writable[indices].all():
            bad = int(addresses[~self._writable[indices]][0])
            raise AccessError(f"a thread {does} {size} bytes at {self._where(bad)}, which is only to be read")

    def _where(self, address: int) -> str:
        """An address as a distance from the buffer that it is in or behind."""
        index = bisect_right(self._first, address) - 1
        if index < 0:
            return f"address {address:#x}"
        buffer = self.buffers[index]
        return f"byte {address - buffer.address:,} of {buffer.name}, which has {buffer.size:,}"


class _Interface:
    """What NumPy asks of an object to see memory as an array."""

    def __init__(self, address: int, size: int, dtype: np.dtype[Any]) -> None:
        shape = (-(-size // dtype.itemsize),)
        self.__array_interface__ = {"version": 3, "shape": shape, "typestr": dtype.str, "data": (address, False)}
