"""How fast the memory copies: what a step, which does nothing but move memory, can be compared with."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from typing import Any, TypedDict

import numpy as np

from gpuopt.kernels.drivers import DRIVERS
from gpuopt.machine.host import cores, memory

SIZE = {"cpu": 1 << 28, "cuda": 1 << 30}
"""Bytes that are copied: many times what caches hold."""

REPETITIONS = 15

Timed = Callable[[], float]
"""Copies once and returns the seconds that it took."""


class Spread(TypedDict):
    """How samples spread: their number, median, and tenths at both ends."""

    n: int
    median: float
    p10: float
    p90: float


class Copy(TypedDict):
    """A copy of one tensor. ``bytes`` counts those read and those written."""

    bytes: int
    seconds: Spread
    gb_per_s: float


def spread(samples: Sequence[float]) -> Spread:
    """The spread of at least one sample."""
    p10, median, p90 = (float(value) for value in np.quantile(samples, (0.1, 0.5, 0.9)))
    return {"n": len(samples), "median": median, "p10": p10, "p90": p90}


def copy_rate(device: str = "cpu", size: int | None = None, repetitions: int = REPETITIONS) -> Copy:
    """Copies one large tensor several times.

    On a CPU PyTorch copies where it is installed, else NumPy in one thread per core; on a GPU PyTorch or else CuPy,
    timed by events.

    Args:
        device: ``"cpu"`` or ``"cuda"``.
        size: Bytes of the tensor; None for many times what caches hold, but an eighth of the memory at most.
        repetitions: Timed copies, after two that are not.

    Raises:
        ValueError: ``device`` is another, or ``size`` or ``repetitions`` is less than 1.
        RuntimeError: There is no GPU, or nothing that could copy on it.
    """
    if device not in SIZE:
        raise ValueError(f"device must be one of {', '.join(SIZE)}, but is {device!r}")
    if repetitions < 1 or (size is not None and size < 1):
        raise ValueError(f"size and repetitions must be at least 1, but are {size} and {repetitions}")
    copy, copied = (_on_cpu if device == "cpu" else _on_gpu)(size)
    for _ in range(2):
        copy()
    seconds = spread([copy() for _ in range(repetitions)])
    return {"bytes": 2 * copied, "seconds": seconds, "gb_per_s": 2 * copied / seconds["median"] / 1e9}


def _on_cpu(size: int | None) -> tuple[Timed, int]:
    if size is None:
        size = min(SIZE["cpu"], (memory() or 8 * SIZE["cpu"]) // 8)
    if find_spec("torch") is not None:
        import torch

        numel = -(-size // 4)
        source, to = torch.ones(numel), torch.zeros(numel)
        return _clocked(lambda: to.copy_(source)), 4 * numel
    threads = cores()
    parts = [np.array_split(array, threads) for array in (np.zeros(size, np.uint8), np.ones(size, np.uint8))]
    pool = ThreadPoolExecutor(threads)
    return _clocked(lambda: list(pool.map(np.copyto, *parts))), size


def _clocked(copy: Callable[[], object]) -> Timed:
    def timed() -> float:
        before = time.perf_counter()
        copy()
        return time.perf_counter() - before

    return timed


def _on_gpu(size: int | None) -> tuple[Timed, int]:
    if find_spec("torch") is not None:
        import torch

        if torch.cuda.is_available():
            return _by_torch(size)
    if DRIVERS["cupy"].unavailable() is None:
        return _by_cupy(size)
    raise RuntimeError("neither PyTorch nor CuPy sees a GPU here that it could copy on")


def _by_torch(size: int | None) -> tuple[Timed, int]:
    import torch

    numel = -(-_fitting(size, torch.cuda.mem_get_info()[0]) // 4)
    source, to = (torch.ones(numel, device="cuda") for _ in range(2))
    event: Any = torch.cuda.Event
    begin, end = event(enable_timing=True), event(enable_timing=True)

    def timed() -> float:
        begin.record()
        to.copy_(source)
        end.record()
        end.synchronize()
        return float(begin.elapsed_time(end)) / 1e3

    return timed, 4 * numel


def _by_cupy(size: int | None) -> tuple[Timed, int]:
    import cupy

    size = _fitting(size, cupy.cuda.runtime.memGetInfo()[0])
    source, to = (cupy.ones(size, cupy.uint8) for _ in range(2))
    begin, end = cupy.cuda.Event(), cupy.cuda.Event()

    def timed() -> float:
        begin.record()
        cupy.copyto(to, source)
        end.record()
        end.synchronize()
        return float(cupy.cuda.get_elapsed_time(begin, end)) / 1e3

    return timed, size


def _fitting(size: int | None, free: int) -> int:
    return size if size is not None else min(SIZE["cuda"], free // 8)
