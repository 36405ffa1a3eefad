"""Warnings that point at the line outside of gpuopt that led to them."""

from __future__ import annotations

import sys
import warnings

_BETWEEN = frozenset({__name__.partition(".")[0], "contextlib", "torch"})
"""Packages whose lines nobody can change: our own, and those that call us for the user."""


def warn(message: str) -> None:
    """Warns, as ``warnings.warn`` does, of something that the caller of gpuopt, or of PyTorch around it, can change."""
    level = 1
    frame = sys._getframe()
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] in _BETWEEN:
        frame, level = frame.f_back, level + 1
    warnings.warn(message, stacklevel=level)
