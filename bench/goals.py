"""What the benchmark must show, as data, and whether it did."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import hypot
from typing import Any

from gpuopt.bench.noise import noise
from gpuopt.bench.results import Row


@dataclass(frozen=True)
class Goal:
    """One contender is to be so many times faster than another on one workload, both timed in one run on a CPU.

    Attributes:
        workload: Key of a workload.
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
    Goal("arrays/adam/one-20m/fp32", "gpuopt numba", ("torch fused",), 0.9),
    Goal("arrays/rmsprop/one-20m/fp32", "gpuopt numba", TORCH_RMSPROP, 4.0),
    Goal("arrays/adam/1000x64/fp32", "gpuopt numba", ("torch fused",), 10.0),
    Goal("adam/200x100000/fp32", "gpuopt numba", ("torch fused",), 1.0),
    Goal("rmsprop/200x100000/fp32", "gpuopt numba", TORCH_RMSPROP, 4.0),
    Goal("adam/1000x64/fp32", "gpuopt numba", ("torch fused",), 8.0),
    Goal("adam/1000x64/fp32/new-grads", "gpuopt numba", ("torch fused",), 5.0),
    Goal("adam/experts-64x4x256/fp32/1-of-8", "gpuopt numba", ("torch fused",), 0.7),
    Goal("adam/one-10/fp32", "gpuopt numba", ("torch fused",), 0.5),
    Goal("rmsprop/1000x64/fp32", "gpuopt numba", TORCH_RMSPROP, 15.0),
    Goal("adamw/300x64/fp32/sharded", "gpuopt numba", ("torch fused",), 6.0),
    Goal("adamw/200x100000/fp32/clip-ema", "gpuopt numba", ("torch for-loop", "torch foreach", "torch fused"), 1.5),
    Goal("arrays/adam/one-20m/fp32", "gpuopt numpy", NAIVE, 2.0),
    Goal("arrays/rmsprop/one-20m/fp32", "gpuopt numpy", NAIVE, 2.0),
)


@dataclass(frozen=True)
class Verdict:
    """What a run says about a goal.

    Attributes:
        goal: The goal.
        against: The fastest of the goal's ``theirs``; None where none was timed.
        ratio: How many times faster ours was; None where either was not timed.
        off: How far the ratio can be off by chance, either way; None where there is none, or too few samples.
        why: Why there is no ratio.
    """

    goal: Goal
    against: str | None
    ratio: float | None
    off: float | None = None
    why: str | None = None

    @property
    def met(self) -> bool | None:
        """Whether the goal is met; None when the run does not say."""
        return None if self.ratio is None else self.ratio >= self.goal.at_least

    @property
    def close(self) -> bool:
        """Whether another run could say otherwise about the goal by chance alone."""
        return self.ratio is not None and (self.off is None or abs(self.ratio - self.goal.at_least) <= self.off)


def judge(goal: Goal, rows: Mapping[str, Row]) -> Verdict:
    """What the rows of the goal's workload, by contender, say of the times that the host sees."""
    times = {name: row.step for name, row in rows.items() if row.step is not None}
    theirs = [name for name in goal.theirs if name in times]
    for names in ((goal.ours,), goal.theirs):
        if not set(names) & set(times):
            row = rows.get(names[0])
            return Verdict(goal, None, None, why=f"{names[0]}: {(row and row.why) or 'not run'}")
    best = min(theirs, key=lambda name: times[name]["median"])
    ratio = times[best]["median"] / times[goal.ours]["median"]
    one, other = noise(times[best]), noise(times[goal.ours])
    if one is None or other is None:
        return Verdict(goal, best, ratio)
    return Verdict(goal, best, ratio, ratio * hypot(one / times[best]["median"], other / times[goal.ours]["median"]))


def seen(goal: Mapping[str, Any]) -> str:
    """The ratio of a goal, as JSON holds it, and how far it can be off where that is known."""
    return f"{goal['ratio']:.2f}" + ("" if goal["off"] is None else f" ± {goal['off']:.2f}")


def doubt(goal: Mapping[str, Any]) -> str:
    """What is to be said after a verdict that another run could change, else nothing."""
    if not goal["close"]:
        return ""
    return ", of few samples" if goal["off"] is None else ", within noise"
