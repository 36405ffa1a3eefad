"""The state of one parameter: made, laid out as the parameter is, and seen as real numbers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import torch

from gpuopt.kernels.rules import Rule
from gpuopt.optim.originals import MASTER, NARROW, REMAINDER, MasterWeights, original_in, remainder_dtype, values_of
from gpuopt.optim.shards import local

STEP, EMA = "step", "ema"


class Wanted(NamedTuple):
    """What the state of a parameter is to hold.

    Attributes:
        slots: State slots of the rule.
        initial: What they start from; a complex slot from this in both of its parts.
        dtype: Theirs; None for that of the parameter, or of its original.
        master: Whether a parameter of 16 bits has an original, and which.
        average: Whether there is an average of the parameter.
    """

    slots: tuple[str, ...]
    initial: float = 0.0
    dtype: torch.dtype | None = None
    master: MasterWeights = False
    average: bool = False


def state_of(param: torch.Tensor, old: dict[str, Any], wanted: Wanted) -> dict[str, Any]:
    """``old`` with what is wanted and not there made new, and with the layout of ``param``; ``old`` is not changed.

    What is switched off is dropped: an original or an average that was not updated would be stale. A new remainder is
    zero; what an earlier original has beyond the parameter is for :func:`~gpuopt.optim.originals.adopt`.
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
    own_dtype = torch.float32 if is_mastered else None
    for slot in wanted.slots:
        if state.get(slot) is None:
            state[slot] = _full_like(base, wanted.initial, wanted.dtype or own_dtype)
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
    has_begun = any(state.get(slot) is not None for slot in slots)
    return state[STEP] if STEP in state and (has_begun or not slots) else float(has_begun)


def missing_from(state: Mapping[str, Any], rule: Rule, slots: Iterable[str]) -> list[str]:
    """What must be in the state of a parameter that has been stepped, and is not: ``slots``, and the step count.

    Where a rule requires no slot, as SGD's does not, there is nothing that must be.
    """
    if not rule.required or not any(
        state.get(name) is not None for name in (STEP, MASTER, REMAINDER, EMA, *rule.slots)
    ):
        return []
    return [name for name in (STEP, *slots) if state.get(name) is None]


def check_state(name: str, state: Mapping[str, Any], rule: Rule, slots: Iterable[str]) -> None:
    """Refuses the state of the parameter called ``name`` where something is missing.

    Raises:
        ValueError: As :func:`missing_from` says. Made anew, it would not belong to the step count.
    """
    lacking = missing_from(state, rule, slots)
    if lacking:
        raise ValueError(
            f"state of param {name} must have {', '.join(lacking)}, but has {', '.join(state)} alone: put back what "
            "was deleted, or clear all of the state of this parameter to start anew"
        )


def _full_like(base: torch.Tensor, value: float, dtype: torch.dtype | None) -> torch.Tensor:
    if base.is_complex():
        return torch.full_like(base, complex(value, value))
    return torch.full_like(base, value, dtype=dtype)


def _laid_out_like(param: torch.Tensor, tensor: torch.Tensor) -> torch.Tensor:
    """``tensor`` itself, or a copy in the layout of ``param`` where that is dense and another."""
    tensor = tensor.resolve_conj()
    wanted = torch.empty_like(local(param), dtype=tensor.dtype, device="meta").stride()
    if tensor.shape != param.shape or local(tensor).stride() == wanted:
        return tensor
    return torch.empty_like(param, dtype=tensor.dtype).copy_(tensor)
