"""Optimizer steps as one launch and one pass over memory for a whole model.

:mod:`gpuopt.optim` has the optimizers for PyTorch, which are also here, ``gpuopt.Adam``; :mod:`gpuopt.arrays` has those
for NumPy and CuPy arrays; :mod:`gpuopt.backends` says which of the drivers can run here. Each is imported when it is
first used.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from gpuopt.kernels import fork as _fork  # noqa: F401 (it is to know which process this is)

_MODULES = ("arrays", "backends", "optim")
_FOR_TORCH = ("SGD", "Adagrad", "Adam", "AdamW", "GradScaler", "RMSprop")

__all__ = ["SGD", "Adagrad", "Adam", "AdamW", "GradScaler", "RMSprop", "arrays", "backends", "optim"]

try:
    __version__ = version("gpuopt")
except PackageNotFoundError:  # a checkout that is not installed
    __version__ = "0+unknown"

if TYPE_CHECKING:
    from gpuopt import arrays, backends, optim
    from gpuopt.optim import SGD, Adagrad, Adam, AdamW, GradScaler, RMSprop
else:  # a __getattr__ would have type checkers take any name, for Any

    def __getattr__(name: str) -> Any:
        if name in _MODULES:
            return import_module(f"gpuopt.{name}")
        if name in _FOR_TORCH:
            if find_spec("torch") is None:
                raise ModuleNotFoundError(
                    f"gpuopt.{name} needs torch, which is not installed (pip install 'gpuopt[torch]'); "
                    "gpuopt.arrays needs NumPy alone",
                    name="torch",
                )
            return getattr(import_module("gpuopt.optim"), name)
        raise AttributeError(f"module 'gpuopt' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
