"""State dicts that are as torch's, and are loaded as they are.

``torch.optim`` casts all state but ``step`` to its parameter's dtype.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from gpuopt.optim.state import STEP
from gpuopt.watched import Entries


class _Box:
    """Hides a tensor from torch's loading."""

    def __init__(self, tensor: torch.Tensor) -> None:
        self.tensor = tensor


@contextmanager
def dtypes_kept(optimizer: torch.optim.Optimizer) -> Iterator[None]:
    """In this context ``optimizer.load_state_dict`` keeps the dtype of state, and moves it to its parameter's device.

    It takes the state dict as the pre-hooks of ``optimizer`` leave it, and is done before its post-hooks.
    """

    def box(_: Any, state_dict: dict[str, Any]) -> dict[str, Any]:
        return {**state_dict, "state": {key: _boxed(entries) for key, entries in state_dict["state"].items()}}

    def unbox(_: Any) -> None:
        for param, entries in optimizer.state.items():
            if not isinstance(entries, dict):
                continue
            for name, value in entries.items():
                if isinstance(value, _Box):
                    moves = isinstance(param, torch.Tensor)
                    entries[name] = value.tensor.to(param.device) if moves else value.tensor

    handles = [
        optimizer.register_load_state_dict_pre_hook(box),
        optimizer.register_load_state_dict_post_hook(unbox, prepend=True),
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
        unbox(optimizer)  # should torch have failed midway


@contextmanager
def plain_state(optimizer: torch.optim.Optimizer) -> Iterator[None]:
    """In this context ``optimizer.state_dict`` has plain dicts, before its post-hooks, for who loads it elsewhere."""

    def as_plain(_: Any, state_dict: dict[str, Any]) -> dict[str, Any]:
        entries = state_dict["state"].items()
        return {**state_dict, "state": {key: dict(own) if isinstance(own, Entries) else own for key, own in entries}}

    handle = optimizer.register_state_dict_post_hook(as_plain, prepend=True)
    try:
        yield
    finally:
        handle.remove()


def _boxed(entries: Any) -> Any:
    if not isinstance(entries, dict):
        return entries
    boxes = {name: _Box(value) for name, value in entries.items() if name != STEP and isinstance(value, torch.Tensor)}
    return {**entries, **boxes}
