"""Every row of a workload, with its units."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from gpuopt.bench.html.numbers import UNKNOWN, count, elements, memory, percent, rates, stored, times

SIGNS = {"exact": "=", "close": "≈", "wrong": "✗", "broken": "!", "skipped": "○"}
"""Before the word, for those who do not see its colour."""


@dataclass(frozen=True)
class TableRow:
    """A contender; ``note`` is what it computes instead; ``cells`` is empty where it was not timed: ``why`` says so."""

    contender: str
    note: str | None
    status: str
    sign: str
    cells: list[str]
    why: str | None


@dataclass(frozen=True)
class WorkloadTable:
    """A workload; ``facts`` are what it is, ``headings`` those of the rows' cells."""

    title: str
    facts: str
    headings: list[str]
    rows: list[TableRow]


def workload_table(workload: dict[str, Any]) -> WorkloadTable:
    """The table of a workload.

    What only a GPU has, what only runs alone find, and samples that do not count have columns only where there are any.
    """
    rows = workload["rows"]
    columns: list[tuple[str, list[str]]] = []
    for clock in ("device", "step", "call"):
        if clock == "step" or any(row.get(clock) for row in rows):
            columns += _spread_columns(clock, [row.get(clock) or {} for row in rows])
    for what, heading in (("discarded", "discarded"), ("not_queued", "not queued whole")):
        if any(row[what] for row in rows):
            columns.append((heading, [count(row[what]) for row in rows]))
    for what, heading in (("sm_mhz", "SM, MHz"), ("memory_mhz", "memory, MHz"), ("power_w", "power, W")):
        told = [(row["gpu"] or {}).get(what) for row in rows]
        if any(told):
            columns.append((heading, [count(spread and round(spread["median"])) for spread in told]))
    rate, extra = rates(row["gb_per_s"] for row in rows), memory(row["extra_memory"] for row in rows)
    first = times(row["compile"] for row in rows)
    columns += [
        ("GB/s", [rate(row["gb_per_s"]) for row in rows]),
        ("% of copy", [percent(row["copy_share"]) for row in rows]),
        ("launches", [count(row["launches"]) for row in rows]),
    ]
    if any(row["extra_memory"] is not None for row in rows):
        columns.append((f"extra memory, {extra.unit}", [extra(row["extra_memory"]) for row in rows]))
    if any(row["compile"] is not None for row in rows):
        columns.append((f"first step, {first.unit}", [first(row["compile"]) for row in rows]))
    return WorkloadTable(
        workload["title"],
        _facts(workload),
        [heading for heading, _ in columns],
        [
            TableRow(
                row["contender"],
                row["note"],
                row["status"],
                SIGNS[row["status"]],
                [] if row["why"] else [cells[index] for _, cells in columns],
                row["why"],
            )
            for index, row in enumerate(rows)
        ],
    )


def _spread_columns(clock: str, spreads: list[dict[str, Any]]) -> list[tuple[str, list[str]]]:
    scale = times(spread.get("median") for spread in spreads)
    ends = [
        UNKNOWN if spread.get("p10") is None else f"{scale(spread['p10'])} to {scale(spread['p90'])}"
        for spread in spreads
    ]
    return [
        (f"{clock}, {scale.unit}", [scale(spread.get("median")) for spread in spreads]),
        (f"p10 to p90, {scale.unit}", ends),
        ("n", [count(spread.get("n")) for spread in spreads]),
    ]


def _facts(workload: dict[str, Any]) -> str:
    tensors = "1 tensor" if workload["tensors"] == 1 else f"{count(workload['tensors'])} tensors"
    tail = f"with {', '.join(workload['tail'])}; " if workload["tail"] else ""
    return (
        f"{workload['optimizer']}, {workload['front']}, {workload['device']}; {tensors}, "
        f"{elements(workload['numel'])} elements; {stored(workload['formats'])}; {tail}"
        f"{count(workload['bytes'])} bytes moved in a step"
    )
