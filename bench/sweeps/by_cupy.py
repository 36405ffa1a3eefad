"""The two forms of the CuPy driver, one beside the other."""

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

PLAIN = "one element a thread"
"""The kernel that the driver takes for a single array of few elements, by its name in ``bench/NOTES.md``."""


def forms(variant: Variant, arch: str) -> list[Alternative]:
    """The kernel that walks a table, and the one for single arrays."""
    table, plain = driver.table_kernel(variant, driver.TILE), driver.array_kernel(variant)
    return [
        Alternative(PRODUCT, driver.TILE, _run_table, partial(_resources, table, variant, arch)),
        Alternative(PLAIN, driver.TILE, driver.run_plain, partial(_resources, plain, variant, arch), tensors=1),
    ]


def _run_table(table: Table, hyper: Array) -> None:
    """By a table, whatever its size."""
    driver.run_table(table, driver.place_table(table, hyper))


def _resources(kernel: Any, variant: Variant, arch: str) -> Resources:
    used = sass.resources(compile_cupy(kernel, variant, arch).cubin)
    return Resources(used["REG"], used["STACK"])
