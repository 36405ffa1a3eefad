"""What a run of the benchmarks found, as data and as JSON."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from gpuopt.bench.classifier import Run
from gpuopt.bench.goals import GOALS, Goal, Verdict, judge
from gpuopt.bench.speed import Workload
from gpuopt.bench.timing import Timing
from gpuopt.bench.train import agreement

SCHEMA = 1
"""Version of the JSON's layout; counts up whenever a reader would have to change."""

TRAINING_NOTE = (
    "Gradients are computed on the host, by the same code for every driver, and copied to the driver's memory: "
    "what is compared is the optimizer alone. Time is that of update() with four small arrays, 4,810 elements."
)

SPEED_NOTE = (
    "Contenders take turns in one process, each on all cores. gpuopt steps through update() of gpuopt.arrays, given "
    "the same arrays each time, or for PyTorch through step(), as torch.optim does. Before it is timed, every "
    "contender's parameters are compared with the NumPy driver's: gpuopt's must be the same bits, except where they "
    "are clipped, the others' close. Time is the median."
)


@dataclass
class Results:
    """What has been found so far.

    Attributes:
        scale: ``"full"`` or ``"quick"``.
        machine: From :func:`gpuopt.machine.describe`.
        drivers: For each driver None if it ran, else why it did not.
        runs: Trainings.
        speed: Workloads with the timings of their contenders.
        complete: Whether nothing is missing.
        seconds: How long it took.
        others_load: Share of the CPU's time that other processes took meanwhile; None where it is not known.
    """

    scale: str
    machine: dict[str, Any]
    drivers: dict[str, str | None]
    runs: list[Run] = field(default_factory=list)
    speed: list[tuple[Workload, list[Timing]]] = field(default_factory=list)
    complete: bool = False
    seconds: float = 0.0
    others_load: float | None = None

    def verdicts(self) -> list[Verdict]:
        """What the timings say about each goal whose workload was run."""
        timings = {workload.key: timings for workload, timings in self.speed}
        return [judge(goal, timings[goal.workload]) for goal in GOALS if goal.workload in timings]

    def binding(self, goal: Goal) -> bool:
        """Whether the goal was set for runs like this one: the full sizes, on as many cores."""
        return self.scale == "full" and self.machine["cores"] == goal.cores

    def faults(self) -> list[str]:
        """What is wrong, a sentence each: drivers that differ, contenders with a wrong outcome."""
        differ = [
            f"the drivers' parameters differ after training with {name}"
            for name, same in agreement(self.runs).items()
            if same is False
        ]
        wrong = [
            f"{workload.title}: {timing.name} is {timing.problem}"
            for workload, timings in self.speed
            for timing in timings
            if timing.problem is not None and timing.problem.startswith("wrong")
        ]
        return differ + wrong

    def as_dict(self) -> dict[str, Any]:
        """All of it, as JSON holds it. Times are in seconds."""
        return {
            "schema": SCHEMA,
            "scale": self.scale,
            "complete": self.complete,
            "seconds": round(self.seconds, 1),
            "others_load": self.others_load,
            "machine": self.machine,
            "drivers": self.drivers,
            "training": {
                "note": TRAINING_NOTE,
                "bit_identical": agreement(self.runs),
                "runs": [_run(run) for run in self.runs],
            },
            "speed": {
                "note": SPEED_NOTE,
                "workloads": [
                    {
                        "key": workload.key,
                        "title": workload.title,
                        "optimizer": workload.optimizer,
                        "tensors": workload.tensors,
                        "numel": workload.numel,
                        "least_bytes": workload.least_bytes,
                        "contenders": [{**_timing(timing), "ratios": ratios(timing, timings)} for timing in timings],
                    }
                    for workload, timings in self.speed
                ],
            },
            "goals": [
                {
                    **asdict(verdict.goal),
                    "against": verdict.against,
                    "ratio": verdict.ratio,
                    "met": verdict.met,
                    "binding": self.binding(verdict.goal),
                    "why": verdict.why,
                }
                for verdict in self.verdicts()
            ],
            "faults": self.faults(),
        }

    def write(self, path: Path) -> None:
        """As JSON, in one go: an older file stays as it was until this one is whole."""
        part = path.with_name(path.name + ".part")
        part.write_text(json.dumps(self.as_dict(), indent=1, allow_nan=False) + "\n")
        part.replace(path)


def ratios(timing: Timing, timings: list[Timing]) -> dict[str, float]:
    """How many times faster than ``timing`` each of gpuopt's drivers for the same memory is."""
    if timing.median is None:
        return {}
    return {
        other.name: timing.median / other.median
        for other in timings
        if other.name.startswith("gpuopt ") and other.device == timing.device and other.median is not None
    }


def spread(samples: tuple[float, ...]) -> dict[str, Any]:
    """Number of samples, their median, and the two tenths at the ends."""
    if not samples:
        return {"n": 0, "median": None, "p10": None, "p90": None}
    p10, median, p90 = (float(value) for value in np.percentile(samples, (10, 50, 90)))
    return {"n": len(samples), "median": median, "p10": p10, "p90": p90}


def _run(run: Run) -> dict[str, Any]:
    return {**asdict(run), "seconds": spread(run.seconds)}


def _timing(timing: Timing) -> dict[str, Any]:
    return {"name": timing.name, "device": timing.device, **spread(timing.samples), "problem": timing.problem}
