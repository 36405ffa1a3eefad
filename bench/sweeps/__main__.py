"""Runs the sweeps as a module."""

import typer

from gpuopt.bench.sweeps.command import sweeps

app = typer.Typer(add_completion=False, rich_markup_mode=None)
app.command()(sweeps)
app(prog_name="python -m gpuopt.bench.sweeps")
