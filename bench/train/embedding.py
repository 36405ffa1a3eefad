"""How large steps become where an embedding's rows are rarely used: by state in 8 bits, ours and others', and float32.

The gradients of such a row are zeros in most steps, and small ones of it share blocks with those of rows that are in
every batch, where the blocks are of several rows. An average of squares that is stored as zero, or as much less than it
is, while the average of gradients is not makes steps of many times the learning rate. So the largest change of any
element in a step is looked at, as a multiple of the learning rate, which exact averages bound.

Tokens are drawn by Zipf's law. The next one is a token's successor in half of all cases, and else drawn as well.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from importlib import import_module
from importlib.metadata import version
from itertools import product
from math import isfinite
from statistics import fmean
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

import gpuopt
from gpuopt.bench.contenders.libraries import ADAM, LIBRARIES, Library, absent
from gpuopt.bench.train.lockstep import repeatable, to_device
from gpuopt.bench.train.tasks import Batch, seeded
from gpuopt.eight_bit import BITS
from gpuopt.kernels.formats import BLOCK
from gpuopt.machine import Machine

SCHEMA = 1
"""Version of the JSON's layout; counts up whenever a reader would have to change."""

LR = 1e-3

FIRST = 10
"""Steps that are not looked at: in the very first ones every optimizer's averages are of a few gradients."""

LAST = 100
"""Steps at the end, over which the loss is averaged."""

REFERENCE = "torch, float32"
"""The optimizer that the others are compared with."""

GOAL = 1.1
"""The largest change by our state in 8 bits is to be at most so many times the reference's."""

Status = Literal["trained", "diverged", "refused", "broken", "skipped"]

FAULTS: dict[Status, str] = {"diverged": "diverged", "broken": "broke"}
"""What is wrong where it is ours or PyTorch's, and what is said of it."""


@dataclass(frozen=True)
class Size:
    """How much is trained.

    Attributes:
        tokens: Rows of the embedding and of the output.
        batch: Tokens in a batch.
        steps: Of each training.
    """

    tokens: int
    batch: int
    steps: int


@dataclass(frozen=True)
class Trial:
    """What every optimizer trains.

    Attributes:
        width: Elements of a row.
        betas: Adam's.
    """

    width: int
    betas: tuple[float, float]


FULL = Size(tokens=4000, batch=40, steps=1500)

QUICK = Size(tokens=100, batch=8, steps=20)
"""Enough to see that it works, and too little to see how large steps become."""

TRIALS = tuple(Trial(*trial) for trial in product((BLOCK * 3 // 4, BLOCK), ((0.9, 0.999), (0.9, 0.95))))
"""Rows over whose ends blocks go, and rows that are blocks, each with two memories of squares."""


@dataclass(frozen=True)
class Optimizer:
    """An Adam without weight decay.

    Attributes:
        name: What tables call it.
        begin: Makes it, of parameters and betas.
        ours: Whether it is to reach :data:`GOAL`.
        library: Where it is another library's, that.
    """

    name: str
    begin: Callable[[list[nn.Parameter], tuple[float, float]], torch.optim.Optimizer]
    ours: bool = False
    library: Library | None = None


def optimizers() -> list[Optimizer]:
    """PyTorch's, gpuopt's, and those of other libraries that keep state in 8 bits, installed or not."""
    return [
        Optimizer(REFERENCE, partial(_made, torch.optim.Adam)),
        Optimizer("gpuopt, float32", partial(_made, gpuopt.Adam)),
        Optimizer("gpuopt, 8 bits", partial(_made, gpuopt.Adam, state_dtype=BITS), ours=True),
        *(
            Optimizer(f"{library.package}, 8 bits", partial(_made_by, library), library=library)
            for library in LIBRARIES
            if library.coarse is not None
        ),
    ]


def _made(
    kind: Callable[..., torch.optim.Optimizer], params: list[nn.Parameter], betas: tuple[float, float], **extras: Any
) -> torch.optim.Optimizer:
    return kind(params, lr=LR, **{**ADAM, **extras, "betas": betas})


def _made_by(library: Library, params: list[nn.Parameter], betas: tuple[float, float]) -> torch.optim.Optimizer:
    name, settings = library.classes["Adam"]
    kind = getattr(import_module(library.module), name)
    return _made(partial(kind, **settings), params, betas)


class Model(nn.Module):
    """The next token's logits: an embedding, a layer beside it, and a row of the output for each token."""

    def __init__(self, tokens: int, width: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(tokens, width)
        self.up = nn.Linear(width, width, bias=False)
        self.down = nn.Linear(width, width, bias=False)
        self.output = nn.Linear(width, tokens, bias=False)
        for rows in (self.embedding, self.output):
            nn.init.normal_(rows.weight, std=0.02)

    def forward(self, inputs: Tensor) -> Tensor:
        """Logits (batch, tokens) of tokens (batch,)."""
        hidden = functional.layer_norm(self.embedding(inputs), self.embedding.weight.shape[1:])
        logits: Tensor = self.output(hidden + self.down(functional.relu(self.up(hidden))))
        return logits


class Text:
    """Pairs of tokens that follow each other, the same at every call."""

    def __init__(self, tokens: int, batch: int) -> None:
        rng = np.random.default_rng(0)
        shares = 1 / np.arange(1, tokens + 1)
        self._shares = shares / shares.sum()
        self._token_of, self._successor_of = rng.permutation(tokens), rng.permutation(tokens)
        self._batch = batch

    def batch(self, step: int) -> Batch:
        """Those of a step, counted from 0."""
        rng = np.random.default_rng((1, step))
        here, other = self._token_of[rng.choice(len(self._shares), (2, self._batch), p=self._shares)]
        follows = np.where(rng.random(self._batch) < 0.5, self._successor_of[here], other)
        return torch.from_numpy(here), torch.from_numpy(follows)


@dataclass
class Row:
    """What came of one optimizer in one trial.

    Attributes:
        optimizer: Its name.
        ours: Whether it is to reach :data:`GOAL`.
        status: Whether it trained to the end, or what kept it from that; ``"refused"`` is another library's error.
        why: That in words; None where it trained.
        version: Of the library; None where it is none or is not installed.
        update: The largest change of an element in a step from :data:`FIRST` on, over the learning rate.
        step: The step of it, counted from 0.
        loss: Of batches, the mean of the last :data:`LAST` steps.
    """

    optimizer: str
    ours: bool = False
    status: Status = "trained"
    why: str | None = None
    version: str | None = None
    update: float | None = None
    step: int | None = None
    loss: float | None = None


@dataclass
class Results:
    """What has been found so far.

    Attributes:
        size: How much is trained.
        scale: ``"full"`` or ``"quick"``.
        device: ``"cpu"`` or ``"cuda"``.
        command: The command line.
        machine: What it runs on.
        rows: For each trial what came of each optimizer.
        complete: Whether nothing is missing.
        seconds: How long it took.
    """

    size: Size
    scale: str
    device: str
    command: list[str]
    machine: Machine
    rows: dict[Trial, list[Row]] = field(default_factory=lambda: {trial: [] for trial in TRIALS})
    complete: bool = False
    seconds: float = 0.0

    @property
    def faults(self) -> list[str]:
        """Sentences about optimizers that broke or diverged, but for those of other libraries."""
        return [
            f"{row.optimizer} {FAULTS[row.status]} with width {trial.width} and betas {trial.betas}: {row.why}"
            for trial, rows in self.rows.items()
            for row in rows
            if row.version is None and row.status in FAULTS
        ]

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
            "optimizer": "Adam",
            "lr": LR,
            "tokens": self.size.tokens,
            "batch": self.size.batch,
            "steps": self.size.steps,
            "first": FIRST,
            "goal": GOAL,
            "trials": [self._trial(trial) for trial in self.rows],
            "faults": self.faults,
        }

    def _trial(self, trial: Trial) -> dict[str, Any]:
        params = list(Model(self.size.tokens, trial.width).parameters())
        return {
            "width": trial.width,
            "betas": list(trial.betas),
            "tensors": len(params),
            "numel": sum(param.numel() for param in params),
            "rows": [self._row(row, self.rows[trial]) for row in self.rows[trial]],
        }

    @staticmethod
    def _row(row: Row, rows: Sequence[Row]) -> dict[str, Any]:
        exact = next((each.update for each in rows if each.optimizer == REFERENCE), None)
        ratio = row.update / exact if row.update is not None and exact else None
        return {
            "optimizer": row.optimizer,
            "status": row.status,
            "why": row.why,
            "version": row.version,
            "update": row.update,
            "step": row.step,
            "ratio": ratio,
            "met": ratio <= GOAL if row.ours and ratio is not None else None,
            "loss": row.loss,
        }


def run(results: Results, advance: Callable[[], object] = lambda: None) -> None:
    """Trains with every optimizer, and fills ``results``, which are right whenever this is interrupted.

    Args:
        results: What is to be trained, and where.
        advance: Called after each step.
    """
    with repeatable():
        for trial, rows in results.rows.items():
            for optimizer in optimizers():
                rows.append(_trained(trial, results.size, optimizer, results.device, advance))
    results.complete = True


def _trained(trial: Trial, size: Size, optimizer: Optimizer, device: str, advance: Callable[[], object]) -> Row:
    row = Row(optimizer.name, optimizer.ours)
    if optimizer.library is not None:
        why = absent(optimizer.library)
        if why is not None:
            row.status, row.why = "skipped", why
            return row
        row.version = version(optimizer.library.package)
    try:
        _train(trial, size, optimizer, device, row, advance)
    except Exception as error:  # noqa: BLE001 (whatever breaks one, the others are to be had)
        row.status = "broken" if row.version is None else "refused"
        row.why = f"{type(error).__name__}: {error}"
    return row


def _train(
    trial: Trial, size: Size, optimizer: Optimizer, device: str, row: Row, advance: Callable[[], object]
) -> None:
    model = seeded(partial(Model, size.tokens, trial.width)).to(device)
    text, params = Text(size.tokens, size.batch), list(model.parameters())
    stepped, losses = optimizer.begin(params, trial.betas), []
    for step in range(size.steps):
        inputs, targets = to_device(text.batch(step), device)
        loss = functional.cross_entropy(model(inputs), targets)
        loss.backward()  # type: ignore[no-untyped-call]
        before = [param.detach().clone() for param in params]
        stepped.step()
        stepped.zero_grad()
        losses.append(loss.item())
        update = _largest_change(before, params) / LR
        advance()
        if not isfinite(update):
            row.status, row.why = "diverged", f"a parameter was not finite after step {step}"
            return
        if step >= FIRST and (row.update is None or update > row.update):
            row.update, row.step = update, step
    row.loss = fmean(losses[-LAST:])


@torch.no_grad()
def _largest_change(before: Sequence[Tensor], after: Sequence[Tensor]) -> float:
    """NaN where any is."""
    changes = [(new - old).abs().max() for old, new in zip(before, after, strict=True)]
    return torch.stack(changes).max().item()
