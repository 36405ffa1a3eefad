"""What PyTorch is asked to compute."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch.utils._python_dispatch import TorchDispatchMode


class _Recorder(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.append(function.name().partition(".")[0])
        return function(*args, **(kwargs or {}))


def operations(run: Callable[[], object]) -> list[str]:
    """Names of the operators that ``run`` calls, in order, such as ``"aten::add_"``."""
    with _Recorder() as recorder:
        run()
    return recorder.names
