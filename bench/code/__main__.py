"""``python -m gpuopt.bench.code``: what compiled kernels say about themselves, and what of it has become worse."""

from __future__ import annotations

from typing import Annotated

try:
    import typer
    from rich.console import Console
    from rich.progress import Progress
except ModuleNotFoundError as error:
    raise SystemExit(f"{error.name} is not installed (pip install 'gpuopt[bench]')") from None

from gpuopt.bench.code import baseline
from gpuopt.bench.code.ahead import ARCHS
from gpuopt.bench.code.figures import FORMS, kernels, quick, section
from gpuopt.bench.code.table import tables
from gpuopt.bench.code.variants import variants

WORSE = 1
"""Exit code: a figure is worse than in the baseline."""

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
        task = progress.add_task("compiling", total=len(kernels(archs, FORMS, chosen)))
        found = section(archs, tuple(FORMS), chosen, lambda: progress.advance(task))
    console.print(tables(found))
    if write_baseline:
        baseline.write(found)
        console.print(f"Wrote {len(found['kernels'])} kernels to {baseline.PATH}.", markup=False, soft_wrap=True)
        return
    kept = baseline.read()
    comparable = []
    for driver, toolchain in found["toolchain"].items():
        why = baseline.other_toolchain(driver, toolchain, kept)
        if why:
            console.print(f"Not compared: {why}.", style="yellow", markup=False)
        else:
            comparable += [kernel for kernel in found["kernels"] if kernel["driver"] == driver]
    sentences = baseline.worse(comparable, kept)
    for sentence in sentences:
        console.print(f"WORSE: {sentence}", style="bold red", markup=False, soft_wrap=True)
    if comparable and not sentences:
        console.print(f"{len(comparable)} kernels are no worse than in the baseline.")
    raise typer.Exit(WORSE if sentences else 0)


if __name__ == "__main__":
    app(prog_name="python -m gpuopt.bench.code")
