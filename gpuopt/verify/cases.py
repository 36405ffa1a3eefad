"""The ways in which a variant is stepped and compared."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from gpuopt.kernels.variant import Variant
from gpuopt.verify.given import COMBINATIONS, EDGES, FOUND, SIGNALLED
from gpuopt.verify.variants import edge_hyper_rows, hyper_rows

STEPS = 3

NEUTRAL = "a prologue that changes nothing"
"""Name of the case for which the Numba driver has code of its own."""

Rows = list[list[float]]


@dataclass(frozen=True)
class Case:
    """Some steps of some tensors.

    Attributes:
        name: What is special about it.
        numels: Elements of each tensor; its hyper row is the next in turn.
        hypers: For each step its hyper rows.
        misaligned: As in :class:`~gpuopt.verify.tensors.Tensors`.
        one_by_one: Whether each tensor has a table of its own.
        signals: Values of the signals that are given.
    """

    name: str
    numels: tuple[int, ...]
    hypers: list[Rows]
    misaligned: bool | str = False
    one_by_one: bool = False
    signals: dict[str, float] = field(default_factory=dict)


def cases(variant: Variant, tile: int) -> list[Case]:
    """Every case of one variant, for a driver with tiles of ``tile`` elements."""
    numels = (0, 1, 7, 8, 127, 128, 129, tile - 1, tile, tile + 1, 2 * tile + 5, 0)
    hypers = [hyper_rows(variant, step) for step in range(STEPS)]
    neutral = [[bare] for _, bare in hypers]
    edges = edge_hyper_rows(variant)
    made = [
        Case("many tensors", numels, hypers),
        Case("misaligned tensors", numels, hypers, misaligned=True),
        Case("misaligned gradients", (3, tile, 2 * tile + 5), hypers[:1], misaligned="grad"),
        Case("tensors one by one", numels, hypers[:1], one_by_one=True),
        Case("misaligned tensors one by one", numels, hypers[:1], misaligned=True, one_by_one=True),
        Case("hyper at its edges", (tile + 3,) * len(edges), [edges]),
        Case(NEUTRAL, numels, neutral),
    ]
    if variant in SIGNALLED:
        few = (1, 129, tile + 3)
        made += [Case(_named(values), few, hypers[:1], signals=values) for values in _signals()]
    return made


def _signals() -> Sequence[dict[str, float]]:
    found = [{"loss_scale": 2.0, "clip_factor": 0.5, "found_inf": value} for value in FOUND]
    return [values for values in COMBINATIONS if values] + EDGES + found


def _named(values: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:g}" for name, value in values.items())
