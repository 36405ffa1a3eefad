"""The alternatives to how the CuPy driver cuts a step, and its two forms one beside the other."""

from __future__ import annotations

from functools import partial
from typing import Any

from gpuopt.bench.code import sass
from gpuopt.bench.code.ahead import compile_cupy
from gpuopt.bench.sweeps.alternative import PRODUCT, Alternative, Resources
from gpuopt.kernels.drivers import cupy as driver
from gpuopt.kernels.table import Table
from gpuopt.kernels.variant import Variant
from gpuopt.verify.drawing import Array

TILES = {"tile 1024": 1024, "tile 2048": 2048}
"""Elements of a tile, by their name in ``bench/NOTES.md``."""

PLAIN = "one element a thread"
"""The kernel that the driver takes for a single array of few elements, by its name in ``bench/NOTES.md``."""


def tiles(variant: Variant, arch: str) -> list[Alternative]:
    """The product's tile, and others."""
    return [_of_tables(name, tile, variant, arch) for name, tile in {PRODUCT: driver.TILE, **TILES}.items()]


def forms(variant: Variant, arch: str) -> list[Alternative]:
    """The kernel that walks a table, and the one for single arrays."""
    plain = partial(_resources, driver.array_kernel(variant), variant, arch)
    return [
        _of_tables(PRODUCT, driver.TILE, variant, arch),
        Alternative(PLAIN, driver.TILE, driver.run_plain, plain, tensors=1),
    ]


def _of_tables(name: str, tile: int, variant: Variant, arch: str) -> Alternative:
    kernel = driver.table_kernel(variant, tile)
    return Alternative(name, tile, _run_table, partial(_resources, kernel, variant, arch))


def _run_table(table: Table, hyper: Array) -> None:
    """By a table, whatever its size."""
    driver.run_table(table, driver.place_table(table, hyper))


def _resources(kernel: Any, variant: Variant, arch: str) -> Resources:
    used = sass.resources(compile_cupy(kernel, variant, arch).cubin)
    return Resources(used["REG"], used["STACK"])
