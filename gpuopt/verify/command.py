"""``gpuopt verify``."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from gpuopt import backends
from gpuopt.kernels.drivers import DRIVERS
from gpuopt.machine import cores
from gpuopt.output import refuse, require_writable, terminal, write_json
from gpuopt.verify import report
from gpuopt.verify.cases import NEUTRAL
from gpuopt.verify.run import ORACLE, Task, outcomes, tasks
from gpuopt.verify.variants import variants

FAILED, UNUSABLE, NOTHING, INTERRUPTED = 1, 2, 3, 130
"""Exit codes: bits differ; an option cannot be used; no driver but the oracle runs here; Ctrl-C."""

MOST_JOBS = 8
"""Processes that are begun unless more are asked for; each has a context of its own on a GPU."""


def verify(
    quick: Annotated[
        bool, typer.Option("--quick", help="Only as many variants as it takes to have each option and format once.")
    ] = False,
    driver: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Compare only this driver. May be given several times.")
    ] = None,
    device: Annotated[
        str | None,
        typer.Option(metavar="cpu|cuda", help="Compare only drivers for this memory, those of them that run here."),
    ] = None,
    seed: Annotated[int, typer.Option(metavar="N", help="Seed of the random bits.", min=0)] = 0,
    json: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Write what comes of it there too, as it comes.")
    ] = None,
    jobs: Annotated[
        int | None,
        typer.Option(metavar="N", help=f"Processes; one per core if not given, but {MOST_JOBS} at most.", min=1),
    ] = None,
) -> None:
    """Proves that every driver that runs here gives the bits of the NumPy driver, the oracle.

    Every rule, option and format is stepped on random bits over the whole range of its format, subnormals, infinities
    and NaN included, and every stored element compared; a NaN must be one on both sides, with whatever payload.

    Exit code 0 if all bits are the oracle's, 1 if any differ, 2 if an option cannot be used, 3 if only the oracle runs
    here.
    """
    reasons = backends.available()
    if device not in (None, "cpu", "cuda"):
        refuse(f"--device must be cpu or cuda, but is {device!r}.")
    reasons = {name: why for name, why in reasons.items() if device in (None, DRIVERS[name].device) or name == ORACLE}
    chosen = _chosen(driver, reasons)
    if json is not None:
        require_writable(json.parent, "--json must be in")
    console = terminal()
    for name, reason in reasons.items():
        if reason is not None:
            _say(console, f"{name} does not run here: {reason}.")
    if not chosen:
        console.print(f"Nothing to compare: only {ORACLE} runs here, which is the oracle itself.", style="bold red")
        raise typer.Exit(NOTHING)
    raise typer.Exit(compare(chosen, quick, seed, jobs or min(cores(), MOST_JOBS), console, json))


def compare(drivers: list[str], quick: bool, seed: int, jobs: int, console: Console, json: Path | None = None) -> int:
    """Compares, shows and writes line by line, explains what differs; returns the exit code."""
    begun = time.perf_counter()
    todo = tasks(drivers, quick)
    lines = report.lines(todo)
    _say(console, f"Comparing {' and '.join(drivers)} with {ORACLE}, bit by bit; seed {seed}.")
    interpreted = [name for name in drivers if DRIVERS[name].is_interpreted()]
    for name in interpreted:
        _say(console, f"{name} is interpreted here, on host memory and not on a GPU: TRITON_INTERPRET is set.")
    if quick:
        _say(console, _left_out(todo, drivers))
    console.print(report.HEAD, style="bold", highlight=False)
    waiting = list(lines.values())
    interrupted = False
    with _progress(console) as progress:
        bar = progress.add_task("", total=len(todo))
        try:
            for task, outcome in outcomes(todo, seed, jobs):
                line = lines[task.driver, task.rule]
                line.outcomes.append((task, outcome))
                progress.update(bar, advance=1, description=f"{task.driver} {task.rule}")
                while waiting and waiting[0].complete:
                    console.print(waiting.pop(0).text())
                if json is not None:
                    write_json(report.as_dict(lines.values(), quick, seed), json)
        except KeyboardInterrupt:
            interrupted = True
    if interrupted:
        for line in waiting:
            if line.outcomes:
                console.print(line.text())
        console.print("Interrupted: only what stands above was compared.", style="bold red")
    failed = [line for line in lines.values() if line.fault]
    for line in failed:
        title, *rest = report.explain(line)
        console.print(f"\n{title}", style="bold red", markup=False, highlight=False, soft_wrap=True)
        for text in rest:
            _say(console, text)
    if interrupted:
        return INTERRUPTED
    seconds = time.perf_counter() - begun
    if failed:
        names = ", ".join(dict.fromkeys(line.driver for line in failed))
        console.print(f"\nFAILED after {seconds:.1f} s: {names}.", style="bold red", highlight=False)
        return FAILED
    console.print(f"All bits are the oracle's, after {seconds:.1f} s.", style="bold green", highlight=False)
    for name in interpreted:
        console.print(f"{name} was interpreted, so this proves nothing of it on a GPU.", style="bold yellow")
    return 0


def _chosen(asked: list[str] | None, reasons: dict[str, str | None]) -> list[str]:
    """The drivers to compare. Ends the command if one is asked for that does not exist, cannot run or is the oracle."""
    comparable = [name for name in reasons if name != ORACLE]
    for name in asked or []:
        if name == ORACLE:
            refuse(f"--driver must be one of {', '.join(comparable)}, but {name} is the oracle itself.")
        if name not in reasons:
            refuse(f"--driver must be one of {', '.join(comparable)}, but is {name!r}.")
        if reasons[name] is not None:
            refuse(f"--driver must be one that runs here, but {name} does not: {reasons[name]}.")
    return [name for name in comparable if reasons[name] is None and (not asked or name in asked)]


def _left_out(todo: list[Task], drivers: list[str]) -> str:
    every, some = len(variants()), len(todo) // len(drivers)
    first = next(variants()[task.variant] for task in todo if NEUTRAL not in task.left_out)
    return (
        f"Quick: {some} of {every} variants, in which each set of options of each rule, and each format of parameter, "
        f"gradient, state, average and copy occurs; {every - some} other combinations of these are left out. "
        f"The case '{NEUTRAL}' is run for one of the {some} alone, {first}."
    )


def _say(console: Console, text: str) -> None:
    console.print(text, markup=False, highlight=False, soft_wrap=not console.is_terminal)


def _progress(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description:<16}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )
