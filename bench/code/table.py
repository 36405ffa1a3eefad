"""The section on compiled code as tables for a terminal."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

SHOWN = ("fp32", "bf16")
"""Formats that a rule has a row for: those in which it is stored throughout."""

LIMITS = ("memory", "latency", "issue")

LEGEND = (
    "Each row has the worst figures over a rule's options. Wide: bytes of an access. Regs: of a thread, + bytes "
    "spilled. Occ.: share of an SM's warps. Flight: KiB of an SM, of those that memory needs to be busy. Waits: loads "
    "one after the other. Instr.: of a thread per element, of those for which there is time."
)

Kernel = dict[str, Any]


def tables(section: dict[str, Any]) -> RenderableType:
    """A table for each architecture, what its figures mean, and what was skipped."""
    made: list[RenderableType] = [_table(arch, section) for arch in section["archs"] if section["kernels"]]
    made.append(Text(f"{LEGEND} {section['note']}", style="dim"))
    made += [Text(f"{each['what']} was skipped: {each['why']}", style="yellow") for each in section["skipped"]]
    return Group(*made)


def _table(arch: str, section: dict[str, Any]) -> Table:
    """A row for each kernel of a driver, rule and format, with the worst of each figure over the rule's options."""
    gpu = section["gpus"][arch]
    table = Table(
        title=f"{arch}, {gpu['name']}: {gpu['gb_per_s']:,.0f} GB/s, computed from code",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        title_style="bold",
        title_justify="left",
        caption=_others(arch, section["kernels"]),
        caption_style="dim",
        caption_justify="left",
    )
    table.add_column("kernel", no_wrap=True)
    for heading in ("wide", "regs", "occ.", "flight", "waits", "instr."):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("limit", no_wrap=True)
    for kernel, group in _rows(arch, section["kernels"]).items():
        flight = max(group, key=lambda each: each["bytes_needed"] / each["bytes_in_flight"])
        issue = max(group, key=lambda each: each["instructions"] / each["budget"])
        table.add_row(
            kernel,
            str(min(each["vector_bytes"] for each in group)),
            _registers(group),
            f"{min(each['occupancy'] for each in group):.0%}",
            f"{flight['bytes_in_flight'] / 1024:.0f}/{flight['bytes_needed'] / 1024:.0f}",
            str(max(each["waits"] for each in group)),
            f"{issue['instructions']:.0f}/{issue['budget']:.0f}",
            _limits(group),
        )
    return table


def _rows(arch: str, kernels: Sequence[Kernel]) -> dict[str, list[Kernel]]:
    """The kernels of each row, by what the row is called."""
    rows: dict[str, list[Kernel]] = {}
    for kernel in kernels:
        stored = _stored(kernel)
        if kernel["arch"] == arch and stored in SHOWN:
            rule = kernel["variant"].partition("(")[0]
            form = "" if kernel["form"] == "step" else f"{kernel['form']} "
            rows.setdefault(f"{kernel['driver']} {form}{rule} {stored}", []).append(kernel)
    return rows


def _stored(kernel: Kernel) -> str | None:
    """The format of every slot; None where they differ."""
    formats = set(re.findall(r"=(\w+)", kernel["variant"]))
    return formats.pop() if len(formats) == 1 else None


def _registers(kernels: Sequence[Kernel]) -> str:
    most, spilled = (max(each[key] for each in kernels) for key in ("registers", "stack"))
    return f"{most}+{spilled}" if spilled else str(most)


def _limits(kernels: Sequence[Kernel]) -> str:
    """What some of them reach before memory; memory where none does."""
    found = {kernel["limit"] for kernel in kernels}
    return ", ".join(limit for limit in LIMITS if limit in found and (limit != "memory" or len(found) == 1))


def _others(arch: str, kernels: Sequence[Kernel]) -> str | None:
    """A sentence on the kernels that have no row."""
    limits = [kernel["limit"] for kernel in kernels if kernel["arch"] == arch and _stored(kernel) not in SHOWN]
    if not limits:
        return None
    counted = ", ".join(f"{limit} ({limits.count(limit)})" for limit in LIMITS if limit in limits)
    return f"and {len(limits)} kernels in other formats, limited by {counted}"
