"""``python -m gpuopt.bench``: runs the benchmarks, prints tables, writes JSON and a picture."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated

try:
    import typer
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
except ModuleNotFoundError as error:
    raise SystemExit(f"{error.name} is not installed (pip install 'gpuopt[bench]')") from None

from gpuopt.bench import picture, report, suite
from gpuopt.bench.results import Results

WRONG, UNUSABLE, INTERRUPTED = 1, 2, 130
"""Exit codes: outcomes that differ, an --out that cannot be written, Ctrl-C."""

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command()
def main(
    out: Annotated[Path, typer.Option(help="Folder for bench.json and loss.png.")] = Path("out"),
    quick: Annotated[bool, typer.Option("--quick", help="Smaller tensors and fewer steps; no goals.")] = False,
) -> None:
    """Trains a classifier with every optimizer on every driver, then times Adam and RMSProp against their rivals."""
    raise typer.Exit(benchmark(suite.QUICK if quick else suite.FULL, out, Console()))


def benchmark(scale: suite.Scale, out: Path, console: Console) -> int:
    """Runs, shows and writes; returns the exit code."""
    problem = unusable(out)
    if problem is not None:
        console.print(problem, style="bold red", markup=False)
        return UNUSABLE
    results = suite.empty(scale)
    try:
        with _progress(console) as progress:
            task = progress.add_task("", total=suite.parts(scale, results))
            suite.run(
                scale,
                results,
                suite.Watcher(
                    lambda what: progress.update(task, description=what),
                    lambda: progress.advance(task),
                ),
            )
    except KeyboardInterrupt:
        console.print("Interrupted: what follows, and is saved, is what was done until then.", style="bold red")
    save(results, out, console)
    if not results.complete:
        return INTERRUPTED
    return WRONG if results.faults() else 0


def unusable(out: Path) -> str | None:
    """Why nothing can be written to the folder ``out``, as a sentence; None when it can. It is made if need be."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=out):
            return None
    except OSError as error:
        return f"--out must be a folder that can be written, but {out} is not: {error.strerror}."


def save(results: Results, out: Path, console: Console) -> None:
    """Prints the tables, writes the JSON, draws the picture."""
    report.show(results, console)
    written = [out / "bench.json"]
    results.write(written[0])
    if results.runs:
        written.append(out / "loss.png")
        picture.draw(results.runs, written[-1])
    paths = " and ".join(str(path) for path in written)
    console.print(f"Wrote {paths} after {results.seconds:.0f} s.", markup=False, soft_wrap=True)


def _progress(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f}%"),
        TimeElapsedColumn(),
        console=console,
        transient=True,
    )


if __name__ == "__main__":
    app(prog_name="python -m gpuopt.bench")
