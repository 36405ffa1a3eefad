"""Figures from compiled code, in short."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Summary:
    """The worst of all variants of a rule on a driver's kernel and an architecture.

    Attributes:
        driver: Its name, and that of its kernel.
        rule: Its name.
        arch: ``sm_90``, ...
        variants: Their number.
        vector_bytes: The narrowest.
        registers: The most.
        stack: The most bytes.
        occupancy: The least.
        flight: The least of bytes in flight over bytes needed.
        issue: The most of instructions over their budget.
        limits: What the limit is, and for how many variants.
    """

    driver: str
    rule: str
    arch: str
    variants: int
    vector_bytes: int | None
    registers: int | None
    stack: int | None
    occupancy: float | None
    flight: float | None
    issue: float | None
    limits: str


def summaries(kernels: list[dict[str, Any]]) -> list[Summary]:
    """One per driver, kernel, rule and architecture, in the order in which they first come."""
    groups: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
    for kernel in kernels:
        driver = f"{kernel['driver']} {kernel['form']}"
        groups.setdefault((driver, rule_of(kernel), kernel["arch"]), []).append(kernel)
    return [_summary(*key, group) for key, group in groups.items()]


def rule_of(kernel: dict[str, Any]) -> str:
    """The rule that a variant's name begins with."""
    return re.split(r"\W", kernel["variant"], maxsplit=1)[0]


def gpus(code: dict[str, Any]) -> list[str]:
    """What the figures of each architecture are held against."""
    return [
        f"{arch}: {gpu['name']}, {gpu['sms']} SMs, {gpu['gb_per_s']:,g} GB/s, {gpu['clock_mhz']:,} MHz, "
        f"memory answers after {gpu['latency_ns']:,} ns"
        for arch, gpu in code["gpus"].items()
    ]


def tools(code: dict[str, Any]) -> list[str]:
    """What each driver's kernels were compiled with."""
    return [
        f"{driver} by {', '.join(f'{name} {version}' for name, version in versions.items())}"
        for driver, versions in code["toolchain"].items()
    ]


def share(kernel: dict[str, Any], part: str, whole: str) -> float | None:
    """One figure over another; None where one is not known."""
    return None if kernel[part] is None or not kernel[whole] else kernel[part] / kernel[whole]


def _summary(driver: str, rule: str, arch: str, group: list[dict[str, Any]]) -> Summary:
    def known(values: list[Any]) -> list[Any]:
        return [value for value in values if value is not None]

    def least(values: list[Any]) -> Any:
        return min(known(values), default=None)

    def most(values: list[Any]) -> Any:
        return max(known(values), default=None)

    limits = Counter(kernel["limit"] for kernel in group)
    return Summary(
        driver,
        rule,
        arch,
        len(group),
        least([kernel["vector_bytes"] for kernel in group]),
        most([kernel["registers"] for kernel in group]),
        most([kernel["stack"] for kernel in group]),
        least([kernel["occupancy"] for kernel in group]),
        least([share(kernel, "bytes_in_flight", "bytes_needed") for kernel in group]),
        most([share(kernel, "instructions", "budget") for kernel in group]),
        ", ".join(limit if number == len(group) else f"{limit} {number}" for limit, number in limits.most_common()),
    )
