"""How far a median can be off by chance, and when something else spoils it."""

from __future__ import annotations

from math import sqrt

from gpuopt.machine import Spread

CERTAINTY = 1.5
"""In tenths of the samples to tenths over the root of their number: about three standard errors of a median, or two
where the two samples of a turn go together."""

BUSY = 0.05
"""Share of the CPU from which on other processes spoil the times."""


FEWEST = 8
"""Samples of which tenths say something."""


def noise(times: Spread) -> float | None:
    """Seconds that the median of ``times`` may be off, either way; None where there are too few to tell."""
    if times["n"] < FEWEST:
        return None
    return CERTAINTY * (times["p90"] - times["p10"]) / sqrt(times["n"])
