"""The memory of a GPU, as PyTorch and as CuPy hand it out, and tensors for a variant in it."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol

import numpy as np

from gpuopt.kernels.table import Table
from kit.tensors import Array, Tensors

CYCLES = 1_000_000_000
"""What a slow kernel spins for: about half a second."""


class Memory(Protocol):
    """Buffers are one-dimensional arrays of bytes, and slices of them are views."""

    index: int

    def upload(self, array: Array) -> Any:
        """A new buffer with the bytes of ``array``."""

    def download(self, buffer: Any) -> Array:
        """The bytes of ``buffer``."""

    def zeros(self, size: int) -> Any:
        """A new buffer of ``size`` zeros."""

    def address(self, buffer: Any) -> int:
        """Where the buffer starts."""

    def assign(self, to: Any, source: Any) -> None:
        """Copies within the device, on the current stream."""

    def spin(self, cycles: int = CYCLES) -> None:
        """Keeps the current stream busy with one kernel."""

    def stream(self) -> Any:
        """A new stream that does not wait for the default stream."""

    def handle(self, stream: Any) -> int:
        """The stream's ``cudaStream_t``."""

    def on(self, stream: Any) -> AbstractContextManager[Any]:
        """Makes a stream the current one."""

    def busy(self, stream: Any) -> bool:
        """Whether work is pending on a stream."""

    def synchronize(self) -> None:
        """Waits for the device."""

    def free(self) -> int:
        """Bytes that are free once unused buffers are given back, which this does."""


class TorchMemory:
    """Buffers are uint8 tensors. Device ``"cpu"`` lets all but the streams be tried without a GPU."""

    def __init__(self, index: int = 0, kind: str = "cuda") -> None:
        import torch

        self.torch = torch
        self.index = index
        self.device = torch.device(kind, index) if kind == "cuda" else torch.device(kind)

    def upload(self, array: Array) -> Any:
        return self.torch.from_numpy(array.copy()).to(self.device)

    def download(self, buffer: Any) -> Array:
        return buffer.cpu().numpy()

    def zeros(self, size: int) -> Any:
        return self.torch.zeros(size, dtype=self.torch.uint8, device=self.device)

    def address(self, buffer: Any) -> int:
        return int(buffer.data_ptr())

    def assign(self, to: Any, source: Any) -> None:
        to.copy_(source)

    def spin(self, cycles: int = CYCLES) -> None:
        self.torch.cuda._sleep(cycles)

    def stream(self) -> Any:
        return self.torch.cuda.Stream(self.device)

    def handle(self, stream: Any) -> int:
        return int(stream.cuda_stream)

    def on(self, stream: Any) -> AbstractContextManager[Any]:
        return self.torch.cuda.stream(stream)

    def busy(self, stream: Any) -> bool:
        return not stream.query()

    def synchronize(self) -> None:
        if self.device.type == "cuda":
            self.torch.cuda.synchronize(self.device)

    def free(self) -> int:
        self.torch.cuda.empty_cache()
        return int(self.torch.cuda.mem_get_info(self.device)[0])


class CupyMemory:
    """Buffers are uint8 arrays."""

    def __init__(self, index: int = 0) -> None:
        import cupy

        self.cupy = cupy
        self.index = index
        self.device = cupy.cuda.Device(index)
        self._spin = cupy.RawKernel(
            'extern "C" __global__ void spin(long long cycles) {'
            "const long long end = clock64() + cycles; while (clock64() < end) {} }",
            "spin",
        )

    def upload(self, array: Array) -> Any:
        with self.device:
            return self.cupy.array(array)

    def download(self, buffer: Any) -> Array:
        with self.device:
            return self.cupy.asnumpy(buffer)

    def zeros(self, size: int) -> Any:
        with self.device:
            return self.cupy.zeros(size, np.uint8)

    def address(self, buffer: Any) -> int:
        return int(buffer.data.ptr)

    def assign(self, to: Any, source: Any) -> None:
        with self.device:
            to[...] = source

    def spin(self, cycles: int = CYCLES) -> None:
        with self.device:
            self._spin((1,), (1,), (np.int64(cycles),))

    def stream(self) -> Any:
        with self.device:
            return self.cupy.cuda.Stream(non_blocking=True)

    def handle(self, stream: Any) -> int:
        return int(stream.ptr)

    def on(self, stream: Any) -> AbstractContextManager[Any]:
        return stream

    def busy(self, stream: Any) -> bool:
        return not stream.done

    def synchronize(self) -> None:
        with self.device:
            self.device.synchronize()

    def free(self) -> int:
        with self.device:
            self.cupy.get_default_memory_pool().free_all_blocks()
            return int(self.cupy.cuda.runtime.memGetInfo()[0])


MEMORIES = {"triton": TorchMemory, "cupy": CupyMemory}
"""By driver: the memory that its users have."""


class DeviceTensors:
    """A copy of host tensors on a device, guard bands and alignment included."""

    def __init__(self, host: Tensors, memory: Memory) -> None:
        self.host = host
        self.memory = memory
        self.buffers = [{slot: memory.upload(buffer) for slot, buffer in buffers.items()} for buffers in host.buffers]
        memory.synchronize()

    def addresses(self) -> list[list[int]]:
        """Per tensor the address of every slot, 0 where it is absent."""
        return [
            [self.memory.address(buffers[slot]) + front[slot] if slot in buffers else 0 for slot in self.slots]
            for buffers, front in zip(self.buffers, self.host.fronts, strict=True)
        ]

    @property
    def slots(self) -> tuple[str, ...]:
        """Every slot of the variant."""
        return self.host.variant.slots

    def table(self, tile: int, hyper_rows: Sequence[int] | None = None) -> Table:
        """All tensors as one table."""
        host = self.host
        return Table(host.variant, tile, host.numels, self.addresses(), hyper_rows, device=self.memory.index)

    def single_tables(self, tile: int, hyper_rows: Sequence[int]) -> list[Table]:
        """A table for each tensor."""
        variant, device = self.host.variant, self.memory.index
        return [
            Table(variant, tile, [numel], [addresses], [row], device=device)
            for numel, addresses, row in zip(self.host.numels, self.addresses(), hyper_rows, strict=True)
        ]

    def reallocate(self, slot: str) -> list[int]:
        """Takes one slot of the host tensors into new buffers while the old are kept; their addresses."""
        self.kept = [buffers[slot] for buffers in self.buffers]
        for buffers, source in zip(self.buffers, self.host.buffers, strict=True):
            buffers[slot] = self.memory.upload(source[slot])
        self.memory.synchronize()
        column = self.slots.index(slot)
        return [addresses[column] for addresses in self.addresses()]

    def refresh(self, slot: str, stream: Any = None) -> None:
        """Takes one slot of the host tensors again, in place; on a stream, behind what is queued there."""
        fresh = [self.memory.upload(source[slot]) for source in self.host.buffers]
        self.memory.synchronize()
        with nullcontext() if stream is None else self.memory.on(stream):
            if stream is not None:
                self.memory.spin()
            for buffers, source in zip(self.buffers, fresh, strict=True):
                self.memory.assign(buffers[slot], source)
        if stream is None:
            self.memory.synchronize()
        self.kept = fresh

    def download(self) -> Tensors:
        """All of it as host tensors."""
        self.memory.synchronize()
        twin = self.host.copy()
        twin.buffers = [
            {slot: self.memory.download(buffer) for slot, buffer in buffers.items()} for buffers in self.buffers
        ]
        return twin
