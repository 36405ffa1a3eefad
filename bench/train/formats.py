"""What weights or state cost in loss that are stored in fewer bits: a GPT, trained in each format from several seeds.

So that it is storage that is measured, and that CPUs can do it that are slow in bfloat16, the model computes in float32
with the values that are stored, and beside weights in fewer bits state is float32. Gradients have the dtype of what a
model sees of its parameters. A seed is that of initial weights, of the order of batches and of stochastic rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from math import isfinite
from statistics import fmean
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

import gpuopt
from gpuopt.bench.problem import storage
from gpuopt.bench.train.gpt import Size
from gpuopt.bench.train.lockstep import repeatable, set_lr, to_device
from gpuopt.bench.train.tasks import Recipe, Task, gpt, loss_of
from gpuopt.bench.train.ways import groups
from gpuopt.bench.workloads import EIGHT_BIT_SETS, FORMAT_SETS
from gpuopt.kernels.formats import FORMATS
from gpuopt.machine import Machine

SCHEMA = 1
"""Version of the JSON's layout; counts up whenever a reader would have to change."""

SETS = FORMAT_SETS | EIGHT_BIT_SETS

REFERENCE = "fp32"
"""The format that the others are compared with."""

STORED: dict[str, str] = {
    REFERENCE: "float32",
    "bf16-fp32-state": "bfloat16, to nearest",
    "stochastic-fp32-state": "bfloat16, stochastically",
    "split24": "bfloat16 + 8 bits",
    "split32": "bfloat16 + 16 bits",
}
"""Keys of :data:`gpuopt.bench.workloads.FORMAT_SETS`, all with state in float32, and what tables call them."""

STORED_8_BIT: dict[str, str] = {
    REFERENCE: "float32",
    "8bit": "float32, 8-bit state",
    "split24-8bit": "bfloat16 + 8 bits, 8-bit state",
    "stochastic-8bit": "bfloat16 stochastic, 8-bit state",
}
"""Likewise with state in 8 bits, but for :data:`REFERENCE`."""


@dataclass(frozen=True)
class Trial:
    """What is trained in every format.

    Attributes:
        task: Gives the task of a seed.
        seeds: As many trainings of each format.
        stored: The formats, by key, and what tables call them.
    """

    task: Callable[[int], Task]
    seeds: tuple[int, ...]
    stored: Mapping[str, str] = field(default_factory=lambda: STORED)

    @property
    def steps(self) -> int:
        """Of all trainings."""
        return self.task(self.seeds[0]).recipe.steps * len(self.seeds) * len(self.stored)


def _gpt(size: Size, batch_size: int, recipe: Recipe, seed: int) -> Task:
    return gpt(size, batch_size, recipe, goal=0.0, evaluate_every=recipe.steps, seed=seed)


FULL = Trial(
    partial(
        _gpt,
        Size(context=64, width=160, layers=4, heads=4),
        8,
        Recipe(lr=5e-4, betas=(0.9, 0.999), weight_decay=0.1, max_norm=1.0, warm_up=120, steps=1200),
    ),
    (0, 1, 2),
)
"""With a rate four times as high and half the steps, chance alone makes as much of a difference as a format does."""

QUICK = Trial(
    partial(
        _gpt,
        Size(context=32, width=32, layers=2, heads=4),
        8,
        Recipe(lr=2e-3, betas=(0.9, 0.999), weight_decay=0.1, max_norm=1.0, warm_up=5, steps=30),
    ),
    (0, 1),
)
"""Enough to see that it works, and too little to see what a format costs."""


def _state(size: Size, batch_size: int, warm_up: int, steps: int, seeds: tuple[int, ...]) -> tuple[Trial, ...]:
    """A trial of state in 8 bits for each of two learning rates with each of two memories of squares."""
    recipes = (
        Recipe(lr, (0.9, beta2), weight_decay=0.1, max_norm=1.0, warm_up=warm_up, steps=steps)
        for lr in (1e-3, 3e-3)
        for beta2 in (0.999, 0.95)
    )
    return tuple(Trial(partial(_gpt, size, batch_size, recipe), seeds, STORED_8_BIT) for recipe in recipes)


STATE_FULL = _state(Size(context=32, width=144, layers=4, heads=4), 8, warm_up=100, steps=1000, seeds=(0, 1, 2))

STATE_QUICK = _state(Size(context=16, width=32, layers=1, heads=4), 8, warm_up=5, steps=20, seeds=(0, 1))


@dataclass
class Results:
    """What has been found so far.

    Attributes:
        trial: What is trained.
        scale: ``"full"`` or ``"quick"``.
        device: ``"cpu"`` or ``"cuda"``.
        command: The command line.
        machine: What it runs on.
        losses: On held-out data after the last step, by format and seed.
        faults: Sentences about trainings that diverged or broke.
        complete: Whether nothing is missing.
        seconds: How long it took.
    """

    trial: Trial
    scale: str
    device: str
    command: list[str]
    machine: Machine
    losses: dict[str, dict[int, float]] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)
    complete: bool = False
    seconds: float = 0.0

    def __post_init__(self) -> None:
        for name in self.trial.stored:
            self.losses.setdefault(name, {})

    def differences(self, name: str) -> dict[int, float]:
        """How much higher the losses of a format are than those of :data:`REFERENCE`, by seed."""
        reference = self.losses[REFERENCE]
        return {seed: loss - reference[seed] for seed, loss in self.losses[name].items() if seed in reference}

    @property
    def spread(self) -> float | None:
        """Between the highest and the lowest loss of :data:`REFERENCE`: what seeds make of one format."""
        losses = self.losses[REFERENCE].values()
        return max(losses) - min(losses) if len(losses) > 1 else None

    def as_dict(self) -> dict[str, Any]:
        """All of it, as JSON holds it."""
        task = self.trial.task(self.trial.seeds[0])
        params = list(task.model().parameters())
        return {
            "schema": SCHEMA,
            "scale": self.scale,
            "complete": self.complete,
            "seconds": round(self.seconds, 1),
            "command": self.command,
            "device": self.device,
            "machine": self.machine,
            "title": task.title,
            "data": {**task.facts, "unit": task.unit},
            "optimizer": "AdamW",
            "recipe": task.recipe._asdict(),
            "tensors": len(params),
            "numel": sum(param.numel() for param in params),
            "batch": task.batch_size,
            "seeds": list(self.trial.seeds),
            "spread": self.spread,
            "rows": [self._row(name) for name in self.trial.stored],
            "faults": self.faults,
        }

    def _row(self, name: str) -> dict[str, Any]:
        losses, differences = self.losses[name], self.differences(name)
        return {
            "key": name,
            "title": self.trial.stored[name],
            "formats": SETS[name]._asdict(),
            "bytes": FORMATS[SETS[name].param].nbytes(1),
            "losses": [losses.get(seed) for seed in self.trial.seeds],
            "differences": [differences.get(seed) for seed in self.trial.seeds],
            "loss": fmean(losses.values()) if losses else None,
            "difference": fmean(differences.values()) if differences else None,
        }


def run(results: Results, advance: Callable[[], object] = lambda: None) -> None:
    """Trains in every format from every seed, and fills ``results``, which are right whenever this is interrupted.

    Args:
        results: What is to be trained, and where.
        advance: Called after each step.
    """
    with repeatable():
        for seed in results.trial.seeds:
            task = results.trial.task(seed)
            for name in results.trial.stored:
                try:
                    loss = _trained(task, name, seed, results.device, advance)
                except Exception as error:  # noqa: BLE001 (whatever breaks one, the others are to be had)
                    results.faults.append(f"{name} broke with seed {seed}: {type(error).__name__}: {error}")
                    continue
                if isfinite(loss):
                    results.losses[name][seed] = loss
                else:
                    results.faults.append(f"{name} diverged with seed {seed}: its loss is {loss}")
    results.complete = True


def _trained(task: Task, name: str, seed: int, device: str, advance: Callable[[], object]) -> float:
    """The loss on what is held out, after all steps."""
    model, recipe, stored = task.model().to(device), task.recipe, SETS[name]
    dtype = getattr(torch, FORMATS[stored.param].planes[0].dtype)
    params = {key: nn.Parameter(param.detach().to(dtype)) for key, param in model.named_parameters()}
    optimizer = gpuopt.AdamW(
        groups(params.values(), recipe),
        betas=recipe.betas,
        max_grad_norm=recipe.max_norm,
        zero_grads=True,
        seed=seed,
        **storage(stored),
    )
    for step in range(recipe.steps):
        set_lr(optimizer, recipe.lr_at(step))
        inputs, targets = to_device(task.batch(step), device)
        loss_of(_logits(model, params, inputs), targets).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        advance()
    with torch.no_grad():
        inputs, targets = to_device(task.held_out, device)
        return loss_of(_logits(model, params, inputs), targets).item()


def _logits(model: nn.Module, params: Mapping[str, Tensor], inputs: Tensor) -> Tensor:
    logits: Tensor = functional_call(model, {name: param.float() for name, param in params.items()}, (inputs,))
    return logits
