"""The loss curves as a picture."""

from __future__ import annotations

from pathlib import Path

from gpuopt.bench.classifier import Run
from gpuopt.bench.train import agreement

LINES = (
    ("#0072B2", "-", 3.5),
    ("#E69F00", "--", 1.8),
    ("#009E73", ":", 1.8),
    ("#CC79A7", "-.", 1.8),
)
"""Colour (of Okabe and Ito's palette, which the colour-blind can tell apart), dashes and width, driver by driver.
Each is narrower than the first or broken, so that equal curves show as one line in several colours."""


def draw(runs: list[Run], path: Path) -> None:
    """One panel per optimizer, one line per driver, all on the same axes."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    optimizers = list(dict.fromkeys(run.optimizer for run in runs))
    drivers = list(dict.fromkeys(run.driver for run in runs))
    same = agreement(runs)
    columns = min(4, len(optimizers))
    rows = -(-len(optimizers) // columns)
    figure = Figure(figsize=(3.0 * columns + 0.6, 2.6 * rows + 1.1), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).ravel()
    for index, (panel, optimizer) in enumerate(zip(panels, optimizers, strict=False)):
        for run in runs:
            if run.optimizer == optimizer:
                colour, dashes, width = LINES[drivers.index(run.driver) % len(LINES)]
                steps, losses = zip(*run.curve, strict=True)
                panel.plot(steps, losses, dashes, color=colour, linewidth=width, label=run.driver)
        said = {True: "same bits on all drivers", False: "DRIVERS DIFFER", None: "one driver"}[same[optimizer]]
        panel.set_title(f"{optimizer}\n{said}", fontsize=10)
        panel.set_yscale("log")
        panel.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        panel.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        panel.yaxis.set_minor_formatter(NullFormatter())
        panel.grid(visible=True, which="major", color="#dddddd", linewidth=0.6)
        panel.set_axisbelow(True)
        panel.tick_params(labelsize=8, labelbottom=index + columns >= len(optimizers))
    for panel in panels[len(optimizers) :]:
        panel.axis("off")
    figure.supxlabel("step", fontsize=10)
    figure.supylabel("loss over all training images", fontsize=10)
    handles, labels = panels[0].get_legend_handles_labels()
    if len(optimizers) < len(panels):
        panels[-1].legend(handles, labels, title="driver", loc="center", frameon=False)
    else:
        figure.legend(handles, labels, title="driver", loc="outside right center", frameon=False)
    figure.suptitle("gpuopt: a classifier of digits, trained by every optimizer on every driver", fontsize=12)
    figure.savefig(path, dpi=130)
