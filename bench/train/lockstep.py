"""Trains all contenders in turns, so that whatever else the machine does meets all of them alike.

Each contender has a copy of the model with the same weights, and sees the same batches. It trains for :data:`TURN`
steps, then the next one does, and in each round another one begins. So all are at the same point of their training
at about the same time, and only the first step of a turn finds another contender's data in the caches.

Two clocks run: one from the batch to the end of the backward pass, one from there to zeroed gradients. Choosing the
batch, setting the learning rate, reading the loss and evaluating belong to neither. On a GPU the host waits for it
wherever a clock is read. Compiling is in neither: a copy of the model, thrown away, has gone through it before.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, field
from math import isfinite
from typing import Any, Literal, NamedTuple

import torch
from torch import nn

from gpuopt.bench.train.tasks import Batch, Task, loss_of
from gpuopt.bench.train.ways import Stepping, Way

Clock = Callable[[], float]

Problem = Literal["diverged", "broken", "skipped"]

TURN = 5
"""Steps that a contender trains for before the next one does."""

WARM_UP = 2
"""Steps of the copies that are thrown away: in the first the optimizer makes its state."""


class Point(NamedTuple):
    """One evaluation on what is held out.

    Attributes:
        step: Steps taken before.
        seconds: Their time on both clocks.
        loss: Mean cross-entropy.
        accuracy: Share of units whose likeliest class is the right one.
    """

    step: int
    seconds: float
    loss: float
    accuracy: float


@dataclass
class Training:
    """What was seen of one contender, filled as it trains.

    Attributes:
        contender: Its name.
        ours: Whether it is gpuopt's.
        problem: Why it did not train to the end, and in words; None where nothing kept it from that.
        losses: Of each step's batch, before the step.
        model_seconds: Of each step's forward and backward pass.
        optimizer_seconds: Of each step's clipping, stepping and zeroing.
        curve: The evaluations.
        digest: SHA-256 of the bits of all parameters after the last step; None before it.
    """

    contender: str
    ours: bool = False
    problem: tuple[Problem, str] | None = None
    losses: list[float] = field(default_factory=list)
    model_seconds: list[float] = field(default_factory=list)
    optimizer_seconds: list[float] = field(default_factory=list)
    curve: list[Point] = field(default_factory=list)
    digest: str | None = None

    @property
    def steps(self) -> int:
        """Steps taken."""
        return len(self.losses)

    @property
    def seconds(self) -> float:
        """Time of all steps, on both clocks."""
        return sum(self.model_seconds) + sum(self.optimizer_seconds)


@dataclass
class _Runner:
    """A contender that is training."""

    training: Training
    model: nn.Module
    stepping: Stepping


def train(
    task: Task,
    ways: Sequence[Way],
    device: str,
    trainings: list[Training],
    *,
    clock: Clock = time.perf_counter,
    advance: Callable[[int], None] = lambda steps: None,
) -> None:
    """Trains every contender that can run here. One that breaks or diverges stops; the others go on.

    Args:
        task: What is trained.
        ways: The contenders.
        device: ``"cpu"`` or ``"cuda"``.
        trainings: Gets one per contender, in their order, and is right, if not complete, whenever this is interrupted.
        clock: Gives the time in seconds.
        advance: Called after each turn of a contender with the steps that it has done with, taken or not.
    """
    wait = torch.cuda.synchronize if device == "cuda" else _nothing
    held_out = to_device(task.held_out, device)
    trainings += [Training(way.name, way.ours, ("skipped", way.absent) if way.absent else None) for way in ways]
    with repeatable():
        initial = task.model().to(device)
        runners = []
        for way, training in zip(ways, trainings, strict=True):
            with _noting_what_breaks(training):
                if training.problem is None:
                    _go_through_once(task, way, initial, device)
                    model = deepcopy(initial)
                    runners.append(_Runner(training, model, way.begin(model, task.recipe)))
                    training.curve.append(_evaluation(model, held_out, training))
        for begin in range(0, task.recipe.steps, TURN):
            first = begin // TURN % max(len(runners), 1)
            turn = range(begin, min(begin + TURN, task.recipe.steps))
            for runner in runners[first:] + runners[:first]:
                with _noting_what_breaks(runner.training):
                    for step in turn if runner.training.problem is None else ():
                        if not _step(task, runner, step, device, held_out, clock, wait):
                            break
                advance(len(turn))


def _step(
    task: Task,
    runner: _Runner,
    step: int,
    device: str,
    held_out: Batch,
    clock: Clock,
    wait: Callable[[], object],
) -> bool:
    """One step; returns whether the loss before it was finite."""
    training = runner.training
    inputs, targets = to_device(task.batch(step), device)
    set_lr(runner.stepping.optimizer, task.recipe.lr_at(step))
    wait()
    begun = clock()
    loss = loss_of(runner.model(inputs), targets)
    loss.backward()  # type: ignore[no-untyped-call]
    wait()
    differentiated = clock()
    runner.stepping.run()
    wait()
    done = clock()
    training.losses.append(loss.item())
    training.model_seconds.append(differentiated - begun)
    training.optimizer_seconds.append(done - differentiated)
    if not isfinite(training.losses[-1]):
        training.problem = "diverged", f"its loss was {training.losses[-1]} at step {step}"
        return False
    if training.steps % task.evaluate_every == 0 or training.steps == task.recipe.steps:
        training.curve.append(_evaluation(runner.model, held_out, training))
    if training.steps == task.recipe.steps:
        training.digest = _digest(runner.model)
    return True


def _go_through_once(task: Task, way: Way, initial: nn.Module, device: str) -> None:
    model = deepcopy(initial)
    stepping = way.begin(model, task.recipe)
    for step in range(WARM_UP):
        set_lr(stepping.optimizer, task.recipe.lr_at(step))
        inputs, targets = to_device(task.batch(step), device)
        loss_of(model(inputs), targets).backward()  # type: ignore[no-untyped-call]
        stepping.run()


@torch.no_grad()
def _evaluation(model: nn.Module, held_out: Batch, training: Training) -> Point:
    inputs, targets = held_out
    logits = model(inputs)
    hits = logits.argmax(dim=-1) == targets
    return Point(training.steps, training.seconds, loss_of(logits, targets).item(), hits.float().mean().item())


def _digest(model: nn.Module) -> str:
    digest = hashlib.sha256()
    for param in model.parameters():
        digest.update(param.detach().cpu().numpy().tobytes())
    return digest.hexdigest()


def set_lr(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Gives all groups a learning rate."""
    for group in optimizer.param_groups:
        group["lr"] = lr


def to_device(batch: Batch, device: str) -> Batch:
    """A batch in the memory of a device."""
    inputs, targets = batch
    return inputs.to(device), targets.to(device)


def _nothing() -> None:
    """What the host waits for on a CPU."""


@contextmanager
def _noting_what_breaks(training: Training) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # noqa: BLE001 (whatever breaks a contender, the others are to be had)
        training.problem = "broken", f"{type(error).__name__}: {error}"


@contextmanager
def repeatable() -> Iterator[None]:
    """In this context PyTorch sums in the same order each time, so that equal steps make equal weights."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS reads it when it is first used
    settings: Any = torch.utils.deterministic
    before = torch.are_deterministic_algorithms_enabled(), settings.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True)
    settings.fill_uninitialized_memory = False  # which would cost time in every allocation
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0])
        settings.fill_uninitialized_memory = before[1]
