"""What is trained on what, how, and to which loss."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from math import cos, pi
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from gpuopt.bench.train import data
from gpuopt.bench.train.convnet import conv_net
from gpuopt.bench.train.gpt import GPT, Size

Batch = tuple[Tensor, Tensor]
"""Inputs, and what the model is to make of them: one int64 for each of its rows of logits."""

SEED = 0
"""Of initial weights and of the order of batches, where nothing else is said."""

HELD_OUT_WINDOWS = 128
"""Windows of the held-out text, evenly spread over it, that a GPT's loss is averaged over."""


class Recipe(NamedTuple):
    """How a model is trained by AdamW. Vectors, which are norms and biases, do not decay.

    Attributes:
        lr: Highest learning rate. It rises linearly to it and falls to a tenth of it by half a cosine.
        betas: AdamW's.
        weight_decay: AdamW's.
        max_norm: The gradients of all parameters together are clipped to this norm.
        warm_up: Steps in which the rate rises.
        steps: All steps.
    """

    lr: float
    betas: tuple[float, float]
    weight_decay: float
    max_norm: float
    warm_up: int
    steps: int

    def lr_at(self, step: int) -> float:
        """The learning rate of a step, counted from 0."""
        if step < self.warm_up:
            return self.lr * (step + 1) / self.warm_up
        share = (step - self.warm_up) / max(self.steps - self.warm_up, 1)
        return self.lr * (0.1 + 0.9 * (0.5 + 0.5 * cos(pi * share)))


@dataclass(frozen=True)
class Task:
    """One training.

    Attributes:
        key: Its name in JSON and in file names.
        title: What tables call it.
        model: Makes the model with its initial weights, on the CPU.
        batch: The batch of a step, counted from 0, on the CPU: the same at every call.
        batch_size: Rows in it.
        held_out: What the loss is evaluated on, never trained on.
        unit: What one row of logits is for.
        facts: Where the data comes from: ``source``, ``sha256``, and the numbers of ``train`` and ``held_out`` units.
        recipe: How it is trained.
        goal: Time is taken to this loss on what is held out.
        evaluate_every: Steps between two evaluations.
    """

    key: str
    title: str
    model: Callable[[], nn.Module]
    batch: Callable[[int], Batch]
    batch_size: int
    held_out: Batch
    unit: str
    facts: dict[str, Any]
    recipe: Recipe
    goal: float
    evaluate_every: int


def loss_of(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean cross-entropy, in nats."""
    return functional.cross_entropy(logits.flatten(0, -2), targets.flatten())


def gpt(size: Size, batch_size: int, recipe: Recipe, goal: float, evaluate_every: int, seed: int = SEED) -> Task:
    """A GPT that predicts the characters of Python's manual."""
    text = data.text()
    train, held_out = torch.from_numpy(text.train), torch.from_numpy(text.held_out)

    def windows(codes: Tensor, starts: Any) -> Batch:
        rows = torch.stack([codes[start : start + size.context + 1] for start in starts])
        return rows[:, :-1], rows[:, 1:]

    def batch(step: int) -> Batch:
        starts = np.random.default_rng((seed, step)).integers(len(train) - size.context, size=batch_size)
        return windows(train, starts)

    return Task(
        key="gpt",
        title=f"GPT, {size.layers} layers of width {size.width}, on the characters of Python's manual",
        model=partial(seeded, partial(GPT, len(text.characters), size), seed),
        batch=batch,
        batch_size=batch_size,
        held_out=windows(held_out, np.linspace(0, len(held_out) - size.context - 1, HELD_OUT_WINDOWS).astype(int)),
        unit="character",
        facts={
            "source": text.source,
            "sha256": text.sha256,
            "train": len(train),
            "held_out": len(held_out),
        },
        recipe=recipe,
        goal=goal,
        evaluate_every=evaluate_every,
    )


def digits(channels: int, batch_size: int, recipe: Recipe, goal: float, evaluate_every: int) -> Task:
    """A convolutional net that tells handwritten digits apart."""
    images = data.digits()
    train, labels = torch.from_numpy(images.train), torch.from_numpy(images.train_labels)

    def batch(step: int) -> Batch:
        """In each epoch every image at most once, in another order."""
        epoch, at = divmod(step, len(train) // batch_size)
        order = torch.from_numpy(np.random.default_rng((SEED, epoch)).permutation(len(train)))
        chosen = order[at * batch_size : (at + 1) * batch_size]
        return train[chosen], labels[chosen]

    return Task(
        key="digits",
        title="Convolutional net on scikit-learn's handwritten digits",
        model=partial(seeded, partial(conv_net, channels)),
        batch=batch,
        batch_size=batch_size,
        held_out=(torch.from_numpy(images.held_out), torch.from_numpy(images.held_out_labels)),
        unit="image",
        facts={
            "source": images.source,
            "sha256": images.sha256,
            "train": len(train),
            "held_out": len(images.held_out),
        },
        recipe=recipe,
        goal=goal,
        evaluate_every=evaluate_every,
    )


def seeded(make: Callable[[], nn.Module], seed: int = SEED) -> nn.Module:
    """What ``make`` makes, with weights that are drawn from a seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return make()


FULL: dict[str, Callable[[], Task]] = {
    "gpt": partial(
        gpt,
        Size(context=64, width=128, layers=4, heads=4),
        batch_size=12,
        recipe=Recipe(lr=2e-3, betas=(0.9, 0.99), weight_decay=0.1, max_norm=1.0, warm_up=50, steps=500),
        goal=2.0,
        evaluate_every=25,
    ),
    "digits": partial(
        digits,
        channels=16,
        batch_size=64,
        recipe=Recipe(lr=3e-3, betas=(0.9, 0.999), weight_decay=0.01, max_norm=1.0, warm_up=20, steps=400),
        goal=0.15,
        evaluate_every=20,
    ),
}
"""The size of the GPT and of its batches is nanoGPT's for a CPU."""

QUICK: dict[str, Callable[[], Task]] = {
    "gpt": partial(
        gpt,
        Size(context=32, width=64, layers=2, heads=4),
        batch_size=12,
        recipe=Recipe(lr=2e-3, betas=(0.9, 0.99), weight_decay=0.1, max_norm=1.0, warm_up=10, steps=100),
        goal=2.8,
        evaluate_every=10,
    ),
    "digits": partial(
        digits,
        channels=16,
        batch_size=64,
        recipe=Recipe(lr=3e-3, betas=(0.9, 0.999), weight_decay=0.01, max_norm=1.0, warm_up=10, steps=100),
        goal=0.8,
        evaluate_every=10,
    ),
}
