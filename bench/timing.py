"""Times contenders for one job in turns, so that whatever else the machine does meets all of them alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import inf

import numpy as np

FEWEST_ROUNDS = 3


def nothing() -> None:
    """What a contender waits for that is done when its call returns."""


@dataclass
class Contender:
    """One way to do the job.

    Attributes:
        name: What tables call it.
        step: Does the job once.
        check: Says what is wrong with the outcome so far; None when nothing is. Asked once, before any timing.
        wait: Returns when all steps are done.
        device: The memory that it works in, ``"cpu"`` or ``"cuda"``.
    """

    name: str
    step: Callable[[], None]
    check: Callable[[], str | None] = field(default=lambda: None)
    wait: Callable[[], None] = nothing
    device: str = "cpu"


@dataclass(frozen=True)
class Timing:
    """What was seen of a contender. Times are in seconds per step.

    Attributes:
        name: The contender's.
        samples: One time per timed step.
        problem: Why it was not timed; None when it was.
        device: The memory that it works in.
    """

    name: str
    samples: tuple[float, ...] = ()
    problem: str | None = None
    device: str = "cpu"

    @property
    def median(self) -> float | None:
        """The middle of all samples."""
        return self.percentile(50)

    def percentile(self, share: float) -> float | None:
        """The time that ``share`` percent of the steps stayed within; None without samples."""
        return float(np.percentile(self.samples, share)) if self.samples else None


def measure(
    contenders: Sequence[Contender],
    rounds: int,
    *,
    steps_per_turn: int = 2,
    rest: float = 0.0,
    seconds: float = inf,
    clock: Callable[[], float] = time.perf_counter,
    sleep: Callable[[float], None] = time.sleep,
    advance: Callable[[], None] = nothing,
) -> list[Timing]:
    """Checks every contender, then times those that are right, round-robin.

    In each round every contender has one turn: a rest, in which threads that another one left spinning fall asleep,
    one step that is not timed, and ``steps_per_turn`` that are.

    Args:
        contenders: Set up and warmed up: each has done some steps, the same number each.
        rounds: Turns of each contender.
        steps_per_turn: Timed steps in a turn.
        rest: Seconds before each turn.
        seconds: No round but the first few begins later than this; it cuts a run short on a busy machine.
        clock: Gives the time in seconds.
        sleep: Waits for some seconds.
        advance: Called after each round.

    Returns:
        One timing per contender, in their order. A contender whose check finds fault is not timed.
    """
    problems = [contender.check() for contender in contenders]
    samples: list[list[float]] = [[] for _ in contenders]
    end = clock() + seconds
    for count in range(rounds):
        if count >= FEWEST_ROUNDS and clock() > end:
            break
        for contender, problem, taken in zip(contenders, problems, samples, strict=True):
            if problem is not None:
                continue
            sleep(rest)
            contender.step()
            contender.wait()
            for _ in range(steps_per_turn):
                before = clock()
                contender.step()
                contender.wait()
                taken.append(clock() - before)
        advance()
    return [
        Timing(contender.name, tuple(taken), problem, contender.device)
        for contender, problem, taken in zip(contenders, problems, samples, strict=True)
    ]
