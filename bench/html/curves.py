"""Time of a step against the size of one tensor, both on logarithmic axes."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from gpuopt.bench.html.bars import RANKED
from gpuopt.bench.html.looks import Look
from gpuopt.bench.html.numbers import TIMES, elements, stored, with_unit
from gpuopt.bench.html.plot import Curve, Plot, Point, Tick

LEAST_SIZES = 3
"""Fewer sizes make no curve."""

MOST_LABELS = 7
"""Along the axis of sizes, for a phone's sake."""


def series(workloads: list[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """Workloads of a group that differ in the size of their one tensor alone, by size."""
    found: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for workload in workloads:
        if workload["tensors"] == 1:
            formats = tuple(sorted(workload["formats"].items()))
            same = tuple(workload[part] for part in ("group", "device", "front", "optimizer"))
            key = (*same, formats, tuple(workload["tail"]))
            found.setdefault(key, []).append(workload)
    return [
        sorted(group, key=lambda workload: workload["numel"])
        for group in found.values()
        if len({workload["numel"] for workload in group}) >= LEAST_SIZES
    ]


def curves(group: list[dict[str, Any]], clock: str, copy: float | None, looks: dict[str, Look]) -> Plot | None:
    """The chart of a series by one of its clocks, ``"step"`` or ``"device"``; None if nothing was timed by it."""
    timed = [
        (workload["numel"], row["contender"], row[clock])
        for workload in group
        for row in workload["rows"]
        if row["status"] in RANKED and row[clock] is not None and row[clock]["median"] is not None
    ]
    if not timed:
        return None
    sizes = sorted({numel for numel, _, _ in timed})
    least = min(spread["p10"] for _, _, spread in timed) / 1.3
    most = max(spread["p90"] for _, _, spread in timed) * 1.3
    x = _along(sizes[0], sizes[-1])
    y = _along(most, least)
    lines = []
    for name in sorted(dict.fromkeys(contender for _, contender, _ in timed), key=lambda name: not looks[name].ours):
        points = [
            Point(
                x(numel),
                y(spread["median"]),
                f"{name}, {elements(numel)} elements: {with_unit(spread['median'], TIMES)}, n {spread['n']}",
                (y(spread["p10"]), y(spread["p90"])),
            )
            for numel, contender, spread in timed
            if contender == name
        ]
        lines.append(Curve(name, looks[name], points, marked=points))
    roof = [(x(one["numel"]), y(one["bytes"] / copy / 1e9)) for one in group if copy and one["numel"] in sizes]
    title = _title(group[0])
    return Plot(
        title,
        "elements",
        lines,
        [Tick(x(size), elements(size)) for size in sizes[:: math.ceil(len(sizes) / MOST_LABELS)]],
        [Tick(y(10.0**power), _decade(power)) for power in _decades(least, most)],
        f"Time of a step of {title} from {elements(sizes[0])} to {elements(sizes[-1])} elements, "
        f"{len(lines)} contenders; the tables have the numbers",
        roof,
        "at the speed of a copy",
    )


def _along(first: float, last: float) -> Callable[[float], float]:
    """From a value to percent of the way from the first to the last, logarithmically."""
    if first == last:
        return lambda value: 50.0
    return lambda value: 100 * math.log(value / first) / math.log(last / first)


def _decades(least: float, most: float) -> range:
    return range(math.ceil(math.log10(least)), math.floor(math.log10(most)) + 1)


def _decade(power: int) -> str:
    unit, exponent = {-3: ("ns", -9), -2: ("µs", -6), -1: ("ms", -3)}.get(power // 3, ("s", 0))
    return f"{10.0 ** (power - exponent):,g} {unit}"


def _title(workload: dict[str, Any]) -> str:
    tail = f" with {', '.join(workload['tail'])}" if workload["tail"] else ""
    return f"{workload['optimizer']}{tail}, {stored(workload['formats'])}, {workload['front']}"
