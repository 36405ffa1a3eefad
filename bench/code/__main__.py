"""``python -m gpuopt.bench.code``: what compiled kernels say about themselves, and what of it has become worse."""

from __future__ import annotations

from typing import Annotated, Any

try:
    import typer
    from rich.console import Console
    from rich.progress import Progress
except ModuleNotFoundError as error:
    raise SystemExit(f"{error.name} is not installed (pip install 'gpuopt[bench]')") from None

from gpuopt.bench.code import baseline
from gpuopt.bench.code.figures import kernels, quick, section
from gpuopt.bench.code.gpus import ARCHS
from gpuopt.bench.code.table import tables
from gpuopt.verify.variants import variants

WORSE, UNUSABLE = 1, 2
"""Exit codes: a figure is worse than in the baseline, a baseline that cannot be written."""

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command()
def main(
    full: Annotated[bool, typer.Option("--full", help="Every variant for sm_80, sm_90 and sm_100.")] = False,
    write_baseline: Annotated[
        bool, typer.Option("--write-baseline", help=f"Make the figures the new {baseline.PATH.name}; implies --full.")
    ] = False,
) -> None:
    """Compiles the kernels of a step for GPUs that need not be here, and compares their figures with the baseline."""
    console = Console()
    full = full or write_baseline
    archs, chosen = (ARCHS, variants()) if full else (("sm_90",), quick(variants()))
    with Progress(console=console, transient=True) as progress:
        task = progress.add_task("compiling", total=len(kernels(chosen, archs)))
        found = section(chosen, archs, advance=lambda: progress.advance(task))
    console.print(tables(found))
    raise typer.Exit(_write(found, console) if write_baseline else _compare(found, console))


def _write(found: dict[str, Any], console: Console) -> int:
    try:
        baseline.write(found)
    except (OSError, ValueError) as error:
        console.print(f"Not written: {error}.", style="bold red", markup=False, soft_wrap=True)
        return UNUSABLE
    console.print(f"Wrote {len(found['kernels'])} kernels to {baseline.PATH}.", markup=False, soft_wrap=True)
    return 0


def _compare(found: dict[str, Any], console: Console) -> int:
    if not baseline.PATH.exists():
        console.print(f"Not compared: {baseline.PATH.name} is in a checkout alone.", style="yellow", markup=False)
        return 0
    kept = baseline.read()
    comparable = []
    for driver, toolchain in found["toolchain"].items():
        why = baseline.other_toolchain(driver, toolchain, kept)
        if why:
            console.print(f"Not compared: {why}.", style="yellow", markup=False, soft_wrap=True)
        else:
            comparable += [kernel for kernel in found["kernels"] if kernel["driver"] == driver]
    sentences = baseline.worse(comparable, kept)
    for sentence in sentences:
        console.print(f"WORSE: {sentence}", style="bold red", markup=False, soft_wrap=True)
    if comparable and not sentences:
        console.print(f"{len(comparable)} kernels are no worse than in the baseline.")
    return WORSE if sentences else 0


if __name__ == "__main__":
    app(prog_name="python -m gpuopt.bench.code")
