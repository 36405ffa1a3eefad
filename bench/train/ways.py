"""The contenders: the ways to do what follows a backward pass, which is to clip, to step and to zero.

gpuopt does it in its one pass, as ``max_grad_norm`` and ``zero_grads`` ask for. torch does it as its documentation
says: ``clip_grad_norm_``, ``step`` and ``zero_grad``, each with its defaults.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial

import torch
from torch import nn

import gpuopt
from gpuopt import backends
from gpuopt.bench.contenders.torch import WAYS
from gpuopt.bench.train.tasks import Recipe
from gpuopt.kernels.drivers import DRIVERS

REFERENCE = "torch for-loop"
"""The contender that the others' losses are compared with: the plainest."""


@dataclass(frozen=True)
class Stepping:
    """What follows the backward passes of one model.

    Attributes:
        optimizer: Whose learning rate is set before each step.
        run: Clips, steps and zeroes.
    """

    optimizer: torch.optim.Optimizer
    run: Callable[[], object]


@dataclass(frozen=True)
class Way:
    """A contender.

    Attributes:
        name: What tables call it.
        begin: Gives a model its optimizer.
        absent: Why it cannot run here, as a clause; None when it can.
        ours: Whether it is gpuopt's, and so owes the bits of gpuopt's other drivers.
    """

    name: str
    begin: Callable[[nn.Module, Recipe], Stepping]
    absent: str | None = None
    ours: bool = False


def ways(device: str) -> list[Way]:
    """All contenders for ``"cpu"`` or ``"cuda"``: torch's, then gpuopt's drivers for that memory."""
    torchs = [Way(f"torch {way}", partial(_torch, flags)) for way, flags in WAYS.items()]
    reasons = backends.available()
    ours = [
        Way(f"gpuopt {name}", partial(_gpuopt, name), reasons[name], ours=True)
        for name, entry in DRIVERS.items()
        if entry.device == device
    ]
    return torchs + ours


def _gpuopt(driver: str, model: nn.Module, recipe: Recipe) -> Stepping:
    optimizer = gpuopt.AdamW(
        groups(model.parameters(), recipe),
        betas=recipe.betas,
        backend=driver,
        max_grad_norm=recipe.max_norm,
        zero_grads=True,
    )
    return Stepping(optimizer, optimizer.step)


def _torch(flags: dict[str, bool], model: nn.Module, recipe: Recipe) -> Stepping:
    optimizer = torch.optim.AdamW(groups(model.parameters(), recipe), betas=recipe.betas, **flags)
    params = list(model.parameters())

    def run() -> None:
        nn.utils.clip_grad_norm_(params, recipe.max_norm)
        optimizer.step()
        optimizer.zero_grad()

    return Stepping(optimizer, run)


def groups(params: Iterable[nn.Parameter], recipe: Recipe) -> list[dict[str, object]]:
    """Parameters that decay, and those that do not."""
    every = list(params)
    return [
        {"params": [param for param in every if param.ndim > 1], "weight_decay": recipe.weight_decay},
        {"params": [param for param in every if param.ndim <= 1], "weight_decay": 0.0},
    ]
