"""A parameter that has a row, and how it, its gradient and its state lay when the row was made."""

from __future__ import annotations

from typing import Any, NamedTuple, Self

import torch

from gpuopt.eight_bit import EightBit, format_of, lacking, names_of
from gpuopt.kernels.rules import Rule
from gpuopt.kernels.table import Whereabouts
from gpuopt.memory import memory_of
from gpuopt.optim.eight_bit import encoded_in
from gpuopt.optim.extras import rounds_state
from gpuopt.optim.originals import (
    MASTER,
    REMAINDER,
    MasterWeights,
    adopt,
    drop_if_written,
    follow,
    format_with,
    original_in,
)
from gpuopt.optim.shards import check_param, check_placed, local, versions_of, whereabouts
from gpuopt.optim.state import EMA, STEP, Wanted, check_state, real, state_of, step_of
from gpuopt.plan import Stored, Tensor, in_model, stored
from gpuopt.watched import Entries, Touched, plain

address_of = torch.Tensor.data_ptr


class Recipe(NamedTuple):
    """What rows depend on besides tensors.

    Attributes:
        rule: The arithmetic.
        owner: The class of the optimizer, for error messages.
        for_sparse: What to use for sparse gradients instead; empty for nothing.
        takes_sparse: Whether parameters with sparse gradients are stepped otherwise.
        backend, zero_grads, state_dtype, master_weights, stochastic_rounding, norm_group: Those of
            :class:`~gpuopt.optim.extras.Extras`.
        averages: Whether there are averages of the parameters.
        initial: What the first slot starts from.
        scheduled: Whether step counts are on the device, if the backend can follow a schedule.
        replayed: Whether steps may be captured in a CUDA graph.
        slots: For each group the state slots of the rule that it uses.
        counts: For each group whether its state has a step count.
    """

    rule: Rule
    owner: str
    for_sparse: str
    takes_sparse: bool
    backend: str | None
    zero_grads: bool
    state_dtype: torch.dtype | EightBit | None
    master_weights: MasterWeights
    stochastic_rounding: bool
    norm_group: Any
    averages: bool
    initial: float
    scheduled: bool
    replayed: bool
    slots: tuple[tuple[str, ...], ...]
    counts: tuple[bool, ...]


class Look(NamedTuple):
    """What of a tensor a row depends on besides its address."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    is_contiguous: bool
    numel: int

    @classmethod
    def of(cls, tensor: torch.Tensor) -> Self:
        """How ``tensor`` looks."""
        return cls(tensor.dtype, tuple(tensor.shape), tensor.stride(), tensor.is_contiguous(), tensor.numel())


class Member:
    """A parameter that has a row.

    Attributes:
        index: Its place among all parameters of the optimizer, which is that of its row.
        group: Index of its group.
        param: The parameter, which may be a DTensor. All that follows is of what of it is in this process.
        state: Its state, which the optimizer is given once a step is about to be taken.
        look, grad_look: How it and its gradient looked, the latter as real numbers.
        address: Where the parameter was.
        misaligned: Bytes by which its gradient missed the alignment of its elements.
        state_addresses: The tensors of the state but the step count, which is a view of ours, and where they were.
        earlier: An entry of the state before, from which an original that is new is to go on.
    """

    def __init__(self, index: int, group: int, param: torch.Tensor, grad: torch.Tensor, state: Entries) -> None:
        """A member, as it is now; ``grad`` as what of it is in this process, and real numbers."""
        self.index, self.group, self.param, self.state = index, group, param, state
        self.look, self.grad_look, self.address = Look.of(local(param)), Look.of(grad), address_of(local(param))
        self.misaligned = address_of(grad) % grad.element_size()
        tensors = [entry for name, entry in dict.items(state) if name != STEP and isinstance(entry, torch.Tensor)]
        self.state_addresses = [(tensor, address_of(local(tensor))) for tensor in tensors]
        self.earlier: torch.Tensor | None = None

    @property
    def has_original(self) -> bool:
        """Whether the parameter is rounded from an original."""
        return self.state.entry(MASTER) is not None or self.state.entry(REMAINDER) is not None

    @property
    def is_as_left(self) -> bool:
        """Whether nobody is known to have written to the parameter since its original was known to belong to it."""
        return self.state.versions == versions_of(self.param)

    def renew_original(self) -> None:
        """Has the original follow where others have written to the parameter since it was stepped."""
        if self.is_as_left:
            return
        original = self.state.entry(MASTER)
        if original is not None:
            follow(local(self.param).detach(), local(original))
            self.keep_versions()
        else:
            drop_if_written(self.param, self.state)

    def adopt(self) -> None:
        """Has an original that is new go on from the earlier one, where there is one, when the step is about to write.

        The parameter may be changed too, which with its remainder is what it was.
        """
        if self.earlier is not None:
            adopt(local(self.param).detach(), local(self.state.entry(REMAINDER)), local(self.earlier))
            self.earlier = None

    def descend_from(self, given: dict[str, Any]) -> None:
        """Notes what is known of the original from the state before: nothing, where that was loaded."""
        earlier = original_in(plain(given))
        remainder = self.state.entry(REMAINDER)
        if earlier is None:
            self.keep_versions()
        elif remainder is not None:
            self.state.versions = given.versions if isinstance(given, Entries) else None
            self.earlier = None if earlier[1].dtype is remainder.dtype else earlier[1]

    def keep_versions(self) -> None:
        """Notes that the parameter is what its original is rounded to."""
        self.state.versions = versions_of(self.param)

    def holds(self, grad: torch.Tensor) -> bool:
        """Whether the row still holds, with this gradient wherever it is."""
        param = local(self.param)
        return (
            grad.layout is torch.strided
            and not grad.is_neg()
            and bool(address_of(grad) or not grad.numel())
            and address_of(grad) % grad.element_size() == self.misaligned
            and address_of(param) == self.address
            and Look.of(param) == self.look
            and Look.of(real(grad)) == self.grad_look
            and all(address_of(local(tensor)) == address for tensor, address in self.state_addresses)
        )


def member_of(
    recipe: Recipe,
    index: int,
    group: int,
    name: str,
    param: torch.Tensor,
    own_grad: torch.Tensor,
    given: dict[str, Any],
    touched: Touched,
) -> tuple[Member, Tensor, Any]:
    """A parameter that has a gradient, checked, with what is missing of its state made.

    ``own_grad`` is what of its gradient is in this process. The state that is ``given`` is not changed. In ``touched``
    it is noted what others do to the new one.

    Returns:
        Itself, the slots of its row, and its steps so far, a number or a tensor of one element.

    Raises:
        TypeError, ValueError, RuntimeError: Parameter or gradient cannot be used.
    """
    if own_grad.is_sparse:
        advice = f", please consider {recipe.for_sparse} instead" if recipe.for_sparse else ""
        raise RuntimeError(f"{recipe.owner} does not support sparse gradients{advice} (grad {name})")
    if param.is_conj():
        raise ValueError(f"param {name} must not be a view that conjugates, but is one: call resolve_conj()")
    check_param(param, name)
    drop_if_written(param, given)
    base, grad, slots = real(local(param).detach()), real(own_grad), recipe.slots[group]
    memory_of(base, f"param {name}")
    old = plain(given)
    made = given.made if isinstance(given, Entries) else frozenset()
    check_state(name, old, recipe.rule, [s for s in slots if s in recipe.rule.required or not lacking(s, made)])
    if any(isinstance(old.get(slot), torch.Tensor) and old[slot].is_sparse for slot in slots):
        raise RuntimeError(f"state of param {name} must be dense, as its gradient is, but is sparse: clear it")
    wanted = Wanted(recipe.rule, slots, recipe.initial, recipe.state_dtype, recipe.master_weights, recipe.averages)
    placed = (*slots, *(names_of(slot).codes for slot in slots), MASTER, REMAINDER, EMA)
    check_placed(param, name, {key: old[key] for key in placed if old.get(key) is not None})
    state = state_of(param, old, wanted)
    count = step_of(old, slots)
    if recipe.counts[group]:
        state[STEP] = count
    # Tensors that we have not made ourselves are in the hands of whoever has put them there.
    is_lent = given.is_lent if isinstance(given, Entries) else bool(given)
    rounds = rounds_state(recipe.stochastic_rounding, recipe.state_dtype)
    own = [_slot_of(state, recipe.rule, slot, rounds) if slot in slots else None for slot in recipe.rule.slots]
    average = real(local(state[EMA])) if recipe.averages else None
    member = Member(index, group, param, grad, Entries(state, index, touched, is_lent))
    stepped: Any = stored(base, recipe.stochastic_rounding)
    copy = None
    if MASTER in state:
        stepped, copy = local(state[MASTER]), base
    elif REMAINDER in state:
        remainder = local(state[REMAINDER])
        stepped = Stored(format_with(remainder), (base, remainder))
    if member.has_original:
        member.descend_from(given)
    is_random = any(isinstance(slot, Stored) and slot.format.is_random for slot in (stepped, *own))
    where = in_model(index, whereabouts(param, name)) if is_random else Whereabouts()
    return member, Tensor(name, (stepped, grad, *own, average, copy), whereabouts=where), count


def _slot_of(state: dict[str, Any], rule: Rule, slot: str, rounds: bool) -> Any:
    """A slot as a :class:`~gpuopt.plan.Tensor` takes it, what of it is in this process."""
    found = encoded_in(state, slot)
    if found is not None:
        codes, scales = found
        return Stored(format_of(rule, slot), (local(codes), scales))
    return stored(real(local(state[slot])), rounds)
