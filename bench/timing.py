"""Times contenders for one job in turns, so that whatever else the machine does meets all of them alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from gpuopt.bench.contenders.contender import Entrant
from gpuopt.bench.meters import Meter
from gpuopt.bench.nvml import Condition

FEWEST_TURNS = 3

REST = 0.015
"""Seconds before each turn, in which threads that another contender left spinning fall asleep."""


WARM = 0.005
"""Seconds of each turn, at least, that are not timed: after a rest a core takes as long to run at full speed, which
would meet those alone whose first step is over sooner."""


@dataclass
class Timing:
    """What is seen of a contender. Times are in seconds per step.

    Attributes:
        step: Times as the host sees them, until the step is done.
        device: Times on the GPU; empty for a CPU.
        call: Times until the call of a step returns, on a GPU that is busy; empty for a CPU.
        discarded: Samples that were thrown away, since the GPU was throttled.
        unwatched: Samples of which it is not known whether it was.
        not_queued: Samples without a time on the GPU, which had to wait for the host.
        conditions: Of the GPU before and after each sample, those thrown away among them.
        problem: Why it was not timed to the end; None when it was.
    """

    step: list[float] = field(default_factory=list)
    device: list[float] = field(default_factory=list)
    call: list[float] = field(default_factory=list)
    discarded: int = 0
    unwatched: int = 0
    not_queued: int = 0
    conditions: list[Condition] = field(default_factory=list)
    problem: str | None = None


def measure(
    entrants: Sequence[tuple[Entrant, Timing]],
    meter: Meter,
    turns: int,
    *,
    steps_per_turn: int = 2,
    seconds: float,
    rest: float = REST,
    warm: float = WARM,
    clock: Callable[[], float] = time.perf_counter,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Times entrants round-robin, and fills their timings as it goes.

    In each round every entrant has one turn: a rest, steps that are not timed, and ``steps_per_turn`` that are.
    One that raises is out from then on, and nothing of it is kept.

    Args:
        entrants: Set up, warmed up, and right.
        meter: Takes the samples.
        turns: Turns of each entrant.
        steps_per_turn: Timed steps in a turn.
        seconds: No round but the first few begins later than this.
        rest: Seconds before each turn.
        warm: Seconds that the steps which are not timed take at least; there is always one.
        clock: Gives the time in seconds.
        sleep: Waits for some seconds.
    """
    end = clock() + seconds
    for count in range(turns):
        if count >= FEWEST_TURNS and clock() > end:
            break
        for entrant, timing in entrants:
            if timing.problem is None:
                sleep(rest)
                try:
                    _warm_up(entrant, meter, warm, clock)
                    _turn(entrant, timing, meter, steps_per_turn)
                except Exception as error:  # noqa: BLE001 (whatever it is, the others are to be timed)
                    vars(timing).update(vars(Timing(problem=first_line(error))))


def _warm_up(entrant: Entrant, meter: Meter, seconds: float, clock: Callable[[], float]) -> None:
    end = clock() + seconds
    meter.once(entrant)
    while clock() < end:
        meter.once(entrant)


def _turn(entrant: Entrant, timing: Timing, meter: Meter, steps: int) -> None:
    for _ in range(steps):
        sample = meter.sample(entrant)
        timing.conditions += sample.conditions
        throttled = [condition.throttled for condition in sample.conditions]
        if True in throttled:
            timing.discarded += 1
            continue
        timing.unwatched += None in throttled
        timing.step.append(sample.step)
        if sample.call is not None:
            timing.call.append(sample.call)
        if sample.device is not None:
            timing.device.append(sample.device)
        elif sample.conditions:
            timing.not_queued += 1


def first_line(error: BaseException) -> str:
    """The kind of an error and the first line of what it says."""
    said = str(error).strip().splitlines()
    return f"{type(error).__name__}: {said[0]}" if said else type(error).__name__
