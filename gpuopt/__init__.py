"""Optimizer steps as one launch and one pass over memory for a whole model.

:mod:`gpuopt.arrays` has optimizers for NumPy and CuPy arrays, :mod:`gpuopt.backends` says which of the drivers
can run here. Both are imported when they are first used.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import Any

__all__ = ["arrays", "backends"]

try:
    __version__ = version("gpuopt")
except PackageNotFoundError:  # a checkout that is not installed
    __version__ = "0+unknown"


def __getattr__(name: str) -> Any:
    if name in __all__:
        return import_module(f"gpuopt.{name}")
    raise AttributeError(f"module 'gpuopt' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
