"""What the speed runs must show, as data, and whether they did."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gpuopt.bench.timing import Timing


@dataclass(frozen=True)
class Goal:
    """One contender is to be so many times faster than another on one workload, both timed in one run.

    Attributes:
        workload: Key of a workload in :mod:`gpuopt.bench.speed`.
        ours: Name of the contender that is to be fast.
        theirs: Names of the contenders to compare with; the fastest of them counts.
        at_least: How many times faster.
        cores: Number of CPU cores that the goal was set for.
    """

    workload: str
    ours: str
    theirs: tuple[str, ...]
    at_least: float
    cores: int = 2


NAIVE = ("naive NumPy",)
TORCH_RMSPROP = ("torch for-loop", "torch foreach")

GOALS = (
    Goal("adam-large", "gpuopt numba", ("torch fused",), 0.9),
    Goal("rmsprop-large", "gpuopt numba", TORCH_RMSPROP, 4.0),
    Goal("adam-many", "gpuopt numba", ("torch fused",), 10.0),
    Goal("torch-adam-large", "gpuopt numba", ("torch fused",), 0.9),
    Goal("torch-rmsprop-large", "gpuopt numba", TORCH_RMSPROP, 4.0),
    Goal("torch-adam-many", "gpuopt numba", ("torch fused",), 10.0),
    Goal("torch-rmsprop-many", "gpuopt numba", TORCH_RMSPROP, 15.0),
    Goal("torch-tail-large", "gpuopt numba", ("torch for-loop", "torch foreach", "torch fused"), 1.5),
    Goal("adam-large", "gpuopt numpy", NAIVE, 2.0),
    Goal("rmsprop-large", "gpuopt numpy", NAIVE, 2.0),
)


@dataclass(frozen=True)
class Verdict:
    """What a run says about a goal.

    Attributes:
        goal: The goal.
        against: The fastest of the goal's ``theirs``; None where none was timed.
        ratio: How many times faster ours was; None where either was not timed or was wrong.
        why: Why there is no ratio.
    """

    goal: Goal
    against: str | None
    ratio: float | None
    why: str | None = None

    @property
    def met(self) -> bool | None:
        """Whether the goal is met; None when the run does not say."""
        return None if self.ratio is None else self.ratio >= self.goal.at_least


def judge(goal: Goal, timings: Sequence[Timing]) -> Verdict:
    """What the timings of the goal's workload say."""
    ranked = {timing.name: timing for timing in timings if timing.median is not None}
    theirs = [ranked[name] for name in goal.theirs if name in ranked]
    ours = ranked.get(goal.ours)
    if ours is None or ours.median is None:
        return Verdict(goal, None, None, f"{goal.ours}: {_why_not(goal.ours, timings)}")
    if not theirs:
        name = goal.theirs[0]
        return Verdict(goal, None, None, f"{name}: {_why_not(name, timings)}")
    best = min(theirs, key=lambda timing: timing.median or 0.0)
    assert best.median is not None
    return Verdict(goal, best.name, best.median / ours.median)


def _why_not(name: str, timings: Sequence[Timing]) -> str:
    return next((timing.problem for timing in timings if timing.name == name and timing.problem), "not run")
