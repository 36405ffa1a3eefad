"""What takes one sample of a step: on the host by its clock, on a GPU by events too, with a cold cache."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

from gpuopt.bench.contenders.contender import Entrant, nothing
from gpuopt.bench.nvml import Condition, watch

LEAST_HEAD_START, MOST_HEAD_START = 2_000_000, 4_000_000_000
"""Clock cycles, of which a GPU does some two in a nanosecond, that it is kept busy before the first event."""

CYCLES_PER_SECOND = 2e9


class Sample(NamedTuple):
    """One step, in seconds.

    Attributes:
        step: From the call until it is done, as the host sees it.
        device: On the GPU; None for a CPU, and where the GPU had to wait for the host.
        call: From the call until it returns, while the GPU is busy with something else; None for a CPU.
        conditions: Of the GPU before and after; none for a CPU.
    """

    step: float
    device: float | None = None
    call: float | None = None
    conditions: tuple[Condition, ...] = ()


class Meter(Protocol):
    """Takes samples."""

    def once(self, entrant: Entrant) -> None:
        """One step that is not timed, until it is done."""

    def sample(self, entrant: Entrant) -> Sample:
        """One sample, of as many steps as it takes."""


class HostMeter:
    """For host memory, where a step is done when its call returns."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock

    def once(self, entrant: Entrant) -> None:
        """See :class:`Meter`."""
        entrant.prepare()
        entrant.step()

    def sample(self, entrant: Entrant) -> Sample:
        """See :class:`Meter`."""
        entrant.prepare()
        before = self._clock()
        entrant.step()
        return Sample(self._clock() - before)


class CudaMeter:
    """For the first GPU: one step timed by the host, and one by events on the current stream.

    Before each of them a buffer of several times the L2 cache is read, outside the time: it takes the place of all that
    is in the cache, and leaves nothing there that the step would have to write back. Before the one that events
    time, the GPU is kept busy for longer than the host took for the other, which it queues the whole step in: its own
    time does not count, and is known by itself, with whatever it waits for. A step of more launches than the queue
    holds, about a thousand, cannot be queued whole: the GPU has begun with it before the host is done, and how long it
    took does not count.
    """

    def __init__(
        self,
        cuda: Any,
        flush: Callable[[], object],
        condition: Callable[[], Condition],
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        """A meter.

        Args:
            cuda: ``torch.cuda``.
            flush: Queues the read that takes everything out of the L2 cache.
            condition: Tells the condition of the GPU.
            clock: Gives the time in seconds.
        """
        self._cuda, self._flush, self._condition, self._clock = cuda, flush, condition, clock
        self._begin, self._end = cuda.Event(enable_timing=True), cuda.Event(enable_timing=True)

    def once(self, entrant: Entrant) -> None:
        """See :class:`Meter`."""
        entrant.prepare()
        entrant.step()
        self._cuda.synchronize()

    def sample(self, entrant: Entrant) -> Sample:
        """See :class:`Meter`."""
        entrant.prepare()
        self._flush()
        self._cuda.synchronize()
        begun = self._condition()
        before = self._clock()
        entrant.step()
        self._cuda.synchronize()
        host = self._clock() - before
        entrant.prepare()
        self._flush()
        self._cuda._sleep(int(min(max(1.5 * host * CYCLES_PER_SECOND, LEAST_HEAD_START), MOST_HEAD_START)))
        self._begin.record()
        before = self._clock()
        entrant.step()
        call = self._clock() - before
        waited = self._begin.query()
        self._end.record()
        self._end.synchronize()
        device = None if waited else self._begin.elapsed_time(self._end) / 1e3
        return Sample(host, device, call, (begun, self._condition()))


def meter_for(device: str) -> Meter:
    """The meter of a device."""
    if device == "cpu":
        return HostMeter()
    import torch

    l2: int = torch.cuda.get_device_properties(0).L2_cache_size
    buffer = torch.ones(max(4 * l2, 1 << 28) // 4, device="cuda")
    return CudaMeter(torch.cuda, buffer.sum, watch())


def waiting_for(device: str) -> Callable[[], object]:
    """What returns when all steps that were begun on a device are done."""
    if device == "cpu":
        return nothing
    import torch

    wait: Callable[[], object] = torch.cuda.synchronize
    return wait
