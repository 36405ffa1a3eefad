"""Rows of the JSON against each other."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple


class Ratio(NamedTuple):
    """How many times as fast one row is as another.

    Attributes:
        value: The number.
        clock: Key of the times that were compared, ``"device"`` or ``"step"``.
    """

    value: float
    clock: str

    def __str__(self) -> str:
        return f"{self.value:.2f}x{'' if self.clock == 'device' else ' (host)'}"


def times_as_fast(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> Ratio:
    """By the GPU's clock, or by the host's where either lacks it."""
    clock = "device" if ours["device"] and theirs["device"] else "step"
    return Ratio(theirs[clock]["median"] / ours[clock]["median"], clock)
