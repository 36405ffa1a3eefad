"""What the trainings showed, as data and as JSON: see ``bench/SCHEMA.md``."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from math import isfinite
from typing import Any

from gpuopt.bench.train.lockstep import TURN, Point, Training
from gpuopt.bench.train.tasks import Task
from gpuopt.bench.train.ways import REFERENCE
from gpuopt.machine import Machine, Spread, spread

SCHEMA = 1
"""Version of the JSON's layout; counts up whenever a reader would have to change."""

EARLY, TOLERANCE = 30, 1e-4
"""In so many first steps, losses may differ by this share from the reference's.

Later, training makes much of every rounding. In these steps contenders with another order of operations, torch's own
among them, were off by 2e-6 at most over the tasks of the benchmark, and a learning rate wrong by 1% by 6e-4 at least.
"""


@dataclass
class Contest:
    """A task and the trainings of its contenders."""

    task: Task
    trainings: list[Training] = field(default_factory=list)

    def judged(self, training: Training) -> tuple[str, str | None]:
        """The status of a training, and why it is that where it is not ``"trained"``."""
        if training.problem is not None:
            return training.problem
        early = self.deviation(training, EARLY)
        if early is not None and early > TOLERANCE:
            steps = min(EARLY, training.steps)
            return "wrong", f"its losses are up to {early:.2%} off those of {REFERENCE} within {steps} steps"
        return "trained", None

    def deviation(self, training: Training, steps: int | None = None) -> float | None:
        """Largest difference between a loss and the reference's at the same step, as a share of the latter.

        None for the reference itself, and where there is nothing to compare.

        Args:
            training: Whose losses are compared.
            steps: How many of the first are looked at; None for all.
        """
        reference = next((other for other in self.trainings if other.contender == REFERENCE), None)
        if reference is None or reference is training:
            return None
        pairs = list(zip(training.losses, reference.losses, strict=False))[:steps]
        shares = [abs(loss - theirs) / theirs for loss, theirs in pairs if isfinite(loss) and isfinite(theirs)]
        return max(shares, default=None)

    def goal_of(self, training: Training) -> Point | None:
        """The first evaluation with the goal's loss or a lower one; None where there is none, or it is not ranked."""
        if self.judged(training)[0] != "trained":
            return None
        return next((point for point in training.curve if point.loss <= self.task.goal), None)

    def missed(self, training: Training) -> str | None:
        """Why the goal was not reached; None where it was."""
        status, _ = self.judged(training)
        if status != "trained":
            return status
        if self.goal_of(training) is not None:
            return None
        if not training.curve:
            return "it was not evaluated"
        lowest = min(training.curve, key=lambda point: point.loss)
        return f"its lowest loss in {training.steps} of {self.task.recipe.steps} steps was {lowest.loss:.4f}"

    def ranked(self) -> list[Training]:
        """Those that reached the goal, the fastest first."""
        reached = [(point.seconds, training) for training in self.trainings if (point := self.goal_of(training))]
        return [training for _, training in sorted(reached, key=lambda pair: pair[0])]

    def same_bits(self) -> bool | None:
        """Whether gpuopt's drivers ended with the same bits in all parameters; None where fewer than two ended."""
        digests = [training.digest for training in self.trainings if training.ours and training.digest]
        return all(one == other for one, other in pairwise(digests)) if len(digests) > 1 else None


@dataclass
class Results:
    """What has been found so far.

    Attributes:
        scale: ``"full"`` or ``"quick"``.
        device: ``"cpu"`` or ``"cuda"``.
        command: The command line.
        machine: What it runs on.
        contests: The tasks, in order, with what was seen of them.
        broken: Sentences about tasks that broke.
        complete: Whether nothing is missing.
        seconds: How long it took.
    """

    scale: str
    device: str
    command: list[str]
    machine: Machine
    contests: list[Contest] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)
    complete: bool = False
    seconds: float = 0.0

    def give_up(self, name: str) -> None:
        """Has a task that broke no trainings that look as if they had ended, and leaves it out if it has none."""
        for contest in [each for each in self.contests if each.task.key == name]:
            for training in contest.trainings:
                if training.problem is None and training.digest is None:
                    training.problem = "broken", "the task broke"
            if not contest.trainings:
                self.contests.remove(contest)

    def faults(self) -> list[str]:
        """What is wrong, a sentence each.

        It is contenders that broke or computed something else, bits that differ, and tasks that broke.
        """
        found = []
        for contest in self.contests:
            for training in contest.trainings:
                status, why = contest.judged(training)
                if status not in ("trained", "skipped"):
                    found.append(f"{contest.task.key}: {training.contender} is {status}: {why}")
            if contest.same_bits() is False:
                found.append(f"{contest.task.key}: gpuopt's drivers ended with different bits")
        return found + self.broken

    def as_dict(self) -> dict[str, Any]:
        """All of it, as JSON holds it."""
        return {
            "schema": SCHEMA,
            "scale": self.scale,
            "complete": self.complete,
            "seconds": round(self.seconds, 1),
            "command": self.command,
            "device": self.device,
            "machine": self.machine,
            "tasks": [_contest(contest) for contest in self.contests],
            "faults": self.faults(),
        }


def times(training: Training) -> tuple[Spread, Spread, float] | None:
    """Spreads of the seconds of a step's two parts, and the optimizer's share of their medians; None before a step."""
    if not training.model_seconds or not training.optimizer_seconds:
        return None
    model, optimizer = spread(training.model_seconds), spread(training.optimizer_seconds)
    return model, optimizer, optimizer["median"] / (model["median"] + optimizer["median"])


def _contest(contest: Contest) -> dict[str, Any]:
    task = contest.task
    model = task.model()
    params = list(model.parameters())
    return {
        "key": task.key,
        "title": task.title,
        "data": {**task.facts, "unit": task.unit},
        "optimizer": "AdamW",
        "recipe": task.recipe._asdict(),
        "tensors": len(params),
        "numel": sum(param.numel() for param in params),
        "batch": task.batch_size,
        "turn": TURN,
        "goal": task.goal,
        "same_bits": contest.same_bits(),
        "ranked": [training.contender for training in contest.ranked()],
        "rows": [_row(contest, training) for training in contest.trainings],
    }


def _row(contest: Contest, training: Training) -> dict[str, Any]:
    status, why = contest.judged(training)
    seen, reached = times(training), contest.goal_of(training)
    last = training.curve[-1] if training.curve else None
    return {
        "contender": training.contender,
        "status": status,
        "why": why,
        "steps": training.steps,
        "seconds": training.seconds,
        "model": seen and seen[0],
        "optimizer": seen and seen[1],
        "share": seen and seen[2],
        "reached": reached and {"step": reached.step, "seconds": reached.seconds},
        "missed": contest.missed(training),
        "loss": last and _finite(last.loss),
        "accuracy": last and last.accuracy,
        "deviation": {"early": contest.deviation(training, EARLY), "all": contest.deviation(training)},
        "digest": training.digest,
        "curve": [[point.step, point.seconds, _finite(point.loss)] for point in training.curve],
    }


def _finite(value: float) -> float | None:
    return value if isfinite(value) else None
