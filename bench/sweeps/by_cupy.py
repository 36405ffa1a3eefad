"""The alternatives to the CuPy driver's kernels."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, partial
from typing import Any

from gpuopt.bench.code import sass
from gpuopt.bench.code.ahead import compile_cupy
from gpuopt.bench.sweeps.alternative import PRODUCT, Alternative, Resources
from gpuopt.kernels.drivers import cuda_source
from gpuopt.kernels.drivers import cupy as driver
from gpuopt.kernels.table import Table
from gpuopt.kernels.variant import Variant
from gpuopt.verify.drawing import Array


@dataclass(frozen=True)
class Setting:
    """How a table is walked.

    Attributes:
        tile: Elements of a tile.
        times: How often as many elements as the product a thread takes.
        threads: Of a block.
    """

    tile: int = driver.TILE
    times: int = 1
    threads: int = 128


SETTINGS = {
    "tile 1024": Setting(1024),
    "tile 2048": Setting(2048),
    "tile 8192": Setting(8192),
    "twice the elements": Setting(times=2),
    "four times the elements": Setting(times=4),
    "256 threads": Setting(threads=256),
    "256 threads, twice the elements": Setting(times=2, threads=256),
}
"""What is tried, by its name in ``bench/NOTES.md``."""

PLAIN = "one element a thread"
"""The kernel that the driver takes for a single small or misaligned array."""


def alternatives(variant: Variant, arch: str) -> list[Alternative]:
    """The product's kernel that walks a table, and others."""
    product = Alternative(PRODUCT, driver.TILE, _run_product, partial(_resources, variant, Setting(), arch))
    return [
        product,
        *(
            Alternative(name, setting.tile, partial(_run, setting), partial(_resources, variant, setting, arch))
            for name, setting in SETTINGS.items()
        ),
    ]


def forms(variant: Variant, arch: str) -> list[Alternative]:
    """The product's kernel that walks a table, and the one that it has for single arrays."""
    plain = partial(_resources_of, driver.array_kernel(variant), variant, arch)
    return [alternatives(variant, arch)[0], Alternative(PLAIN, driver.TILE, driver.run_plain, plain, tensors=1)]


def _run_product(table: Table, hyper: Array) -> None:
    """By a table, whatever its size."""
    driver.run_table(table, driver.place_table(table, hyper))


def _run(setting: Setting, table: Table, hyper: Array) -> None:
    import cupy

    placed = driver.place_table(table, hyper)
    elements = setting.times * cuda_source.elements_per_thread(table.variant)
    threads = table.tiles * (table.tile // elements)
    if threads:
        arguments = map(cupy.asarray, placed[:4])
        kernel(table.variant, setting)(*arguments, size=threads, block_size=setting.threads)


@cache
def kernel(variant: Variant, setting: Setting) -> Any:
    """The kernel that walks a table so."""
    elements = setting.times * cuda_source.elements_per_thread(variant)
    return driver.table_kernel(variant, setting.tile, elements)


@cache
def _resources_of_tables(variant: Variant, times: int, arch: str) -> Resources:
    return _resources_of(kernel(variant, Setting(times=times)), variant, arch)


def _resources(variant: Variant, setting: Setting, arch: str) -> Resources:
    """Tile and block are but numbers in the code: compiled once for each number of elements."""
    return _resources_of_tables(variant, setting.times, arch)


def _resources_of(made: Any, variant: Variant, arch: str) -> Resources:
    used = sass.resources(compile_cupy(made, variant, arch).cubin)
    return Resources(used["REG"], used["STACK"])
