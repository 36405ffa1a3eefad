"""The state of one parameter: made, laid out as the parameter is, and seen as real numbers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import torch

from gpuopt.eight_bit import BITS, EightBit, entries_of, format_of, has_reduced, lacking, names_of
from gpuopt.kernels.rules import Rule
from gpuopt.optim.eight_bit import check_entries, decode, encode, encoded_in, to_encode, values_in, zeros
from gpuopt.optim.originals import MASTER, NARROW, REMAINDER, MasterWeights, original_in, remainder_dtype, values_of
from gpuopt.optim.shards import local

STEP, EMA = "step", "ema"


class Wanted(NamedTuple):
    """What the state of a parameter is to hold.

    Attributes:
        rule: Whose state it is.
        slots: State slots of the rule.
        initial: What they start from; a complex slot from this in both of its parts.
        dtype: Theirs; None for that of the parameter, or of its original, and ``"8bit"`` for codes and scales of a real
            one.
        master: Whether a parameter of 16 bits has an original, and which.
        average: Whether there is an average of the parameter.
    """

    rule: Rule
    slots: tuple[str, ...]
    initial: float = 0.0
    dtype: torch.dtype | EightBit | None = None
    master: MasterWeights = False
    average: bool = False


def state_of(param: torch.Tensor, old: dict[str, Any], wanted: Wanted) -> dict[str, Any]:
    """``old`` with what is wanted and not there made new, and with the layout of ``param``; ``old`` is not changed.

    What is switched off is dropped: an original or an average that was not updated would be stale. A new remainder is
    zero; what an earlier original has beyond the parameter is for :func:`~gpuopt.optim.originals.adopt`. Slots keep
    their dtype, but are encoded where they are wanted in 8 bits, and decoded where they are in them and not wanted so.
    """
    state = dict(old)
    base = param.detach()
    is_mastered = bool(wanted.master) and param.dtype in NARROW
    original = original_in(old)
    were_cast = original is None and any(old.get(name) is not None for name in (MASTER, REMAINDER))
    for name in (MASTER, REMAINDER):
        state.pop(name, None)
    if is_mastered:
        if were_cast:
            state |= {slot: state[slot].float() for slot in wanted.slots if slot in state and wanted.dtype is None}
        state |= _original_of(base, original, remainder_dtype(param, wanted.master))
    dtype = None if wanted.dtype == BITS else wanted.dtype
    _part_from_dropped(state, wanted)
    for slot in wanted.slots:
        if wanted.dtype == BITS and not param.is_complex():
            state |= encoded(param, state, wanted.rule, slot, wanted.initial)
            state.pop(slot, None)
            continue
        found = encoded_in(state, slot)
        if found is not None:
            state[slot] = values_in(state, wanted.rule, slot, dtype or torch.float32)
        if state.get(slot) is None:
            state[slot] = _full_like(base, wanted.initial, dtype or (torch.float32 if is_mastered else None))
        for name in names_of(slot):
            state.pop(name, None)
    if not wanted.average:
        state.pop(EMA, None)
    elif EMA not in state:
        state[EMA] = base.float() if base.dtype in NARROW else base.clone()
        if is_mastered:
            local(state[EMA]).copy_(values_of(param, old))
    elif state[EMA].dtype in NARROW:  # an average of 16 bits would stand still
        state[EMA] = state[EMA].float()
    for name in {*wanted.slots, MASTER, REMAINDER, EMA} & set(state):
        state[name] = _laid_out_like(param, state[name])
    return state


def _part_from_dropped(state: dict[str, Any], wanted: Wanted) -> None:
    """Has slots in 8 bits mean what they say without others that are not wanted any more, by their relation."""
    slots = [slot for slot in wanted.rule.slots if encoded_in(state, slot) is not None]
    dropped = set(slots).difference(wanted.slots)
    if dropped and has_reduced(wanted.rule):
        state |= {slot: values_in(state, wanted.rule, slot) for slot in slots if slot not in dropped}
        for slot in slots:
            for name in names_of(slot):
                del state[name]


def encoded(
    param: torch.Tensor, state: Mapping[str, Any], rule: Rule, slot: str, initial: float = 0.0
) -> dict[str, torch.Tensor]:
    """The entries of a slot in 8 bits: those of ``state`` if they are laid out as ``param``, or new ones.

    A slot that is there with values, as after loading what is not in 8 bits, goes before any codes.
    """
    made, format = encoded_in(state, slot), format_of(rule, slot)
    values = None if state.get(slot) is None else to_encode(state, rule, slot)
    if made is not None and not _is_laid_out_like(param, made[0]):
        values = decode(*made, format)
    elif made is None and values is None and initial:
        values = _full_like(param.detach(), initial, torch.float32)
    if values is not None:
        made = encode(_laid_out_like(param, values), format)
    return dict(zip(names_of(slot), made or zeros(param), strict=True))


def _original_of(
    base: torch.Tensor, given: tuple[str, torch.Tensor] | None, dtype: torch.dtype | None
) -> dict[str, torch.Tensor]:
    """The entry that holds an original, a remainder if that has a ``dtype``: what is given if it is such, else new."""
    name, tensor = given or ("", base)
    if dtype is None:
        return {MASTER: tensor if name == MASTER else base.float()}
    return {REMAINDER: tensor if name == REMAINDER and tensor.dtype is dtype else torch.zeros_like(base, dtype=dtype)}


def real(tensor: torch.Tensor) -> torch.Tensor:
    """A complex tensor as pairs of reals, any other as it is."""
    return torch.view_as_real(tensor.resolve_conj()) if tensor.is_complex() else tensor


def step_of(state: Mapping[str, Any], slots: Iterable[str]) -> Any:
    """The step count in a state, a number or a tensor; where there is none, whether there has been a step.

    Where no slot of those that are used is there, they begin with the next step, and the count with them.
    """
    slots = tuple(slots)
    has_begun = any(state.get(name) is not None for name in entries_of(slots))
    return state[STEP] if STEP in state and (has_begun or not slots) else float(has_begun)


def missing_from(state: Mapping[str, Any], rule: Rule, slots: Iterable[str]) -> list[str]:
    """What must be in the state of a parameter that has been stepped, and is not: ``slots``, and the step count.

    Where a rule requires no slot, as SGD's does not, there is nothing that must be.
    """
    present = {name for name, entry in state.items() if entry is not None}
    if not rule.required or present.isdisjoint((STEP, MASTER, REMAINDER, EMA, *entries_of(rule.slots))):
        return []
    return [*{STEP}.difference(present), *(name for slot in slots for name in lacking(slot, present))]


def check_state(name: str, state: Mapping[str, Any], rule: Rule, slots: Iterable[str]) -> None:
    """Refuses the state of the parameter called ``name`` where something is missing.

    Raises:
        ValueError: As :func:`missing_from` says. Made anew, it would not belong to the step count. Or as
            :func:`~gpuopt.optim.eight_bit.check_entries`.
    """
    missing = missing_from(state, rule, slots)
    if missing:
        raise ValueError(
            f"state of param {name} must have {', '.join(missing)}, but has {', '.join(state)} alone: put back what "
            "was deleted, or clear all of the state of this parameter to start anew"
        )
    check_entries(state, rule, f"param {name}")


def _full_like(base: torch.Tensor, value: float, dtype: torch.dtype | None) -> torch.Tensor:
    if base.is_complex():
        return torch.full_like(base, complex(value, value))
    return torch.full_like(base, value, dtype=dtype)


def _laid_out_like(param: torch.Tensor, tensor: torch.Tensor) -> torch.Tensor:
    """``tensor`` itself, or a copy in the layout of ``param`` where that is dense and another."""
    tensor = tensor.resolve_conj()
    if _is_laid_out_like(param, tensor):
        return tensor
    return torch.empty_like(param, dtype=tensor.dtype).copy_(tensor)


def _is_laid_out_like(param: torch.Tensor, tensor: torch.Tensor) -> bool:
    """Whether ``tensor`` has the layout of a dense copy of ``param``, or another shape, which checks refuse."""
    wanted = torch.empty_like(local(param), device="meta").stride()
    return tensor.shape != param.shape or local(tensor).stride() == wanted
