"""``gpuopt bench``: runs the benchmark, prints tables, and writes JSON and a report."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, replace
from functools import partial
from math import inf
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.text import Text

from gpuopt import backends
from gpuopt.bench import compare, suite, tables
from gpuopt.bench.contenders import contenders
from gpuopt.bench.goals import GOALS, judge
from gpuopt.bench.html.numbers import duration
from gpuopt.bench.live import live
from gpuopt.bench.order import FULL, QUICK, Order
from gpuopt.bench.results import Results
from gpuopt.bench.selection import select
from gpuopt.bench.train.command import train
from gpuopt.bench.workloads import decides, workloads
from gpuopt.kernels.drivers import DRIVERS
from gpuopt.machine import describe, gpus
from gpuopt.output import refuse, require, require_writable, show, terminal, write_json

WORSE, INTERRUPTED = 1, 130
"""Exit codes: something is wrong or has become slower; Ctrl-C."""

JSON, REPORT, TRAINING = "bench.json", "report.html", "train.json"
"""What is written to the folder, and what the report shows too if it is there from ``gpuopt bench train``."""

app = typer.Typer(add_completion=False, rich_markup_mode=None)
app.command("train", short_help="Trains with gpuopt and torch.optim side by side.")(train)


@app.callback(invoke_without_command=True)
def bench(
    context: typer.Context,
    quick: Annotated[
        bool, typer.Option("--quick", help="Only the workloads that decide, for a shorter time, and times alone.")
    ] = False,
    only: Annotated[
        list[str] | None,
        typer.Option(metavar="PATTERN", help="Workloads or contenders, as 'adam/*' or 'gpuopt *'; may be repeated."),
    ] = None,
    list_: Annotated[bool, typer.Option("--list", help="Say which workloads and contenders there are.")] = False,
    compare_with: Annotated[
        Path | None,
        typer.Option(
            "--compare", metavar="FILE", help="An older bench.json; exit code 1 if gpuopt is slower, or a time is lost."
        ),
    ] = None,
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="For bench.json and report.html.")] = Path("out"),
    code: Annotated[
        bool, typer.Option("--code", help="Compile for GPUs that are not here, as a full run does where there is none.")
    ] = False,
    device: Annotated[str | None, typer.Option(metavar="cpu|cuda", help="By default cuda if it can be used.")] = None,
    budget: Annotated[
        float | None,
        typer.Option(
            metavar="SECONDS", help="After so many no workload is begun; on a GPU launches are counted then.", min=0
        ),
    ] = None,
) -> None:
    """Times optimizer steps against those of others, each checked against the oracle before it is timed."""
    if context.invoked_subcommand is not None:
        return
    console = terminal()
    no_gpu = _no_gpu()
    if device is None:
        device = "cpu" if no_gpu else "cuda"
        if no_gpu and gpus() and not list_:
            console.print(Text(f"Timing the CPU, although there is a GPU: {no_gpu}.", style="bold"), soft_wrap=True)
    if device not in ("cpu", "cuda"):
        refuse(f"--device must be cpu or cuda, but is {device!r}.")
    everyone = contenders(device)
    try:
        some_workloads, some_contenders = select(
            only or [], workloads(device), everyone, decides(device) if quick else None
        )
        old = None if compare_with is None else compare.load(compare_with)
    except ValueError as error:
        refuse(str(error))
    if list_:
        for table in tables.registry_tables(some_workloads, some_contenders, console.width):
            show(table, console)
        return
    require("jinja2", "matplotlib", extra="bench")
    if old is not None and not compare.shared(
        old, (each.key for each in some_workloads), (each.name for each in some_contenders), device
    ):
        refuse(f"--compare {compare_with} has times of nothing that is to be timed now.")
    if device == "cuda" and no_gpu is not None:
        refuse(f"--device cuda cannot be used here: {no_gpu}.")
    require_writable(out)
    scale = QUICK if quick else FULL
    with_code = code or not (quick or only or backends.available()["triton"] is None)
    section = partial(_section, quick) if with_code else None
    order = Order(device, scale, some_workloads, some_contenders, inf if budget is None else budget, code=section)
    raise typer.Exit(benchmark(order, out, console, old))


def benchmark(order: Order, out: Path, console: Console, old: compare.Run | None = None) -> int:
    """Runs, shows and writes; returns the exit code."""
    results = Results(order.scale.name, ["gpuopt", *sys.argv[1:]], describe(), backends.available())
    interrupted = False
    if order.expected is not None:
        console.print(f"This takes about {duration(order.expected)}.", style="dim")
    try:
        with live(len(order.workloads), console) as watcher:
            suite.run(order, results, replace(watcher, keep=lambda: write_json(results.as_dict(), out / JSON)))
    except KeyboardInterrupt:
        interrupted = True
    _judge(results)
    tables.show(results, console)
    if interrupted:
        console.print(Text("Interrupted: what is above, and is saved, is what was done until then.", style="bold red"))
    _write(results, out, console)
    asked = {contender.name for contender in order.contenders}
    worse = old is not None and _compare(old, results, asked, console)
    if interrupted:
        return INTERRUPTED
    return WORSE if worse or results.faults(of_guests=False) else 0


def _judge(results: Results) -> None:
    """What the rows say about goals whose workload was run on a CPU."""
    rows = {
        contest.workload.key: {row.contender: row for row in contest.rows}
        for contest in results.contests
        if contest.device == "cpu"
    }
    for goal in GOALS:
        if goal.workload in rows:
            verdict = judge(goal, rows[goal.workload], results.copies["cpu"])
            results.goals.append({**asdict(goal), **asdict(verdict), "met": verdict.met, "close": verdict.close})


def _write(results: Results, out: Path, console: Console) -> None:
    written = [out / JSON, out / REPORT]
    write_json(results.as_dict(), written[0])
    written[1].write_text(_report(results, out / TRAINING, console), encoding="utf-8")
    paths = " and ".join(str(path) for path in written)
    console.print(f"Wrote {paths} after {results.seconds:.0f} s.", markup=False, soft_wrap=True)


def _report(results: Results, trained: Path, console: Console) -> str:
    from gpuopt.bench.html import render

    if trained.exists():
        try:
            return render(results.as_dict(), json.loads(trained.read_text(encoding="utf-8")))
        except (ValueError, KeyError, TypeError) as error:
            console.print(f"{trained} is left out of the report: {error}", markup=False, soft_wrap=True)
    return render(results.as_dict())


def _compare(old: compare.Run, results: Results, contenders: set[str], console: Console) -> bool:
    """Shows what has changed since; returns whether anything is worse."""
    new = results.as_dict()
    found = list(compare.changes(old, new, contenders))
    show(tables.changes_table(found, console.width), console)
    for difference in compare.differences(old, new):
        console.print(Text(f"Mind that {difference}.", style="bold red"))
    return any(change.is_worse for change in found)


def _section(quick: bool) -> dict[str, Any]:
    """What is computed from compiled code: of every kernel, or in a quick run of some and for one architecture."""
    from gpuopt.bench.code import figures
    from gpuopt.bench.code.gpus import ARCHS
    from gpuopt.verify.variants import variants

    if quick:
        return figures.section(figures.quick(variants()), ("sm_90",))
    return figures.section(variants(), ARCHS)


def _no_gpu() -> str | None:
    """Why nothing can be timed on a GPU here, as a clause; None when it can."""
    why = backends.available()["triton"]
    if why is None and DRIVERS["triton"].is_interpreted():
        return "Triton is told to interpret, by TRITON_INTERPRET"
    return why
