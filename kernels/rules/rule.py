"""What a rule is: the arithmetic of one optimizer for one element, in three languages."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import compress, product
from typing import Any, Literal

Kind = Literal["signed", "square", "sum"]
"""What a state slot holds, as formats may depend on it: values of either sign, such as averages and buffers; averages
of squares, or the largest of them; or sums that only grow, of which what is added last is a vanishing part."""

MOST_SLOTS = 3
"""State slots that the drivers' kernels are written out for."""


@dataclass(frozen=True, eq=False)
class Relation:
    """What state slots have to do with each other in exact arithmetic, kept where they are stored in few bits.

    The forms are as those of :class:`Rule`, in three languages, and take an absent slot as those do. Where there is a
    ``numpy_reduce``, it and ``numpy_restore`` are of operators alone, which arrays of any library have, make no use of
    ``hyper``, and change nothing but squares.

    Attributes:
        numpy_restore: ``(hyper, *slots) -> slots``: what was loaded, with the relation as it was.
        cuda_restore: Likewise, statements that assign to the slots.
        triton_restore: Likewise, but it returns the slots that are present.
        numpy_reduce: ``(hyper, *slots) -> slots``, what is stored of the new values, which ``numpy_restore`` makes of
            it again; None for all.
        cuda_reduce: Likewise.
        triton_reduce: Likewise, but it returns the slots that are present.
    """

    numpy_restore: Callable[..., Any]
    cuda_restore: str
    triton_restore: Callable[..., Any]
    numpy_reduce: Callable[..., Any] | None = None
    cuda_reduce: str = ""
    triton_reduce: Callable[..., Any] | None = None


@dataclass(frozen=True, eq=False, repr=False)
class Rule:
    """The arithmetic of one optimizer for one element.

    The three forms compute the same operations in the same order, so that they give the same bits.
    A rule's options are its optional slots: centered RMSprop is RMSprop with a ``grad_avg``.

    Attributes:
        name: What a user calls it, ``"adam"``.
        hyper: NamedTuple of the scalars that one step needs, in the order of the forms' ``hyper``.
        required: State slots that are always there, by the names of ``torch.optim``.
        optional: State slots that may be absent. They follow the required ones.
        kinds: What each state slot holds.
        settings: What a user sets besides the learning rate, as ``hyper_at`` and ``triton_hyper`` take it.
        hyper_at: ``(step, lr, *settings) -> hyper``, in float64; the first step is 1.
        triton_hyper: ``(step, lr, settings) -> hyper`` on Triton tensors of float64, of which a setting that is on or
            off is 1 or 0: the same operations in the same order as ``hyper_at``.
        numpy_form: ``(p, g, hyper, *slots) -> (p, *slots)`` on arrays or scalars of the compute dtype,
            with None for an absent slot. This is the oracle. It may change ``p`` and the slots, if they are arrays,
            in place, for a third of the time; never ``g``.
        cuda_form: C++ statements over the lvalues ``p``, ``g`` and each slot, the constants of ``hyper``
            by name, the compute type ``T`` and a ``constexpr bool has_<slot>`` for each optional slot.
        triton_form: As ``numpy_form`` on Triton tensors, but it returns ``(p, (slots that are present))``.
            The Triton forms are undecorated, and ``tl`` and what :mod:`gpuopt.kernels.triton_math` has are bound by the
            Triton driver, so that rules import without Triton.
        continuous: Whether a small change of what goes in makes a small change of what comes out. If it does not, as
            where the sign of a sum counts, a rounding can take a parameter a whole step elsewhere, so that steps in
            another precision part; the state slots must be continuous even so. Drivers give the same bits regardless.
        relation: That of its state slots, if there is one that rounding must not break.
    """

    name: str
    hyper: type[tuple[Any, ...]]
    required: tuple[str, ...]
    optional: tuple[str, ...]
    kinds: dict[str, Kind]
    settings: tuple[str, ...]
    hyper_at: Callable[..., tuple[float, ...]]
    triton_hyper: Callable[..., Any]
    numpy_form: Callable[..., Any]
    cuda_form: str
    triton_form: Callable[..., Any]
    continuous: bool = True
    relation: Relation | None = None

    def __post_init__(self) -> None:
        if not 1 <= len(self.slots) <= MOST_SLOTS:
            raise ValueError(f"{self.name} must have 1 to {MOST_SLOTS} state slots, but has {self.slots}")
        if set(self.kinds) != set(self.slots):
            raise ValueError(f"{self.name} must have a kind for each of its slots {self.slots}, but has {self.kinds}")

    @property
    def slots(self) -> tuple[str, ...]:
        """Every state slot, required ones first."""
        return self.required + self.optional

    @property
    def hyper_fields(self) -> tuple[str, ...]:
        """Names of the scalars in ``hyper``."""
        fields: tuple[str, ...] = self.hyper._fields  # type: ignore[attr-defined]
        return fields

    def option_sets(self) -> Iterator[tuple[str, ...]]:
        """Every set of state slots that this rule can run with."""
        for chosen in product((False, True), repeat=len(self.optional)):
            yield self.required + tuple(compress(self.optional, chosen))

    def __repr__(self) -> str:
        return f"Rule({self.name!r})"
