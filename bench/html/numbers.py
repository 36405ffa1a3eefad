"""Numbers as text. What stands in one column or chart shares its unit and its decimals."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

UNKNOWN = "\N{EN DASH}"
"""Stands where nothing is known or nothing was measured."""

TIMES = (("ns", 1e-9), ("µs", 1e-6), ("ms", 1e-3), ("s", 1.0))
RATES = (("GB/s", 1.0),)
MEMORY = (("bytes", 1.0), ("KiB", 2.0**10), ("MiB", 2.0**20), ("GiB", 2.0**30), ("TiB", 2.0**40))
SUPERSCRIPTS = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")


@dataclass(frozen=True)
class Scale:
    """How to write numbers that are compared with each other.

    Attributes:
        unit: What they are given in, for a heading.
        size: One unit.
        decimals: Of each of them.
    """

    unit: str
    size: float
    decimals: int

    def __call__(self, value: float | None) -> str:
        """The number without its unit."""
        if not value:
            return UNKNOWN if value is None else "0"
        return f"{value / self.size:,.{self.decimals}f}"


def scale(values: Iterable[float | None], units: tuple[tuple[str, float], ...]) -> Scale:
    """A unit from the middle of the values' range, and three digits for the smallest that is not zero."""
    known = [value for value in values if value is not None and value > 0]
    if not known:
        return Scale(*units[0], decimals=0)
    middle = math.sqrt(min(known)) * math.sqrt(max(known))
    unit, size = max((entry for entry in units if entry[1] <= middle), default=units[0], key=lambda entry: entry[1])
    whole = unit == MEMORY[0][0]
    return Scale(unit, size, 0 if whole else min(max(2 - math.floor(math.log10(min(known) / size)), 0), 6))


def times(values: Iterable[float | None]) -> Scale:
    """For seconds."""
    return scale(values, TIMES)


def memory(values: Iterable[float | None]) -> Scale:
    """For bytes."""
    return scale(values, MEMORY)


def rates(values: Iterable[float | None]) -> Scale:
    """For 10^9 bytes per second."""
    return scale(values, RATES)


def with_unit(value: float, units: tuple[tuple[str, float], ...]) -> str:
    """A number that stands alone."""
    own = scale([value], units)
    return f"{own(value)} {own.unit}"


def percent(share: float | None) -> str:
    """A share without its sign, which belongs into the heading."""
    return UNKNOWN if share is None else f"{100 * share:.1f}"


def count(value: int | None) -> str:
    """A whole number."""
    return UNKNOWN if value is None else f"{value:,}"


def tenths(value: float | None) -> str:
    """A number with one decimal at most."""
    return UNKNOWN if value is None else f"{round(value, 1):,.12g}"


def elements(numel: int) -> str:
    """A number of elements, as a power of two if it is one."""
    exponent = numel.bit_length() - 1
    return f"2{str(exponent).translate(SUPERSCRIPTS)}" if numel > 1 and numel == 1 << exponent else f"{numel:,}"


def stored(formats: dict[str, str]) -> str:
    """How slots are stored: the one format of all, or each of them."""
    names = set(formats.values())
    return f"all {names.pop()}" if len(names) == 1 else ", ".join(f"{slot} {name}" for slot, name in formats.items())


def duration(seconds: float | None) -> str:
    """A stretch of time for people."""
    if seconds is None:
        return UNKNOWN
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{seconds:.1f} s"
