"""The memory that a kernel may touch, which is host memory, and what it has touched of it."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from typing import Any, NamedTuple

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


class Access(NamedTuple):
    """What an instruction touched.

    Attributes:
        addresses: One for each thread that took it.
        size: Bytes from each of them on.
        threads: The index of each thread in the launch.
    """

    addresses: Array
    size: int
    threads: Array


class Memory:
    """Every buffer that was handed to a kernel; what lies between them is nobody's.

    Attributes:
        loads: By each instruction that loaded.
        stores: By each that stored.
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
        self.loads: list[Access] = []
        self.stores: list[Access] = []
        self._loads_of_writable: list[Access] = []

    def load(self, addresses: Array, dtype: Any, count: int, threads: Array) -> list[Array]:
        """``count`` neighbours from each address on; the first of all addresses, then the second, and so on."""
        access = Access(addresses, np.dtype(dtype).itemsize * count, threads)
        if self._check(access, "loads", writes=False):
            self._loads_of_writable.append(access)
        self.loads.append(access)
        at, view = self._indices(addresses, dtype)
        return [view[at + k] for k in range(count)]

    def store(self, addresses: Array, values: list[Array], threads: Array) -> None:
        """The opposite: to each address the element of the first array, behind it that of the second, and so on."""
        dtype = values[0].dtype
        access = Access(addresses, dtype.itemsize * len(values), threads)
        self._check(access, "stores", writes=True)
        self.stores.append(access)
        at, view = self._indices(addresses, dtype)
        for k, value in enumerate(values):
            view[at + k] = value

    def check_races(self, threads_of_a_block: int) -> None:
        """Demands that what came out does not depend on which thread was first.

        Raises:
            AccessError: Two threads have stored the same byte, or one has stored what another block has loaded.
        """
        if not self.stores:
            return
        unit = min(access.size for access in (*self.stores, *self._loads_of_writable))
        at, threads = _spread(self.stores, unit)
        order = np.argsort(at, kind="stable")
        at, threads = at[order], threads[order]
        twice = (at[1:] == at[:-1]) & (threads[1:] != threads[:-1])
        if twice.any():
            raise AccessError(f"two threads store to {self._where(int(at[1:][twice][0]) * unit)}")
        if self._loads_of_writable:
            loaded, loaders = _spread(self._loads_of_writable, unit)
            found = np.minimum(np.searchsorted(at, loaded), len(at) - 1)
            foreign = (at[found] == loaded) & (threads[found] // threads_of_a_block != loaders // threads_of_a_block)
            if foreign.any():
                where = self._where(int(loaded[foreign][0]) * unit)
                raise AccessError(f"a block loads what another stores, at {where}")

    def counts(self, accesses: list[Access], buffer: Buffer) -> Array:
        """How often each byte of a buffer occurs in ``loads`` or ``stores``."""
        counts = np.zeros(buffer.size, np.int64)
        for addresses, size, _ in accesses:
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

    def _check(self, access: Access, does: str, writes: bool) -> bool:
        """Refuses an access that is not allowed; returns whether it may be to memory that kernels write."""
        addresses, size, _ = access
        low, high = int(addresses.min()), int(addresses.max())
        if (addresses & np.uint64(size - 1)).any():
            bad = int(addresses[(addresses & np.uint64(size - 1)) != 0][0])
            raise AccessError(f"a thread {does} {size} bytes at {self._where(bad)}, which is no multiple of {size}")
        index = bisect_right(self._first, low) - 1
        if index >= 0 and high + size <= int(self._ends[index]):
            if writes and not self.buffers[index].writable:
                raise AccessError(f"a thread {does} {size} bytes at {self._where(low)}, which is only to be read")
            return self.buffers[index].writable
        indices = np.searchsorted(self._firsts, addresses, side="right") - 1
        outside = (indices < 0) | (addresses + np.uint64(size) > self._ends[indices])
        if outside.any():
            bad = int(addresses[outside][0])
            raise AccessError(f"a thread {does} {size} bytes at {self._where(bad)}, which lies in no buffer")
        if writes and not self._writable[indices].all():
            bad = int(addresses[~self._writable[indices]][0])
            raise AccessError(f"a thread {does} {size} bytes at {self._where(bad)}, which is only to be read")
        return bool(self._writable[indices].any())

    def _where(self, address: int) -> str:
        """An address as a distance from the buffer that it is in or behind."""
        index = bisect_right(self._first, address) - 1
        if index < 0:
            return f"address {address:#x}"
        buffer = self.buffers[index]
        return f"byte {address - buffer.address:,} of {buffer.name}, which has {buffer.size:,}"


def _spread(accesses: list[Access], unit: int) -> tuple[Array, Array]:
    """Where in memory, in units of some bytes, accesses have touched it, and by which threads."""
    at = [
        (access.addresses.astype(np.int64)[:, None] // unit + np.arange(access.size // unit)).ravel()
        for access in accesses
    ]
    threads = [np.repeat(access.threads, access.size // unit) for access in accesses]
    return np.concatenate(at), np.concatenate(threads)


class _Interface:
    """What NumPy asks of an object to see memory as an array."""

    def __init__(self, address: int, size: int, dtype: np.dtype[Any]) -> None:
        shape = (-(-size // dtype.itemsize),)
        self.__array_interface__ = {"version": 3, "shape": shape, "typestr": dtype.str, "data": (address, False)}
