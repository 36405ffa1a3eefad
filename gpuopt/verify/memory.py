"""The memory that a driver's users have, and tensors for a variant in it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from gpuopt.kernels.drivers import DRIVERS
from gpuopt.kernels.table import Table
from gpuopt.verify.drawing import Array
from gpuopt.verify.tensors import Tensors


class Memory(Protocol):
    """Buffers are one-dimensional arrays of bytes, and slices of them are views.

    Attributes:
        index: Of the CUDA device; None for host memory.
    """

    index: int | None

    def upload(self, array: Array) -> Any:
        """A new buffer with the bytes of ``array``, which are uint8."""

    def download(self, buffer: Any) -> Array:
        """The bytes of ``buffer``."""

    def address(self, buffer: Any) -> int:
        """Where the buffer starts."""

    def assign(self, to: Any, source: Any) -> None:
        """Copies within the memory, on the current stream."""

    def synchronize(self) -> None:
        """Waits for the device."""


class HostMemory:
    """Buffers are uint8 arrays."""

    index: int | None = None

    def upload(self, array: Array) -> Any:
        """See :class:`Memory`."""
        return array.copy()

    def download(self, buffer: Any) -> Array:
        """See :class:`Memory`."""
        copied: Array = buffer.copy()
        return copied

    def address(self, buffer: Any) -> int:
        """See :class:`Memory`."""
        return int(buffer.ctypes.data)

    def assign(self, to: Any, source: Any) -> None:
        """See :class:`Memory`."""
        to[...] = source

    def synchronize(self) -> None:
        """See :class:`Memory`."""


class TorchMemory:
    """Buffers are PyTorch's uint8 tensors."""

    def __init__(self, index: int = 0, kind: str = "cuda") -> None:
        import torch

        self.torch = torch
        self.index: int | None = index
        self.device = torch.device(kind, index) if kind == "cuda" else torch.device(kind)

    def upload(self, array: Array) -> Any:
        """See :class:`Memory`."""
        return self.torch.from_numpy(array.copy()).to(self.device)

    def download(self, buffer: Any) -> Array:
        """See :class:`Memory`."""
        copied: Array = buffer.cpu().numpy()
        return copied

    def address(self, buffer: Any) -> int:
        """See :class:`Memory`."""
        return int(buffer.data_ptr())

    def assign(self, to: Any, source: Any) -> None:
        """See :class:`Memory`."""
        to.copy_(source)

    def synchronize(self) -> None:
        """See :class:`Memory`."""
        if self.device.type == "cuda":
            self.torch.cuda.synchronize(self.device)


class CupyMemory:
    """Buffers are CuPy's uint8 arrays."""

    def __init__(self, index: int = 0) -> None:
        import cupy

        self.cupy = cupy
        self.index: int | None = index
        self.device = cupy.cuda.Device(index)

    def upload(self, array: Array) -> Any:
        """See :class:`Memory`."""
        with self.device:
            return self.cupy.array(array)

    def download(self, buffer: Any) -> Array:
        """See :class:`Memory`."""
        with self.device:
            copied: Array = self.cupy.asnumpy(buffer)
            return copied

    def address(self, buffer: Any) -> int:
        """See :class:`Memory`."""
        return int(buffer.data.ptr)

    def assign(self, to: Any, source: Any) -> None:
        """See :class:`Memory`."""
        with self.device:
            to[...] = source

    def synchronize(self) -> None:
        """See :class:`Memory`."""
        with self.device:
            self.device.synchronize()


ON_GPU: dict[str, type[TorchMemory] | type[CupyMemory]] = {"triton": TorchMemory, "cupy": CupyMemory}
"""By driver for GPUs."""


def memory_of(driver: str) -> Memory:
    """The memory for a driver that can run here, on the first device if there are several."""
    return HostMemory() if DRIVERS[driver].load().DEVICE == "cpu" else ON_GPU[driver]()


class PlacedTensors:
    """A copy of host tensors in another memory, guard bands and alignment included."""

    def __init__(self, host: Tensors, memory: Memory) -> None:
        self.host = host
        self.memory = memory
        self.buffers = [{name: memory.upload(buffer) for name, buffer in buffers.items()} for buffers in host.buffers]
        memory.synchronize()

    def addresses(self) -> list[list[int]]:
        """Per tensor the address of every plane, 0 where a slot is absent."""
        return self.host.addresses(lambda tensor, name: self.memory.address(self.buffers[tensor][name]))

    def table(self, tile: int, hyper_rows: Sequence[int] | Array | None = None) -> Table:
        """All tensors as one table."""
        host, device = self.host, self.memory.index
        return Table(host.variant, tile, host.numels, self.addresses(), hyper_rows, device, host.whereabouts)

    def single_tables(self, tile: int, hyper_rows: Sequence[int] | Array) -> list[Table]:
        """A table for each tensor."""
        variant, device = self.host.variant, self.memory.index
        each = zip(self.host.numels, self.addresses(), hyper_rows, self.host.whereabouts, strict=True)
        return [
            Table(variant, tile, [numel], [addresses], [row], device, [whereabouts])
            for numel, addresses, row, whereabouts in each
        ]

    def refresh(self, name: str) -> None:
        """Takes one plane of the host tensors again, in place."""
        for buffers, source in zip(self.buffers, self.host.buffers, strict=True):
            self.memory.assign(buffers[name], self.memory.upload(source[name]))
        self.memory.synchronize()

    def download(self) -> Tensors:
        """All of it as host tensors."""
        self.memory.synchronize()
        twin = self.host.copy()
        twin.buffers = [
            {name: self.memory.download(buffer) for name, buffer in buffers.items()} for buffers in self.buffers
        ]
        return twin
