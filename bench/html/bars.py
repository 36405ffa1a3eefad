"""Bars of one workload, one per contender."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from gpuopt.bench.html.looks import OURS, Look
from gpuopt.bench.html.numbers import RATES, count, memory, percent, rates, with_unit
from gpuopt.bench.ratio import times_as_fast

RANKED = ("exact", "close")
"""Only contenders with these verdicts are ranked."""

ROOM = 96.0
"""Percent of the width that the longest bar takes."""


@dataclass(frozen=True)
class Bar:
    """One contender that was measured.

    Attributes:
        contender: Its name.
        note: What it computes, where that is not what the workload says; else None.
        look: Its look.
        value: The number, written.
        share: Percent of the copy bandwidth, written; None where that makes no sense.
        position: Where the bar ends, in percent of the width.
    """

    contender: str
    note: str | None
    look: Look
    value: str
    share: str | None
    position: float


@dataclass(frozen=True)
class Bars:
    """A chart.

    Attributes:
        title: The workload's.
        unit: Of all values.
        bars: The best first.
        logarithmic: Whether positions are: then they are dots, since a length would mean nothing.
        copy: Where the copy bandwidth is, in percent of the width; None where it is not known or makes no sense.
        copy_text: That, written.
        failed: Rows of contenders that are wrong or broken; they have no bar.
        skipped: Names of those that cannot run here.
        comparison: How gpuopt compares with the others, in a sentence, or None.
        label: The chart in a sentence, for those who do not see it.
    """

    title: str
    unit: str
    bars: list[Bar]
    logarithmic: bool
    copy: float | None
    copy_text: str | None
    failed: list[dict[str, Any]]
    skipped: list[str]
    comparison: str | None
    label: str


def speed(workload: dict[str, Any], copy: float | None, looks: dict[str, Look]) -> Bars:
    """GB/s, with the copy bandwidth to compare with."""
    rows = _ranked(workload, "gb_per_s", best_first=-1)
    scale = rates([row["gb_per_s"] for row in rows] + [copy])
    most = max([row["gb_per_s"] for row in rows] + [copy or 0.0], default=0.0)
    bars = [
        Bar(
            row["contender"],
            row["note"],
            looks[row["contender"]],
            scale(row["gb_per_s"]),
            percent(row["copy_share"]),
            ROOM * row["gb_per_s"] / most,
        )
        for row in rows
    ]
    copied = None if copy is None else with_unit(copy, RATES)
    return _chart(
        workload,
        "GB/s",
        bars,
        copy=ROOM * copy / most if copy else None,
        copy_text=copied,
        compared=comparison(rows),
        more=f"; a copy of one tensor runs at {copied}" if copied else "",
    )


def launches(workload: dict[str, Any], looks: dict[str, Look]) -> Bars:
    """Launches per step, on a logarithmic axis that begins at one."""
    rows = _ranked(workload, "launches")
    most = max([row["launches"] for row in rows] + [10])
    bars = [
        Bar(
            row["contender"],
            row["note"],
            looks[row["contender"]],
            count(row["launches"]),
            None,
            100 - ROOM + (2 * ROOM - 100) * math.log(max(row["launches"], 1)) / math.log(most),
        )
        for row in rows
    ]
    return _chart(workload, "launches", bars, logarithmic=True)


def extra_memory(workload: dict[str, Any], looks: dict[str, Look]) -> Bars:
    """Most bytes beyond parameters, gradients and state."""
    rows = _ranked(workload, "extra_memory")
    scale = memory(row["extra_memory"] for row in rows)
    most = max([row["extra_memory"] for row in rows] + [1])
    bars = [
        Bar(
            row["contender"],
            row["note"],
            looks[row["contender"]],
            scale(row["extra_memory"]),
            None,
            ROOM * row["extra_memory"] / most,
        )
        for row in rows
    ]
    return _chart(workload, scale.unit, bars)


def comparison(rows: list[dict[str, Any]]) -> str | None:
    """The fastest of gpuopt against the fastest of the others that do the same; the rows are ranked, the best first."""
    rows = [row for row in rows if row["note"] is None]
    ours = next((row for row in rows if row["contender"].startswith(OURS)), None)
    other = next((row for row in rows if not row["contender"].startswith(OURS)), None)
    if ours is None or other is None:
        return None
    ratio = times_as_fast(ours, other).value
    return f"{ours['contender']} is {ratio:.2f} times as fast as {other['contender']}, the fastest of the others."


def _ranked(workload: dict[str, Any], metric: str, best_first: int = 1) -> list[dict[str, Any]]:
    known = [row for row in workload["rows"] if row["status"] in RANKED and row[metric] is not None]
    return sorted(known, key=lambda row: best_first * row[metric])


def _chart(
    workload: dict[str, Any],
    unit: str,
    bars: list[Bar],
    *,
    logarithmic: bool = False,
    copy: float | None = None,
    copy_text: str | None = None,
    compared: str | None = None,
    more: str = "",
) -> Bars:
    said = ", ".join(f"{bar.contender} {bar.value}" for bar in bars) or "nothing was measured"
    return Bars(
        title=workload["title"],
        unit=unit,
        bars=bars,
        logarithmic=logarithmic,
        copy=copy,
        copy_text=copy_text,
        failed=[row for row in workload["rows"] if row["status"] in ("wrong", "broken")],
        skipped=[row["contender"] for row in workload["rows"] if row["status"] == "skipped"],
        comparison=compared,
        label=f"{unit} on {workload['title']}: {said}{more}",
    )
