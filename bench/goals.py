"""What the benchmark must show on any CPU, as data, and whether it did."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import hypot
from typing import Any

from gpuopt.bench.noise import noise
from gpuopt.bench.results import Row
from gpuopt.machine import Copy

SHARE = 0.95
"""Of what the bytes that are moved allow, this much is to be had."""

OF_A_COPY = 1.5
"""The memory's rate over that of a copy, which also reads what it overwrites: 12 bytes for the 8 that it counts."""


@dataclass(frozen=True)
class Goal:
    """One contender is to be so many times faster than another on one workload, both timed in one run on a CPU.

    Attributes:
        workload: Key of a workload.
        ours: Name of the contender that is to be fast.
        theirs: Names of the contenders to compare with; the fastest of them counts.
        at_least: How many times faster, where it is calls that take the time; None where memory does: then it is
            ``SHARE`` of the bytes that they move over those that ours does.
    """

    workload: str
    ours: str
    theirs: tuple[str, ...]
    at_least: float | None = None


FUSED, LOOPS, NAIVE = ("torch fused",), ("torch for-loop", "torch foreach"), ("naive NumPy",)

GOALS = (
    Goal("arrays/adam/one-20m/fp32", "gpuopt numba", FUSED),
    Goal("arrays/rmsprop/one-20m/fp32", "gpuopt numba", LOOPS),
    Goal("adam/200x100000/fp32", "gpuopt numba", FUSED),
    Goal("rmsprop/200x100000/fp32", "gpuopt numba", LOOPS),
    Goal("adamw/200x100000/fp32/clip-ema", "gpuopt numba", (*FUSED, *LOOPS)),
    Goal("arrays/adam/1000x64/fp32", "gpuopt numba", FUSED, 7),
    Goal("adam/1000x64/fp32", "gpuopt numba", FUSED, 4),
    Goal("adam/1000x64/fp32/new-grads", "gpuopt numba", FUSED, 3),
    Goal("adam/experts-64x4x256/fp32/1-of-8", "gpuopt numba", FUSED, 1),
    Goal("rmsprop/1000x64/fp32", "gpuopt numba", LOOPS, 7),
    Goal("adamw/300x64/fp32/sharded", "gpuopt numba", FUSED, 4),
    Goal("adam/one-10/fp32", "gpuopt numba", FUSED, 0.33),
    Goal("arrays/adam/one-20m/fp32", "gpuopt numpy", NAIVE, 2),
    Goal("arrays/rmsprop/one-20m/fp32", "gpuopt numpy", NAIVE, 2),
)
"""Those of calls are half or more of what an AMD EPYC and an Intel Xeon showed: busy machines slow short steps most."""


@dataclass(frozen=True)
class Verdict:
    """What a run says about a goal.

    Attributes:
        at_least: How many times faster ours was to be; None where the run does not say.
        against: The fastest of the goal's ``theirs``; None where none was timed.
        ratio: How many times faster ours was; None where either was not timed.
        cached: Where caches help ``against``, the time that it took over the least that memory would have taken for its
            bytes, which counts in its place; else None.
        off: How far the ratio can be off by chance, either way; None where there is none, or too few samples.
        why: Why there is no ratio.
    """

    at_least: float | None = None
    against: str | None = None
    ratio: float | None = None
    cached: float | None = None
    off: float | None = None
    why: str | None = None

    @property
    def met(self) -> bool | None:
        """Whether the goal is met; None when the run does not say."""
        return None if self.ratio is None or self.at_least is None else self.ratio >= self.at_least

    @property
    def close(self) -> bool:
        """Whether another run could say otherwise about the goal by chance alone."""
        if self.ratio is None or self.at_least is None:
            return False
        return self.off is None or abs(self.ratio - self.at_least) <= self.off


def judge(goal: Goal, rows: Mapping[str, Row], copy: Copy) -> Verdict:
    """What the rows of the goal's workload, by contender, say of the times that the host sees.

    Args:
        goal: What is to be seen.
        rows: What was.
        copy: Of the same run. It tells the memory's rate by its fastest tenth, which others on the machine have slowed
            down least, unless ours moves its bytes faster. No rival that moves more counts as faster than that.
    """
    spreads = {name: row.step for name, row in rows.items() if row.step is not None}
    for names in ((goal.ours,), goal.theirs):
        if not set(names) & set(spreads):
            row = rows.get(names[0])
            return Verdict(goal.at_least, why=f"{names[0]}: {(row and row.why) or 'not run'}")
    timed = [name for name in goal.theirs if name in spreads]
    against = min(timed, key=lambda name: spreads[name]["median"])
    ours, theirs, at_least = spreads[goal.ours], spreads[against], goal.at_least
    counted, cached = theirs["median"], None
    if at_least is None:
        our_bytes, their_bytes = rows[goal.ours].moved, rows[against].moved
        if our_bytes is None or their_bytes is None:
            return Verdict(why="what they move was not counted")
        at_least = SHARE * their_bytes / our_bytes
        rate = max(OF_A_COPY * copy["bytes"] / copy["seconds"]["p10"], our_bytes / ours["p10"])
        least = their_bytes / rate
        if their_bytes > our_bytes and least - counted > (noise(theirs) or 0):
            cached, counted, theirs = counted / least, least, copy["seconds"]
    ratio = counted / ours["median"]
    one, other = noise(theirs), noise(ours)
    off = None if one is None or other is None else ratio * hypot(one / theirs["median"], other / ours["median"])
    return Verdict(at_least, against, ratio, cached, off)


def asked(goal: Mapping[str, Any]) -> str:
    """What a goal, as JSON holds it, asks for; nothing where the run does not say."""
    return "" if goal["at_least"] is None else f"{goal['at_least']:.3g}"


def seen(goal: Mapping[str, Any]) -> str:
    """The ratio of a goal, as JSON holds it, and how far it can be off where that is known."""
    return f"{goal['ratio']:.2f}" + ("" if goal["off"] is None else f" ± {goal['off']:.2f}")


def doubt(goal: Mapping[str, Any]) -> str:
    """What is to be said after a verdict that another run could change, else nothing."""
    if not goal["close"]:
        return ""
    return ", of few samples" if goal["off"] is None else ", within noise"


def helped(goal: Mapping[str, Any]) -> str | None:
    """A sentence where caches help the other, else None."""
    if goal["cached"] is None:
        return None
    return f"Caches help {goal['against']}: it takes {goal['cached']:.0%} of the time that memory would for its bytes."


def all_helped(goals: Iterable[Mapping[str, Any]], titles: Mapping[str, str]) -> list[str]:
    """These sentences, each with the title of its workload, which ``titles`` has by its key."""
    return [f"{titles[goal['workload']]}: {said}" for goal in goals if (said := helped(goal))]
