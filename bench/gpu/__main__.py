"""Runs the round as a module."""

import typer

from gpuopt.bench.gpu.round import on_gpu

typer.run(on_gpu)
