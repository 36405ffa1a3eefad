"""State in 8 bits as the host sees it: two arrays for a slot, made of its values and made values again by the oracle.

A slot ``exp_avg`` has no entry of that name then, but ``exp_avg_codes`` and ``exp_avg_scales``, so that nobody takes
codes for values. Codes have the shape of the parameter; blocks are of codes that follow each other in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Any, Literal, NamedTuple, TypeGuard

import numpy as np

from gpuopt.kernels import blocks
from gpuopt.kernels.formats import BLOCK, EIGHT_BIT, FORMATS, Format, Plane
from gpuopt.kernels.rules import Rule

EightBit = Literal["8bit"]

BITS: EightBit = "8bit"
"""What a ``state_dtype`` is called that is no dtype."""

_AT_ONCE = BLOCK << 11
"""Elements, so that temporaries stay small."""

_HALF = 0x8000
"""Random bits that round to nearest."""

Array = np.ndarray[Any, Any]


class Names(NamedTuple):
    """What the entries of a slot in 8 bits are called."""

    codes: str
    scales: str


def names_of(slot: str) -> Names:
    """The names of the entries of ``slot``."""
    return Names(f"{slot}_codes", f"{slot}_scales")


def entries_of(slots: Iterable[str]) -> list[str]:
    """The names of all entries that slots may have, in 8 bits or not."""
    return [name for slot in slots for name in (slot, *names_of(slot))]


def lacking(slot: str, present: Collection[str]) -> list[str]:
    """What is not there of a slot: nothing if it is among the names that are ``present``, or both its entries are."""
    if slot in present:
        return []
    names = names_of(slot)
    missing = [name for name in names if name not in present]
    return missing if len(missing) < len(names) else [slot]


def format_of(rule: Rule, slot: str) -> Format:
    """The format of 8 bits of a slot."""
    return EIGHT_BIT[rule.kinds[slot]]


def format_called(rule: Rule, slot: str, name: str) -> Format:
    """The format of a slot by its name; of a state slot by :data:`BITS`, the one of 8 bits that is for it."""
    return format_of(rule, slot) if name == BITS else FORMATS[name]


def planes_of(rule: Rule) -> dict[str, Plane]:
    """By the name of each entry that slots in 8 bits may have, what is in it."""
    kinds = {slot: EIGHT_BIT.get(kind) for slot, kind in rule.kinds.items()}
    return {
        name: plane
        for slot, format in kinds.items()
        if format is not None
        for name, plane in zip(names_of(slot), format.planes, strict=True)
    }


def check_rule(rule: Rule, owner: str) -> None:
    """Refuses a rule whose state does not fit 8 bits.

    Raises:
        ValueError: A slot of it is a sum.
    """
    for slot, kind in rule.kinds.items():
        if kind not in EIGHT_BIT:
            raise ValueError(
                f"state_dtype must not be {BITS!r} for {owner}, whose {slot} only grows, so that what is added to it "
                "would soon be less than half a unit of 8 bits"
            )


def has_reduced(rule: Rule) -> bool:
    """Whether what is encoded of a slot depends on other slots."""
    return rule.relation is not None and rule.relation.numpy_reduce is not None


def reduced(rule: Rule, slot: str, values_of: Callable[[str], Any]) -> Any:
    """What is encoded of a slot, of which ``values_of`` says the values, as of any other, None where it is absent.

    A difference that rounding has made negative is 0, where there are squares.
    """
    relation = rule.relation
    if relation is None or relation.numpy_reduce is None or rule.kinds[slot] != "square":
        return values_of(slot)
    return relation.numpy_reduce(None, *map(values_of, rule.slots))[rule.slots.index(slot)].clip(0)


def restored(rule: Rule, slot: str, values_of: Callable[[str], Any]) -> Any:
    """The values of a slot, of what ``values_of`` says was decoded of any, None where one is absent."""
    relation = rule.relation
    if relation is None or relation.numpy_reduce is None:
        return values_of(slot)
    return relation.numpy_restore(None, *map(values_of, rule.slots))[rule.slots.index(slot)]


def is_8bit(state_dtype: Any) -> TypeGuard[EightBit]:
    """Whether what is given for a ``state_dtype`` is that of 8 bits."""
    return isinstance(state_dtype, str) and state_dtype == BITS


def encode(values: Array, format: Format) -> tuple[Array, Array]:
    """Codes and scales of ``values``, of one dimension, each rounded to the nearest code.

    Of values that were decoded they are what those were decoded from, but for blocks that are not finite, and for codes
    whose values float32 cannot tell apart, since their scale is among the smallest.
    """
    codes = np.empty(values.size, format.planes[0].storage)
    scales = np.empty(format.planes[1].entries(values.size), format.planes[1].storage)
    random = np.full(min(values.size, _AT_ONCE), _HALF, np.uint32)
    with np.errstate(all="ignore"):
        for few, own in _parts(values.size):
            part = values[few].astype(np.float32)
            codes[few], scales[own] = blocks.store(format, part, random[: part.size])
    return codes, scales


def decode(codes: Array, scales: Array, format: Format) -> Array:
    """The values of codes, of one dimension, in float32."""
    values = np.empty(codes.size, np.float32)
    with np.errstate(all="ignore"):
        for few, own in _parts(codes.size):
            values[few] = blocks.load(format, (codes[few], scales[own]))
    return values


def _parts(numel: int) -> Iterator[tuple[slice, slice]]:
    """Elements that are few enough for once, and their blocks."""
    for start in range(0, numel, _AT_ONCE):
        stop = min(start + _AT_ONCE, numel)
        yield slice(start, stop), slice(start // BLOCK, -(-stop // BLOCK))
