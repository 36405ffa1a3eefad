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
        self.buffers = [{slot: memory.upload(buffer) for slot, buffer in buffers.items()} for buffers in host.buffers]
        memory.synchronize()

    @property
    def slots(self) -> tuple[str, ...]:
        """Every slot of the variant."""
        return self.host.variant.slots

    def addresses(self) -> list[list[int]]:
        """Per tensor the address of every slot, 0 where it is absent."""
        return [
            [self.memory.address(buffers[slot]) + front[slot] if slot in buffers else 0 for slot in self.slots]
            for buffers, front in zip(self.buffers, self.host.fronts, strict=True)
        ]

    def table(self, tile: int, hyper_rows: Sequence[int] | Array | None = None) -> Table:
        """All tensors as one table."""
        host = self.host
        return Table(host.variant, tile, host.numels, self.addresses(), hyper_rows, device=self.memory.index)

    def single_tables(self, tile: int, hyper_rows: Sequence[int] | Array) -> list[Table]:
        """A table for each tensor."""
        variant, device = self.host.variant, self.memory.index
        return [
            Table(variant, tile, [numel], [addresses], [row], device=device)
            for numel, addresses, row in zip(self.host.numels, self.addresses(), hyper_rows, strict=True)
        ]

    def refresh(self, slot: str) -> None:
        """Takes one slot of the host tensors again, in place."""
        for buffers, source in zip(self.buffers, self.host.buffers, strict=True):
            self.memory.assign(buffers[slot], self.memory.upload(source[slot]))
        self.memory.synchronize()

    def download(self) -> Tensors:
        """All of it as host tensors."""
        self.memory.synchronize()
        twin = self.host.copy()
        twin.buffers = [
            {slot: self.memory.download(buffer) for slot, buffer in buffers.items()} for buffers in self.buffers
        ]
        return twin
