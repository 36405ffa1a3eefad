"""Results as tables for a terminal."""

from __future__ import annotations

from rich import box
from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from gpuopt.bench.classifier import Run
from gpuopt.bench.goals import Verdict
from gpuopt.bench.results import SPEED_NOTE, TRAINING_NOTE, Results, ratios, spread
from gpuopt.bench.speed import Workload
from gpuopt.bench.timing import Timing
from gpuopt.bench.train import agreement

BUSY = 0.05
"""Share of the CPU from which on other processes spoil the times."""


def show(results: Results, console: Console) -> None:
    """Prints everything that was found."""
    console.print(head(results))
    if results.runs:
        console.print(training_table(results.runs))
    if results.speed:
        for workload, timings in results.speed:
            console.print(speed_table(workload, timings))
        console.print(Padding(Text(SPEED_NOTE, style="dim"), (0, 1)))
        console.print(goals_table(results))
    if (results.others_load or 0) > BUSY:
        message = f"Other processes took {results.others_load:.0%} of the CPU meanwhile: do not trust the times."
        console.print(Text(message, style="bold red"))
    for fault in results.faults():
        console.print(Text(f"WRONG: {fault}", style="bold red"))


def head(results: Results) -> RenderableType:
    """The machine, and the drivers that did not run."""
    machine = results.machine
    versions = ", ".join(f"{name} {version or '(none)'}" for name, version in machine["versions"].items())
    gpus = ", ".join(f"{gpu['name']}, driver {gpu['driver']}" for gpu in machine["gpus"]) or "no NVIDIA GPU"
    lines = [
        f"{machine['cpu']}, {machine['cores']} cores; {gpus}",
        f"{machine['date']}, commit {machine['commit'] or 'unknown'}; Python {machine['python']}, {versions}",
    ]
    lines += [f"driver {name} does not run here: {why}" for name, why in results.drivers.items() if why]
    return Group(*(Text(line, style="dim") for line in lines))


def training_table(runs: list[Run]) -> Table:
    """A row per optimizer; loss and accuracy of each driver where drivers differ."""
    drivers = list(dict.fromkeys(run.driver for run in runs))
    table = _table("Training a classifier of scikit-learn's digits", TRAINING_NOTE)
    table.add_column("optimizer")
    for heading in ("learning rate", "final loss", "test accuracy"):
        table.add_column(heading, justify="right")
    table.add_column("same bits on all drivers")
    for driver in drivers:
        table.add_column(f"{driver}\nus per step", justify="right")
    for optimizer, same in agreement(runs).items():
        mine = {run.driver: run for run in runs if run.optimizer == optimizer}
        shown = list(mine.values())[: None if same is False else 1]
        times = [f"{spread(mine[driver].seconds)['median'] * 1e6:,.0f}" if driver in mine else "" for driver in drivers]
        table.add_row(
            optimizer,
            f"{shown[0].lr:g}",
            "\n".join(f"{run.loss:.4f}" for run in shown),
            "\n".join(f"{run.accuracy:.1%}" for run in shown),
            _same(same, list(mine)),
            *times,
        )
    return table


def speed_table(workload: Workload, timings: list[Timing]) -> Table:
    """A row per contender."""
    table = _table(workload.title)
    table.add_column("contender")
    for heading in ("ms per step", "p10 to p90", "n", "GB/s"):
        table.add_column(heading, justify="right")
    ours = [timing.name for timing in timings if timing.name.startswith("gpuopt ") and timing.median is not None]
    for name in ours:
        table.add_column(f"{name} is\ntimes as fast", justify="right")
    for timing in timings:
        seen = spread(timing.samples)
        if timing.problem is not None or not seen["n"]:
            style = "bold red" if (timing.problem or "").startswith("wrong") else "dim"
            table.add_row(Text(timing.name, style=style), Text(timing.problem or "not timed", style=style))
            continue
        by_name = ratios(timing, timings)
        table.add_row(
            timing.name,
            f"{seen['median'] * 1e3:,.3f}",
            f"{seen['p10'] * 1e3:,.3f} to {seen['p90'] * 1e3:,.3f}",
            str(seen["n"]),
            f"{workload.least_bytes / seen['median'] / 1e9:,.1f}",
            *("" if name == timing.name or name not in by_name else f"{by_name[name]:.2f}" for name in ours),
        )
    return table


def goals_table(results: Results) -> Table:
    """A row per goal."""
    verdicts = results.verdicts()
    binding = all(results.binding(verdict.goal) for verdict in verdicts)
    table = _table("Goals", None if binding else _not_binding(results))
    table.add_column("goal")
    table.add_column("against")
    for heading in ("at least", "seen"):
        table.add_column(heading, justify="right")
    table.add_column("")
    titles = {workload.key: workload.title for workload, _ in results.speed}
    for verdict in verdicts:
        goal = verdict.goal
        table.add_row(
            f"{goal.ours}, {titles[goal.workload]}",
            verdict.against or ", ".join(goal.theirs),
            f"{goal.at_least:g} times as fast",
            "" if verdict.ratio is None else f"{verdict.ratio:.2f}",
            _met(verdict, results.binding(goal)),
        )
    return table


def _not_binding(results: Results) -> str:
    if results.scale != "full":
        return "The goals are for the full run; this was a quick one, on smaller tensors."
    return f"The goals are for 2 CPU cores; here are {results.machine['cores']}."


def _met(verdict: Verdict, binding: bool) -> Text:
    if verdict.met is None:
        return Text(verdict.why or "", style="dim")
    if not binding:
        return Text("would be met" if verdict.met else "would not be met", style="dim")
    return Text("met", style="green") if verdict.met else Text("NOT MET", style="bold red")


def _same(same: bool | None, drivers: list[str]) -> Text:
    if same is None:
        return Text(f"{drivers[0]} alone ran", style="dim")
    return Text("yes", style="green") if same else Text(f"NO ({', '.join(drivers)})", style="bold red")


def _table(title: str, caption: str | None = None) -> Table:
    return Table(
        title=title,
        caption=caption,
        box=box.SIMPLE_HEAD,
        title_style="bold",
        title_justify="left",
        caption_style="dim",
        caption_justify="left",
    )
