"""A state dict in one npz file, written so that an interruption leaves the old file whole."""

from __future__ import annotations

import json
import os
from pathlib import Path
from threading import get_ident
from typing import Any
from zipfile import BadZipFile

import numpy as np

from gpuopt.memory import axes_of, to_host

_ABOUT = "about"


def save(path: str | os.PathLike[str], state_dict: dict[str, Any]) -> None:
    """Writes the state dict of an optimizer of :mod:`gpuopt.arrays` to ``path``, exactly as named.

    Raises:
        TypeError: A parameter's name is not a string.
    """
    arrays: dict[str, np.ndarray[Any, Any]] = {}
    index: dict[str, dict[str, tuple[str, str, *tuple[int, ...]]]] = {}
    for name, slots in state_dict["state"].items():
        if not isinstance(name, str):
            raise TypeError(f"to be saved, the name of a parameter must be a string, but is {name!r}")
        index[name] = {}
        for slot, array in slots.items():
            key = f"array{len(arrays)}"
            # npz knows no order of axes, by which codes have their scales: they are put in it, and it beside them.
            axes = axes_of(array)
            host = to_host(array).transpose(axes)
            # npz knows no bfloat16: its bits are stored, and its name beside them.
            arrays[key] = host.view(np.uint16) if host.dtype.name == "bfloat16" else host
            index[name][slot] = key, host.dtype.name, *axes
    about = json.dumps({**state_dict, "state": index})
    target = Path(path).resolve()
    partial = target.with_name(f".{target.name}.{os.getpid()}-{get_ident()}.partial")
    try:
        with partial.open("wb") as file:
            np.savez(file, **{_ABOUT: np.array(about)}, **arrays)  # type: ignore[arg-type]
            file.flush()
            os.fsync(file.fileno())
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)


def load(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The state dict that :func:`save` wrote, as NumPy arrays.

    Raises:
        ValueError: The file was not written by :func:`save`.
    """
    try:
        with Path(path).open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            state_dict: dict[str, Any] = json.loads(str(file[_ABOUT]))
            state_dict["state"] = {
                name: {slot: _restored(file[key], dtype, axes) for slot, (key, dtype, *axes) in slots.items()}
                for name, slots in state_dict["state"].items()
            }
    except (AttributeError, BadZipFile, EOFError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{os.fspath(path)} must be a checkpoint of gpuopt.arrays, but is not: {error}") from error
    return state_dict


def _restored(array: np.ndarray[Any, Any], dtype: str, axes: list[int]) -> np.ndarray[Any, Any]:
    """What was saved; files of earlier versions have no order of axes, which is that of the array then."""
    if dtype == "bfloat16":
        import ml_dtypes

        array = array.view(ml_dtypes.bfloat16)
    return array.transpose(np.argsort(axes)) if axes else array
