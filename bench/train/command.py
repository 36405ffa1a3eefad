"""``gpuopt bench train``: trains, prints tables, and writes JSON."""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from gpuopt import machine
from gpuopt.output import refuse, require, require_writable, terminal, write_json

if TYPE_CHECKING:
    from gpuopt.bench.train.embedding import Results as EmbeddingResults
    from gpuopt.bench.train.formats import Results as FormatResults
    from gpuopt.bench.train.formats import Trial
    from gpuopt.bench.train.results import Results
    from gpuopt.bench.train.tasks import Task

INTERRUPTION = "Interrupted: what follows, and is saved, is what was done until then."

WRONG, INTERRUPTED = 1, 130
"""Exit codes: contenders that are wrong or tasks that broke, Ctrl-C."""

PACKAGES = ("torch", "sklearn")
"""What is imported beyond what the command line needs."""

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command()
def train(
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="For train.json, which gpuopt bench draws.")] = Path(
        "out"
    ),
    quick: Annotated[bool, typer.Option("--quick", help="Smaller models and fewer steps.")] = False,
    only: Annotated[list[str] | None, typer.Option(metavar="gpt|digits", help="A task; may be repeated.")] = None,
    device: Annotated[str | None, typer.Option(metavar="cpu|cuda", help="By default cuda if it can be used.")] = None,
    formats: Annotated[
        bool,
        typer.Option(
            "--formats", help="Instead, train a GPT in each format of weights, from several seeds; writes formats.json."
        ),
    ] = False,
    state: Annotated[
        bool,
        typer.Option("--state", help="Instead, train a GPT with state in 8 bits and in float32; writes state.json."),
    ] = False,
    embedding: Annotated[
        bool,
        typer.Option(
            "--embedding",
            help="Instead, see how large steps become where an embedding's rows are rare; writes embedding.json.",
        ),
    ] = False,
) -> None:
    """Trains a small GPT on text and a classifier on images, with gpuopt's drivers and torch.optim side by side."""
    require(*PACKAGES, extra="bench")
    from gpuopt.bench.train import tasks

    scale = tasks.QUICK if quick else tasks.FULL
    chosen = list(dict.fromkeys(only or scale))
    given = {"--formats": formats, "--state": state, "--embedding": embedding}
    instead = [name for name, is_given in given.items() if is_given]
    for name in instead:
        if only:
            refuse(f"--only must not be given with {name}, which is of a task of its own.")
    if len(instead) > 1:
        refuse(f"{instead[1]} must not be given with {instead[0]}: each is of trainings of its own.")
    for name in chosen:
        if name not in scale:
            refuse(f"--only must be {' or '.join(scale)}, but is {name!r}.")
    require_writable(out)
    console, where = terminal(), usable_device(device)
    if device is None and where == "cpu" and machine.gpus():
        console.print("Training on the CPU, although there is an NVIDIA GPU: PyTorch sees none.", style="bold yellow")
    scale_name = "quick" if quick else "full"
    if formats:
        raise typer.Exit(compare_formats(scale_name, where, out, console))
    if state:
        raise typer.Exit(compare_state(scale_name, where, out, console))
    if embedding:
        raise typer.Exit(compare_embedding(scale_name, where, out, console))
    raise typer.Exit(compare({name: scale[name] for name in chosen}, scale_name, where, out, console))


def usable_device(device: str | None) -> str:
    """The device to train on. Ends the command where it cannot be had."""
    import torch

    if device is None:
        return "cuda" if torch.cuda.is_available() else "cpu"
    if device not in ("cpu", "cuda"):
        refuse(f"--device must be cpu or cuda, but is {device!r}.")
    if device == "cuda" and not torch.cuda.is_available():
        refuse("--device is cuda, but PyTorch sees no GPU here.")
    return device


def compare(
    tasks: Mapping[str, Callable[[], Task]],
    scale: str,
    device: str,
    out: Path,
    console: Console,
) -> int:
    """Trains, shows and writes; returns the exit code.

    What was done before Ctrl-C is shown and written too, and so is what was done beside a task that breaks.
    """
    from gpuopt.bench.train import lockstep
    from gpuopt.bench.train.results import Contest, Results
    from gpuopt.bench.train.ways import ways

    load, begun = machine.OthersLoad(), time.perf_counter()
    results = Results(scale, device, ["gpuopt", *sys.argv[1:]], machine.describe())
    try:
        contenders = ways(device)
        with _progress(console) as progress:
            for name, make in tasks.items():
                try:
                    task = make()
                    contest = Contest(task)
                    results.contests.append(contest)
                    able = sum(way.absent is None for way in contenders)
                    bar = progress.add_task(f"train {task.key}", total=able * task.recipe.steps)
                    advance = partial(progress.advance, bar)
                    lockstep.train(task, contenders, device, contest.trainings, advance=advance)
                except Exception as error:  # noqa: BLE001 (whatever it is, the other tasks are to be had)
                    results.broken.append(f"{name} broke: {type(error).__name__}: {error}")
                    results.give_up(name)
        results.complete = True
    except KeyboardInterrupt:
        console.print(INTERRUPTION, style="bold red")
    results.seconds = time.perf_counter() - begun
    results.machine["others_load"] = load.share()
    save(results, out, console)
    if not results.complete:
        return INTERRUPTED
    return WRONG if results.faults() else 0


def compare_formats(scale: str, device: str, out: Path, console: Console) -> int:
    """Trains in every format, shows and writes; returns the exit code. What was done before Ctrl-C is kept."""
    from gpuopt.bench.train import formats, table

    trial = formats.QUICK if scale == "quick" else formats.FULL
    (results,) = every = _train_in_formats([trial], scale, device, console)
    table.show_formats(results, console)
    return _written(every, results.as_dict(), out / "formats.json", console)


def compare_state(scale: str, device: str, out: Path, console: Console) -> int:
    """As :func:`compare_formats`, with state in 8 bits and by several recipes."""
    from gpuopt.bench.train import formats, table

    trials = formats.STATE_QUICK if scale == "quick" else formats.STATE_FULL
    every = _train_in_formats(trials, scale, device, console)
    for results in every:
        table.show_formats(results, console)
    return _written(every, {"trials": [results.as_dict() for results in every]}, out / "state.json", console)


def compare_embedding(scale: str, device: str, out: Path, console: Console) -> int:
    """Trains an embedding by every optimizer, shows and writes; returns the exit code, as :func:`compare_formats`."""
    from gpuopt.bench.train import embedding, table

    load, begun = machine.OthersLoad(), time.perf_counter()
    size = embedding.QUICK if scale == "quick" else embedding.FULL
    results = embedding.Results(size, scale, device, ["gpuopt", *sys.argv[1:]], machine.describe())
    try:
        with _progress(console) as progress:
            steps = size.steps * len(embedding.TRIALS) * len(embedding.optimizers())
            embedding.run(results, partial(progress.advance, progress.add_task("train an embedding", total=steps)))
    except KeyboardInterrupt:
        console.print(INTERRUPTION, style="bold red")
    results.seconds = time.perf_counter() - begun
    results.machine["others_load"] = load.share()
    table.show_embedding(results, console)
    return _written([results], results.as_dict(), out / "embedding.json", console)


def _train_in_formats(trials: Sequence[Trial], scale: str, device: str, console: Console) -> list[FormatResults]:
    """What came of each trial, as far as it came."""
    from gpuopt.bench.train import formats

    load, command = machine.OthersLoad(), ["gpuopt", *sys.argv[1:]]
    every = [formats.Results(trial, scale, device, command, machine.describe()) for trial in trials]
    try:
        with _progress(console) as progress:
            bar = progress.add_task("train in formats", total=sum(trial.steps for trial in trials))
            for results in every:
                begun = time.perf_counter()
                try:
                    formats.run(results, partial(progress.advance, bar))
                finally:
                    results.seconds = time.perf_counter() - begun
    except KeyboardInterrupt:
        console.print(INTERRUPTION, style="bold red")
    for results in every:
        results.machine["others_load"] = load.share()
    return every


def _written(
    every: Sequence[FormatResults | EmbeddingResults], found: Mapping[str, Any], path: Path, console: Console
) -> int:
    """Writes what was found, and says so; returns the exit code."""
    write_json(found, path)
    _say_what_was_written(path, sum(results.seconds for results in every), console)
    if not all(results.complete for results in every):
        return INTERRUPTED
    return WRONG if any(results.faults for results in every) else 0


def save(results: Results, out: Path, console: Console) -> None:
    """Prints the tables, and writes the JSON."""
    from gpuopt.bench.train import table

    table.show(results, console)
    write_json(results.as_dict(), out / "train.json")
    _say_what_was_written(out / "train.json", results.seconds, console)


def _say_what_was_written(path: Path, seconds: float, console: Console) -> None:
    console.print(f"Wrote {shlex.quote(str(path))} after {seconds:.0f} s.", markup=False, soft_wrap=True)


def _progress(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f}%"),
        TimeElapsedColumn(),
        console=console,
        transient=True,
    )
