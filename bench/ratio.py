"""Rows of the JSON against each other."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def times_as_fast(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> tuple[float, str]:
    """How many times as fast one row is as another, by the GPU's clock, or by the host's where either lacks it.

    Returns:
        The ratio, and the key of the clock: ``"device"`` or ``"step"``.
    """
    clock = "device" if ours["device"] and theirs["device"] else "step"
    return theirs[clock]["median"] / ours[clock]["median"], clock
