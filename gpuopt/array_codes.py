"""State in 8 bits of NumPy and CuPy arrays: made in the order of their parameter's memory, by the host."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import partial
from typing import Any

import numpy as np

from gpuopt.eight_bit import decode, encode, format_of, has_reduced, lacking, names_of, planes_of, reduced, restored
from gpuopt.kernels.formats import EIGHT_BIT
from gpuopt.kernels.rules import Rule
from gpuopt.memory import axes_of, full_like, library_of, memory_of, moved_to, on_device_of, to_host
from gpuopt.plan import Stored


def check(state: Mapping[str, Any], rule: Rule, name: str) -> None:
    """Refuses state of the parameter called ``name`` that is not what :mod:`gpuopt.arrays` makes.

    Raises:
        TypeError: An entry is not an array that gpuopt reads.
        ValueError: An entry is missing or unknown, or there is not a scale for every block of codes.
    """
    planes = planes_of(rule)
    slots = [slot for slot in rule.slots if slot in rule.required or not {slot, *names_of(slot)}.isdisjoint(state)]
    if not set(state) <= {*rule.slots, *planes} or any(lacking(slot, state) for slot in slots):
        raise ValueError(f"state of {name} must have slots of {rule.slots}, but has {tuple(state)}")
    for entry, array in state.items():
        memory_of(array, f"{entry} {name}", planes.get(entry))
    for slot in slots:
        names = names_of(slot)
        if names.codes in state and names.scales in state:
            entries = planes[names.scales].entries(state[names.codes].size)
            if state[names.scales].shape != (entries,):
                raise ValueError(
                    f"{names.scales} {name} must have the shape {(entries,)}, an entry for every "
                    f"{planes[names.scales].block} codes, but has {state[names.scales].shape}"
                )


def coded(state: Mapping[str, Any], rule: Rule) -> list[str]:
    """The slots that are in 8 bits."""
    return [slot for slot in rule.slots if rule.kinds[slot] in EIGHT_BIT and found(state, rule, slot) is not None]


def found(state: Mapping[str, Any], rule: Rule, slot: str) -> Stored | None:
    """A slot that is in 8 bits; None where it is not there, or with its values, which go before any codes."""
    names = names_of(slot)
    if slot in state or names.codes not in state:
        return None
    return Stored(format_of(rule, slot), (state[names.codes], state[names.scales]))


def encoded(param: Any, old: Mapping[str, Any], rule: Rule, slot: str) -> dict[str, Any]:
    """The entries of a slot in 8 bits where ``param`` is: those there are, if they are in its order, or new ones."""
    names, there = names_of(slot), found(old, rule, slot)
    format = format_of(rule, slot)
    if there is not None:
        codes, scales = there.planes
        if codes.shape != param.shape or moved_to(codes, param, format.planes[0]) is codes:
            return {names.codes: codes, names.scales: scales}
        values = _decoded(there)
    elif slot in old:
        if old[slot].shape != param.shape:
            return {slot: old[slot]}  # for a check to refuse
        shapes = {name: array.shape for name, array in old.items() if name in rule.slots}
        if has_reduced(rule) and set(shapes.values()) != {param.shape}:
            return {slot: old[slot]}
        values = np.asarray(reduced(rule, slot, partial(_values_of, old, rule)))
    else:
        blocks = np.zeros(format.planes[1].entries(param.size), np.float32)
        return {names.codes: full_like(param, 0, np.uint8), names.scales: _beside(param, blocks)}
    axes = axes_of(param)
    codes, scales = encode(values.transpose(axes).reshape(-1), format)
    codes = codes.reshape([param.shape[axis] for axis in axes]).transpose(np.argsort(axes))
    return {names.codes: moved_to(codes, param, format.planes[0]), names.scales: _beside(param, scales)}


def parted(state: Mapping[str, Any], rule: Rule, slots: Collection[str]) -> Mapping[str, Any]:
    """State in which ``slots`` mean what they say without others, which are dropped, by their relation."""
    if not has_reduced(rule) or set(coded(state, rule)) <= set(slots):
        return state
    values = decoded(state, rule, np.dtype(np.float32))
    return {slot: values[slot] for slot in rule.slots if slot in slots and slot in values}


def decoded(state: Mapping[str, Any], rule: Rule, dtype: np.dtype[Any]) -> dict[str, Any]:
    """State with arrays of ``dtype`` on the host in place of what is in 8 bits."""
    values_of = partial(_values_of, state, rule)
    return {**state, **{slot: np.asarray(restored(rule, slot, values_of), dtype) for slot in coded(state, rule)}}


def _values_of(state: Mapping[str, Any], rule: Rule, slot: str) -> np.ndarray[Any, Any] | None:
    """What is there of a slot, in codes or not, in float32 or wider, on the host; None where it is absent."""
    stored = found(state, rule, slot)
    if stored is not None:
        return _decoded(stored)
    array = state.get(slot)
    if array is None:
        return None
    host = to_host(array)
    return host if host.dtype.itemsize > np.dtype(np.float16).itemsize else host.astype(np.float32)


def _decoded(stored: Stored) -> np.ndarray[Any, Any]:
    """What the codes of a slot say, of their shape and in their order, on the host."""
    codes, scales = stored.planes
    axes = axes_of(codes)
    values = decode(to_host(codes).transpose(axes).reshape(-1), to_host(scales), stored.format)
    return values.reshape([codes.shape[axis] for axis in axes]).transpose(np.argsort(axes))


def _beside(param: Any, array: np.ndarray[Any, Any]) -> Any:
    """An array of the host where ``param`` is."""
    if library_of(param) != "cupy":
        return array
    import cupy

    with on_device_of(param):
        return cupy.asarray(array)
