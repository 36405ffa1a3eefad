"""Runs the sweeps as a module."""

import typer

from gpuopt.bench.sweeps.command import sweeps

typer.run(sweeps)
