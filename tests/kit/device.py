"""The memory of a GPU with its streams, as PyTorch and as CuPy hand them out, and tensors for a variant in it."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Protocol

import numpy as np
import pytest

from gpuopt.bench.launches import on_device
from gpuopt.verify import memory

CYCLES = 1_000_000_000
"""What a slow kernel spins for: about half a second."""


class Memory(memory.Memory, Protocol):
    """Memory on a device that has streams."""

    def zeros(self, size: int) -> Any:
        """A new buffer of ``size`` zeros."""

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

    def free(self) -> int:
        """Bytes that are free once unused buffers are given back, which this does."""


class TorchMemory(memory.TorchMemory):
    """Device ``"cpu"`` lets all but the streams be tried without a GPU."""

    def zeros(self, size: int) -> Any:
        return self.torch.zeros(size, dtype=self.torch.uint8, device=self.device)

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

    def free(self) -> int:
        self.torch.cuda.empty_cache()
        return int(self.torch.cuda.mem_get_info(self.device)[0])


class CupyMemory(memory.CupyMemory):
    """With a kernel that PyTorch has of its own."""

    def __init__(self, index: int = 0) -> None:
        super().__init__(index)
        self._spin = self.cupy.RawKernel(
            'extern "C" __global__ void spin(long long cycles) {'
            "const long long end = clock64() + cycles; while (clock64() < end) {} }",
            "spin",
        )

    def zeros(self, size: int) -> Any:
        with self.device:
            return self.cupy.zeros(size, np.uint8)

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

    def free(self) -> int:
        with self.device:
            self.cupy.get_default_memory_pool().free_all_blocks()
            return int(self.cupy.cuda.runtime.memGetInfo()[0])


MEMORIES = {"triton": TorchMemory, "cupy": CupyMemory}
"""By driver: the memory that its users have."""


class DeviceTensors(memory.PlacedTensors):
    """Tensors that move, and that work queued on a stream changes."""

    def reallocate(self, slot: str) -> list[int]:
        """Takes one slot of the host tensors into new buffers while the old are kept; their addresses."""
        self.kept = [buffers[slot] for buffers in self.buffers]
        for buffers, source in zip(self.buffers, self.host.buffers, strict=True):
            buffers[slot] = self.memory.upload(source[slot])
        self.memory.synchronize()
        column = self.host.variant.slots.index(slot)
        return [addresses[column] for addresses in self.addresses()]

    def refresh(self, slot: str, stream: Any = None) -> None:
        """Takes one slot of the host tensors again, in place; on a stream, behind what is queued there."""
        if stream is None:
            super().refresh(slot)
            return
        self.kept = [self.memory.upload(source[slot]) for source in self.host.buffers]
        self.memory.synchronize()
        with self.memory.on(stream):
            self.memory.spin()
            for buffers, source in zip(self.buffers, self.kept, strict=True):
                self.memory.assign(buffers[slot], source)


def kernels_and_copies(run: Callable[[], object]) -> tuple[list[str], list[str]]:
    """Names of the kernels, and of the copies and fills, that ``run`` puts on the device."""
    torch = pytest.importorskip("torch")
    from torch.profiler import ProfilerActivity, profile

    torch.cuda.synchronize()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a profiler says for one that it forgets what it has seen
        with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as profiler:
            run()
            torch.cuda.synchronize()
        return on_device(profiler.events())
