"""The whole run: every training, then every workload, with results kept as they come."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from gpuopt import backends, machine
from gpuopt.bench import speed
from gpuopt.bench.results import Results
from gpuopt.bench.speed import Workload
from gpuopt.bench.train import optimizers, train_all


@dataclass(frozen=True)
class Scale:
    """How much is done.

    Attributes:
        name: ``"full"``, ``"quick"`` or another.
        steps: Of each training.
        small: Elements of the small workloads.
        large: Elements of the large workloads.
        tensors: Tensors of the workload of many.
        rounds: Turns of each contender on the small, the large and the many.
    """

    name: str
    steps: int
    small: int
    large: int
    tensors: int
    rounds: tuple[int, int, int]

    def workloads(self) -> list[Workload]:
        """What contenders are timed on. Goals refer to the keys."""
        few, least, many = self.rounds
        return [
            Workload("adam-small", "Adam", 1, self.small, few),
            Workload("rmsprop-small", "RMSProp", 1, self.small, few),
            Workload("adam-large", "Adam", 1, self.large, least),
            Workload("rmsprop-large", "RMSProp", 1, self.large, least),
            Workload("adam-many", "Adam", self.tensors, 64, many),
            Workload("torch-adam-large", "Adam", 200, self.large // 200, least, contest="step"),
            Workload("torch-rmsprop-large", "RMSProp", 200, self.large // 200, least, contest="step"),
            Workload("torch-adam-many", "Adam", self.tensors, 64, many, contest="step"),
            Workload("torch-rmsprop-many", "RMSProp", self.tensors, 64, many, contest="step"),
            Workload("torch-tail-large", "AdamW", 200, self.large // 200, least, contest="tail"),
        ]


FULL = Scale("full", steps=300, small=1_000_000, large=20_000_000, tensors=1000, rounds=(30, 10, 30))
QUICK = Scale("quick", steps=60, small=100_000, large=2_000_000, tensors=100, rounds=(10, 5, 10))


@dataclass(frozen=True)
class Watcher:
    """Who is told how the run goes on.

    Attributes:
        begin: Gets what is done now.
        advance: Called when one of :func:`parts` is done.
    """

    begin: Callable[[str], None] = lambda what: None
    advance: Callable[[], None] = lambda: None


def empty(scale: Scale) -> Results:
    """Results of a run that has not begun."""
    return Results(scale.name, {**machine.describe()}, backends.available())


def parts(scale: Scale, results: Results) -> int:
    """Number of trainings and rounds, of those that ``results`` says can be run."""
    return len(_running(results)) * len(optimizers()) + sum(workload.rounds for workload in scale.workloads())


def run(scale: Scale, results: Results, watcher: Watcher) -> None:
    """Fills ``results``, which are right, if not complete, whenever this is interrupted."""
    before, load = time.perf_counter(), machine.OthersLoad()
    try:
        for done in train_all(_running(results), scale.steps, watcher.begin):
            results.runs.append(done)
            watcher.advance()
        for workload in scale.workloads():
            results.speed.append((workload, speed.run(workload, watcher.begin, watcher.advance)))
        results.complete = True
    finally:
        results.seconds, results.others_load = time.perf_counter() - before, load.share()


def _running(results: Results) -> list[str]:
    return [name for name, why in results.drivers.items() if why is None]
