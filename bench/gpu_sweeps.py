"""Experiments that set the constants of the GPU drivers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from gpuopt.bench.results import spread
from gpuopt.kernels.prologue import Prologue
from gpuopt.kernels.rules import RULES, adam
from gpuopt.kernels.table import Table
from gpuopt.plan import Plans, Tensor

FORM_SIZES = tuple(1 << power for power in range(16, 28))
"""Elements of the array that both forms of the CuPy driver step."""

TILES = ((1024, 4), (2048, 8), (4096, 16), (2048, 4))
"""Tile and number of warps of the Triton kernel."""

TILE_SIZES = (1 << 20, 1 << 27)
ROUNDS = 50


def cupy_forms(rounds: int = ROUNDS) -> list[dict[str, Any]]:
    """Adam on one array by the plain and by the table form: what ``PLAIN_NUMEL`` is to be."""
    import cupy

    from gpuopt.bench import gpu_clock
    from gpuopt.kernels.drivers import cupy as driver

    found = []
    for numel in FORM_SIZES:
        table, hyper, keep = _adam_table(driver, numel)
        stream = cupy.cuda.get_current_stream().ptr
        steps = [
            gpu_clock.Step("plain", partial(driver.run_plain, table, hyper)),
            gpu_clock.Step("table", partial(driver.run_table, table, hyper, stream)),
        ]
        found.append({"numel": numel, **_medians(gpu_clock.measure(steps, rounds))})
        del keep
    return found


def triton_tiles(rounds: int = ROUNDS) -> list[dict[str, Any]]:
    """Adam on one array with each of :data:`TILES`."""
    from gpuopt.bench import gpu_clock
    from gpuopt.kernels.drivers import triton as driver

    found = []
    for numel in TILE_SIZES:
        steps, keep = [], []
        for tile, warps in TILES:
            with _alternative(driver, tile, warps):
                table, hyper, memory = _adam_table(driver, numel)
            keep.append(memory)
            steps.append(gpu_clock.Step(f"{tile} x {warps}", _alternative_step(driver, table, hyper, warps)))
        found.append({"numel": numel, **_medians(gpu_clock.measure(steps, rounds))})
        keep.clear()
    return found


def fastest(found: list[dict[str, Any]]) -> dict[int, str]:
    """For each size the name of what took the GPU the least time."""
    return {row["numel"]: min(row["gpu"], key=lambda name: row["gpu"][name]) for row in found}


def _medians(samples: dict[str, list[Any]]) -> dict[str, dict[str, float]]:
    return {
        "gpu": {name: spread(tuple(sample.gpu for sample in taken))["median"] for name, taken in samples.items()},
        "host": {name: spread(tuple(sample.host for sample in taken))["median"] for name, taken in samples.items()},
    }


def _adam_table(driver: Any, numel: int) -> tuple[Table, Any, Any]:
    """A table of one array for ``driver``, the hyper of a step, and the memory that must be kept."""
    import cupy

    slots = [cupy.random.standard_normal(numel, dtype=cupy.float32) for _ in range(2)]
    slots += [cupy.zeros(numel, cupy.float32) for _ in range(2)]
    table = Plans(RULES["adam"], [Tensor("x", (*slots, None))], driver).launches[0].table
    hyper = table.variant.hyper_array([(*Prologue(), *adam.hyper_at(1, 1e-3, 0.9, 0.999, 1e-8))])
    return table, hyper, slots


def _alternative_step(driver: Any, table: Table, hyper: Any, warps: int) -> Callable[[], None]:
    def step() -> None:
        with _alternative(driver, table.tile, warps):
            driver.run(table, hyper)

    return step


@contextmanager
def _alternative(driver: Any, tile: int, warps: int) -> Iterator[None]:
    """Has the Triton driver make tables and launch with other constants for a while."""
    before = driver.TILE, driver.OPTIONS
    driver.TILE, driver.OPTIONS = tile, {**driver.OPTIONS, "num_warps": warps}
    try:
        yield
    finally:
        driver.TILE, driver.OPTIONS = before
