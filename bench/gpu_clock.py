"""Times contenders on the GPU by CUDA events, in turns, with a cold cache."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch as typed_torch

HEAD_START = 2_000_000
"""Clock cycles, about a millisecond, that the GPU is kept busy before the first event: the host queues the whole step
meanwhile, so that its own time does not count."""


torch: Any = typed_torch
"""Events and much else in torch.cuda have no types."""


class Sample(NamedTuple):
    """Seconds of one step: on the GPU, and of the call on the host."""

    gpu: float
    host: float


class Step(NamedTuple):
    """One way to do the job: what tables call it, and the call that queues one step on the current stream."""

    name: str
    run: Callable[[], object]


def measure(steps: Sequence[Step], rounds: int, warm_up: int = 3) -> dict[str, list[Sample]]:
    """Samples of every step by name, taken round-robin.

    Before each sample a buffer larger than the L2 cache is written, outside the time.
    """
    flush = torch.empty(_flush_bytes(), dtype=torch.uint8, device="cuda")
    for step in steps:
        for _ in range(warm_up):
            step.run()
    torch.cuda.synchronize()
    samples: dict[str, list[Sample]] = {step.name: [] for step in steps}
    start = torch.cuda.Event(enable_timing=True)
    end = torch.cuda.Event(enable_timing=True)
    for _ in range(rounds):
        for step in steps:
            flush.zero_()
            torch.cuda._sleep(HEAD_START)
            before = time.perf_counter()
            start.record()
            step.run()
            end.record()
            host = time.perf_counter() - before
            end.synchronize()
            samples[step.name].append(Sample(start.elapsed_time(end) / 1e3, host))
    return samples


def launches(step: Step) -> dict[str, int | str]:
    """How many kernels one step launches, and how many copies and fills it makes, as the profiler sees them."""
    from torch.profiler import ProfilerActivity, profile

    torch.cuda.synchronize()
    with profile(activities=[ProfilerActivity.CUDA]) as profiler:
        step.run()
        torch.cuda.synchronize()
    names = [event.name for event in profiler.events() if event.device_type.name == "CUDA"]
    names = [name for name in names if not name.startswith("Optimizer.")]  # torch's own mark around its kernels
    if not names:
        return {"problem": "the profiler saw no kernel"}
    moved = [name for name in names if name.startswith(("Memcpy", "Memset"))]
    return {"kernels": len(names) - len(moved), "copies": len(moved)}


def _flush_bytes() -> int:
    return max(4 * int(torch.cuda.get_device_properties(0).L2_cache_size), 1 << 28)
