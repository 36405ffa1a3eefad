"""What ``gpuopt bench train`` showed."""

from __future__ import annotations

import math
import shlex
from dataclasses import dataclass
from typing import Any

from gpuopt.bench.html.looks import Look
from gpuopt.bench.html.numbers import UNKNOWN, count, percent, times
from gpuopt.bench.html.plot import Curve, Plot, Point, Tick
from gpuopt.bench.html.tables import TableRow

MOST_MARKERS = 24
"""On one curve. Each curve has them elsewhere, so that curves that are equal are seen to be several."""

SIGNS = {"trained": "✓", "wrong": "✗", "diverged": "✗", "broken": "!", "skipped": "○"}
"""Before the word, for those who do not see its colour."""

TRAINED = "trained"
"""The status of those that are drawn and ranked."""


@dataclass(frozen=True)
class TrainingTask:
    """A task; ``headings`` are those of the rows' cells."""

    title: str
    said: str
    plots: list[Plot]
    headings: list[str]
    rows: list[TableRow]


def facts(trained: dict[str, Any]) -> str:
    """Where and how it was trained, in a sentence: not always on the machine that the rest of the page is about."""
    machine = trained["machine"]
    gpus = ", ".join(gpu["name"] or UNKNOWN for gpu in machine["gpus"]) or "no NVIDIA GPU"
    return (
        f"{trained['scale'].capitalize()} run on {trained['device']} of {machine['date'] or 'an unknown date'}, "
        f"on {machine['cpu'] or 'an unknown processor'}, {machine['cores']} cores, {gpus}, "
        f"commit {machine['commit'] or UNKNOWN}: {shlex.join(trained['command'])}"
    )


def faults(trained: dict[str, Any]) -> list[str]:
    """What went wrong."""
    stopped = [] if trained["complete"] else ["The training was stopped before its end."]
    return [*stopped, *trained["faults"]]


def tasks(trained: dict[str, Any], looks: dict[str, Look]) -> list[TrainingTask]:
    """Every task with its curves and its table."""
    return [_task(task, looks) for task in trained["tasks"]]


def _task(task: dict[str, Any], looks: dict[str, Look]) -> TrainingTask:
    rows = task["rows"]
    to_goal = times((row["reached"] or {}).get("seconds") for row in rows)
    model, optimizer = (times((row[part] or {}).get("median") for row in rows) for part in ("model", "optimizer"))
    columns = [
        (f"to the goal, {to_goal.unit}", [to_goal((row["reached"] or {}).get("seconds")) for row in rows]),
        ("to the goal, steps", [count((row["reached"] or {}).get("step")) for row in rows]),
        ("final loss", [UNKNOWN if row["loss"] is None else f"{row['loss']:.4f}" for row in rows]),
        ("accuracy, %", [percent(row["accuracy"]) for row in rows]),
        (f"model, {model.unit} a step", [model((row["model"] or {}).get("median")) for row in rows]),
        (f"optimizer, {optimizer.unit} a step", [optimizer((row["optimizer"] or {}).get("median")) for row in rows]),
        ("optimizer, % of a step", [percent(row["share"]) for row in rows]),
    ]
    return TrainingTask(
        task["title"],
        _said(task),
        [
            plot
            for column, axis in ((0, "steps"), (1, "seconds of training"))
            if (plot := _plot(task, column, axis, looks))
        ],
        [heading for heading, _ in columns],
        [
            TableRow(
                row["contender"],
                None,
                row["status"],
                SIGNS[row["status"]],
                [] if row["why"] else [cells[index] for _, cells in columns],
                row["why"],
            )
            for index, row in enumerate(rows)
        ],
    )


def _said(task: dict[str, Any]) -> str:
    missed = [f"{row['contender']} did not reach it: {row['missed']}." for row in task["rows"] if _not_reached(row)]
    bits = {True: "end with the same bits", False: "END WITH DIFFERENT BITS", None: "were not compared"}
    said = (
        f"{task['optimizer']} on {count(task['numel'])} elements in {count(task['tensors'])} tensors, "
        f"{count(task['batch'])} a batch. Time is taken to a held-out loss of {task['goal']:g} "
        f"(nats per {task['data']['unit']}). gpuopt's drivers {bits[task['same_bits']]}."
    )
    return " ".join([said, *missed])


def _not_reached(row: dict[str, Any]) -> bool:
    return row["status"] == TRAINED and row["reached"] is None


def _plot(task: dict[str, Any], column: int, axis: str, looks: dict[str, Look]) -> Plot | None:
    """The loss against one column of the curves, both on linear axes; None if nothing was trained."""
    drawn = {
        row["contender"]: points
        for row in task["rows"]
        if row["status"] == TRAINED and (points := [point for point in row["curve"] if point[2] is not None])
    }
    if not drawn:
        return None
    along = [point[column] for points in drawn.values() for point in points]
    losses = [point[2] for points in drawn.values() for point in points] + [task["goal"]]
    most = max(along) or 1.0
    low, high = float(min(losses)), float(max(losses))
    margin = 0.05 * (high - low) or 0.5
    low, high = low - margin, high + margin

    def x(value: float) -> float:
        return 100 * value / most

    def y(value: float) -> float:
        return 100 * (high - value) / (high - low)

    lines = []
    for index, (name, points) in enumerate(sorted(drawn.items(), key=lambda item: not looks[item[0]].ours)):
        placed = [Point(x(point[column]), y(point[2]), f"{name}, step {point[0]}: {point[2]:.4f}") for point in points]
        every = max(math.ceil(len(placed) / MOST_MARKERS), min(len(drawn), len(placed) // 4), 1)
        lines.append(Curve(name, looks[name], placed, marked=placed[index % every :: every]))
    return Plot(
        f"Held-out loss against {axis}",
        axis,
        lines,
        [Tick(x(value), f"{value:,g}") for value in _round_values(0, most)],
        [Tick(y(value), f"{value:g}") for value in _round_values(low, high)],
        f"Held-out loss of {task['title']} against {axis}, {len(drawn)} contenders, from {max(losses):.3g} "
        f"to {min(losses):.3g}; the table has the numbers",
        [(0.0, y(task["goal"])), (100.0, y(task["goal"]))],
        f"goal {task['goal']:g}",
    )


def _round_values(least: float, most: float) -> list[float]:
    from matplotlib.ticker import MaxNLocator

    values = MaxNLocator(nbins=5, steps=[1, 2, 5, 10]).tick_values(least, most)
    return [round(float(value), 12) for value in values if least <= value <= most]
