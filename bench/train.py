"""The classifier trained by every optimizer on every driver, and whether the drivers agree."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from inspect import signature

from gpuopt import arrays
from gpuopt.bench.classifier import Run, train

LEARNING_RATES = {
    "SGD": 0.5,
    "Momentum": 0.05,
    "NAG": 0.05,
    "AdaGrad": 0.05,
    "RMSProp": 0.003,
    "Adam": 0.01,
    "AdamW": 0.01,
}
"""Rates at which each learns the digits well. An optimizer that is not listed takes its own default."""


def optimizers() -> list[str]:
    """Names of all optimizers of :mod:`gpuopt.arrays`: those listed above first, in that order."""
    found = [
        name
        for name in arrays.__all__
        if isinstance(kind := getattr(arrays, name), type)
        and issubclass(kind, arrays.Optimizer)
        and kind is not arrays.Optimizer
    ]
    ranks = list(LEARNING_RATES)
    return sorted(found, key=lambda name: (ranks.index(name) if name in ranks else len(ranks), name))


def learning_rate(optimizer: str) -> float:
    """The rate to train with."""
    if optimizer in LEARNING_RATES:
        return LEARNING_RATES[optimizer]
    return float(signature(getattr(arrays, optimizer)).parameters["lr"].default)


def train_all(drivers: Iterable[str], steps: int, begin: Callable[[str], None]) -> Iterator[Run]:
    """Trains with every optimizer on every driver; says the name of each training before it begins."""
    drivers = list(drivers)
    for optimizer in optimizers():
        for driver in drivers:
            begin(f"train {optimizer} on {driver}")
            yield train(optimizer, driver, steps, learning_rate(optimizer))


def agreement(runs: Iterable[Run]) -> dict[str, bool | None]:
    """For each optimizer whether all drivers ended with the same bits; None where one driver alone ran."""
    digests: dict[str, list[str]] = {}
    for run in runs:
        digests.setdefault(run.optimizer, []).append(run.digest)
    return {name: len(set(found)) == 1 if len(found) > 1 else None for name, found in digests.items()}
