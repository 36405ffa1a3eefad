"""State dicts that ``torch.optim`` can load, which carry the extras, and are refused where they are of another rule.

``torch.optim`` casts all state but ``step`` to its parameter's dtype; here it keeps its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from numbers import Real
from typing import TYPE_CHECKING, Any

import torch

from gpuopt.eight_bit import BITS, has_reduced
from gpuopt.kernels.rules import Rule
from gpuopt.kernels.warn import warn
from gpuopt.optim import eight_bit
from gpuopt.optim.extras import DEFAULTS, LOCAL, check
from gpuopt.optim.originals import MASTER, REMAINDER, as_kept, as_saved, check_saved
from gpuopt.optim.shards import is_shard
from gpuopt.optim.state import EMA, STEP, encoded, missing_from

if TYPE_CHECKING:
    from gpuopt.optim.base import Fused

_SAVED = {name: default for name, default in DEFAULTS.items() if name not in LOCAL}
"""Extras that are saved."""


class _Box:
    """Hides a tensor from torch's loading."""

    def __init__(self, tensor: torch.Tensor) -> None:
        self.tensor = tensor


@contextmanager
def saving(optimizer: Fused, dtype: torch.dtype | None = None) -> Iterator[None]:
    """In this context ``optimizer.state_dict`` has plain dicts of state, for who loads it elsewhere, and the extras.

    These are in each of its groups, where all that copies and cuts state dicts leaves them. It does so before the
    post-hooks of ``optimizer``. Where there is a ``dtype``, values of it are in place of state in 8 bits.
    """
    left_out = LOCAL if dtype is None or optimizer.state_dtype != BITS else {*LOCAL, "state_dtype"}

    def complete(_: Any, state_dict: dict[str, Any]) -> dict[str, Any]:
        states, groups = state_dict["state"], state_dict["param_groups"]
        extras = {name: getattr(optimizer, name) for name in DEFAULTS if name not in left_out}
        extras = {name: value for name, value in extras.items() if value != _SAVED[name]}
        plain = {k: _saved(own, optimizer.rule, dtype) if isinstance(own, dict) else own for k, own in states.items()}
        return {**state_dict, "state": plain, "param_groups": [{**group, **extras} for group in groups]}

    handle = optimizer.register_state_dict_post_hook(complete, prepend=True)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def loading(optimizer: Fused) -> Iterator[None]:
    """In this context ``optimizer.load_state_dict`` restores the extras, and state as it is, but for its device.

    It takes the state dict as the pre-hooks of ``optimizer`` leave it, and is done before its post-hooks.

    Raises:
        TypeError, ValueError: The state dict is of another rule, or state is incomplete, or an extra cannot be.
    """
    extras: dict[str, Any] = {}

    def take(_: Any, state_dict: dict[str, Any]) -> dict[str, Any]:
        kept = {
            key: eight_bit.as_kept(entries, optimizer.rule) if isinstance(entries, dict) else entries
            for key, entries in state_dict["state"].items()
        }
        _check(optimizer, {**state_dict, "state": kept})
        extras.update(_carried_by(state_dict["param_groups"]))
        check(extras, type(optimizer).__name__, optimizer.rule)
        groups = [{k: v for k, v in group.items() if k not in _SAVED} for group in state_dict["param_groups"]]
        boxed = {key: _boxed(entries) for key, entries in kept.items()}
        return {**state_dict, "state": boxed, "param_groups": groups}

    def give(_: Any) -> None:
        _unbox(optimizer)
        _restore(optimizer, extras)
        _encode(optimizer)

    handles = [
        optimizer.register_load_state_dict_pre_hook(take),
        optimizer.register_load_state_dict_post_hook(give, prepend=True),
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
        _unbox(optimizer)  # should torch have failed midway


def _check(optimizer: Fused, state_dict: Mapping[str, Any]) -> None:
    """Refuses a state dict of another rule, which torch would take, and state that lacks what must be there.

    That groups have other settings tells it, by numbers alone: switches came to ``torch.optim`` one by one, and old
    checkpoints have not all of them. What an option needs may be missing, of a parameter that has had no gradient since
    it was switched on.
    """
    owner = type(optimizer).__name__
    numbers = {name for name, value in optimizer.defaults.items() if _is_numeric(value)}
    listed: set[Any] = set()
    for group in state_dict["param_groups"]:
        lacking = sorted(numbers - set(group))
        if lacking:
            raise ValueError(f"state_dict must be of {owner}, but its groups have no {', '.join(lacking)}")
        listed.update(group["params"])
    for key, entries in state_dict["state"].items():
        if key in listed and isinstance(entries, dict):
            check_saved(entries, f"{key}")
            eight_bit.check_entries(entries, optimizer.rule, f"parameter {key}")
            lacking = missing_from(entries, optimizer.rule, optimizer.rule.required)
            if lacking:
                raise ValueError(
                    f"state_dict must be of {owner}, but state of parameter {key} has no {', '.join(lacking)}"
                )


def _is_numeric(value: Any) -> bool:
    if isinstance(value, tuple | list):
        return all(map(_is_numeric, value))
    return isinstance(value, Real | torch.Tensor) and not isinstance(value, bool)


def _carried_by(groups: list[dict[str, Any]]) -> dict[str, Any]:
    """The extras that the groups of a state dict carry; what is not there is at its default."""
    extras = {}
    for name, default in _SAVED.items():
        values = [group.get(name, default) for group in groups]
        if any(value != values[0] for value in values):
            raise ValueError(f"{name} must be the same in all groups of a state dict, but is {values}")
        extras[name] = values[0] if values else default
    return extras


def _restore(optimizer: Fused, extras: Mapping[str, Any]) -> None:
    """Sets extras to what was loaded, unless somebody has said otherwise."""
    unsaid = optimizer._unsaid
    for name, value in extras.items():
        current = getattr(optimizer, name)
        if name in unsaid and current == unsaid[name]:
            unsaid[name] = value
            setattr(optimizer, name, value)
        elif current != value and value != _SAVED[name]:
            warn(f"{name} stays {current!r}, as this optimizer was told, where the state dict has {value!r}")
    for name, entry in (("ema_decay", EMA), ("master_weights", MASTER), ("master_weights", REMAINDER)):
        kept = any(isinstance(entries, dict) and entry in entries for entries in optimizer.state.values())
        if kept and name in unsaid and not getattr(optimizer, name):
            warn(f"the state dict has {entry}, but says nothing of {name}: set it, or the next step drops {entry}")


def _encode(optimizer: Fused) -> None:
    """Encodes slots that are to be in 8 bits, where they fit their parameter; the rest is for a step to refuse."""
    if optimizer.state_dtype != BITS:
        return
    for param, entries in optimizer.state.items():
        if not (isinstance(param, torch.Tensor) and isinstance(entries, dict)) or param.is_complex():
            continue
        there = [slot for slot in optimizer.rule.slots if entries.get(slot) is not None]
        fitting = [slot for slot in there if _fits(entries[slot], param)]
        if has_reduced(optimizer.rule) and len(fitting) < len(there):
            continue
        for slot in fitting:
            entries.update(encoded(param, entries, optimizer.rule, slot))
            del entries[slot]


def _fits(values: Any, param: torch.Tensor) -> bool:
    """Whether a slot has what can be encoded for a parameter."""
    if not isinstance(values, torch.Tensor) or is_shard(values) != is_shard(param):
        return False
    return values.layout is torch.strided and values.is_floating_point() and values.shape == param.shape


def _saved(entries: Mapping[str, Any], rule: Rule, dtype: torch.dtype | None) -> dict[str, Any]:
    """A plain dict of the state of one parameter."""
    saved = eight_bit.as_saved(entries, rule) if dtype is None else eight_bit.as_values(entries, rule, dtype)
    if isinstance(saved.get(REMAINDER), torch.Tensor):
        saved[REMAINDER] = as_saved(saved[REMAINDER])
    return saved


def _boxed(entries: Any) -> Any:
    if not isinstance(entries, dict):
        return entries
    boxes = {name: _Box(value) for name, value in entries.items() if name != STEP and isinstance(value, torch.Tensor)}
    return {**entries, **boxes}


def _unbox(optimizer: Fused) -> None:
    for param, entries in optimizer.state.items():
        if not isinstance(entries, dict):
            continue
        for name, value in entries.items():
            if isinstance(value, _Box):
                moves = isinstance(param, torch.Tensor)
                tensor = value.tensor.to(param.device) if moves else value.tensor
                entries[name] = as_kept(tensor) if name == REMAINDER else tensor
