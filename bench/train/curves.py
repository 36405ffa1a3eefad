"""The loss curves as a picture."""

from __future__ import annotations

from math import isfinite
from pathlib import Path
from typing import Any

from gpuopt.bench.train.results import Contest

LINES: tuple[tuple[str, Any, str, float], ...] = (
    ("#000000", "solid", "o", 3.6),
    ("#56B4E9", "solid", "s", 2.2),
    ("#009E73", (0, (1, 1)), "^", 2.2),
    ("#D55E00", (0, (4, 2)), "D", 1.4),
    ("#CC79A7", (3, (2, 4)), "v", 1.4),
)
"""Colour (of Okabe and Ito's palette, which the colour-blind can tell apart), dashes, marker and width, in the order of
contenders. Later ones are narrower or broken, and markers are staggered, so that equal curves show as one line of all
colours."""

MARKERS_EVERY = 6
"""Evaluations between two markers of a line: more than there are lines."""

SIZE = 7.0, 3.4
"""Inches: the width of a printed page's text."""


def draw(contest: Contest, path: Path) -> None:
    """The loss on held-out data against the step, and beside it against the seconds, as PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=SIZE, layout="constrained")
    FigureCanvasAgg(figure)
    by_step, by_seconds = figure.subplots(1, 2, sharey=True)
    for index, training in enumerate(contest.trainings):
        points = [point for point in training.curve if isfinite(point.loss)]
        status, _ = contest.judged(training)
        if len(points) < 2:
            continue
        colour, dashes, marker, width = LINES[index % len(LINES)]
        label = training.contender if status == "trained" else f"{training.contender} ({status})"
        style = {
            "color": colour,
            "linestyle": dashes,
            "linewidth": width,
            "marker": marker,
            "markersize": 5,
            "markeredgecolor": "white",
            "markeredgewidth": 0.5,
            "markevery": (index, MARKERS_EVERY),
            "label": label,
        }
        losses = [point.loss for point in points]
        by_step.plot([point.step for point in points], losses, **style)
        by_seconds.plot([point.seconds for point in points], losses, **style)
    for panel, label in ((by_step, "steps"), (by_seconds, "seconds of training")):
        panel.set_xlabel(label, fontsize=9)
        panel.set_xlim(left=0)
        panel.axhline(contest.task.goal, color="#666666", linewidth=0.8, zorder=1)
        panel.grid(visible=True, color="#dddddd", linewidth=0.6)
        panel.set_axisbelow(True)
        panel.tick_params(labelsize=8)
        panel.spines[["top", "right"]].set_visible(False)
    by_step.annotate(
        f"goal {contest.task.goal:g}",
        (0.01, contest.task.goal),
        xycoords=("axes fraction", "data"),
        xytext=(0, 2),
        textcoords="offset points",
        fontsize=8,
        color="#444444",
    )
    by_step.set_ylabel(f"held-out loss, nats per {contest.task.unit}", fontsize=9)
    handles, labels = by_step.get_legend_handles_labels()
    if handles:
        figure.legend(handles, labels, loc="outside lower center", ncols=5, fontsize=8, frameon=False, handlelength=3)
    figure.suptitle(contest.task.title, fontsize=10)
    figure.savefig(path, dpi=200)
