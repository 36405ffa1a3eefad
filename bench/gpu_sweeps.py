"""Experiments that set the constants of the GPU drivers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import cycle
from typing import Any

from gpuopt.bench.results import spread
from gpuopt.kernels.epilogue import SLOTS as EPILOGUE_SLOTS
from gpuopt.kernels.prologue import Prologue
from gpuopt.kernels.rules import RULES, adam
from gpuopt.kernels.table import Table
from gpuopt.kernels.variant import hyper_row
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
        table, hypers, keep = _adam_table(driver, numel)
        stream = cupy.cuda.get_current_stream().ptr
        steps = [
            gpu_clock.Step("plain", partial(_plain_step, driver, table, hypers)),
            gpu_clock.Step("table", partial(_table_step, driver, table, hypers, stream)),
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
                table, hypers, memory = _adam_table(driver, numel)
            keep.append(memory)
            steps.append(gpu_clock.Step(f"{tile} x {warps}", _alternative_step(driver, table, hypers, warps)))
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


def _adam_table(driver: Any, numel: int) -> tuple[Table, Iterator[Any], Any]:
    """A table of one array for ``driver``, the hyper of each step, and the memory that must be kept.

    As in training no two steps in a row have the same hyper, so that each copies its own to the GPU.
    """
    import cupy

    slots = [cupy.random.standard_normal(numel, dtype=cupy.float32) for _ in range(2)]
    slots += [cupy.zeros(numel, cupy.float32) for _ in range(2)]
    tensor = Tensor("x", (*slots, None, *(None for _ in EPILOGUE_SLOTS)))
    table = Plans(RULES["adam"], [tensor], driver).launches[0].table
    hypers = [
        table.variant.hyper_array([hyper_row(Prologue(), adam.hyper_at(step, 1e-3, 0.9, 0.999, 1e-8))])
        for step in (1, 2)
    ]
    return table, cycle(hypers), slots


def _plain_step(driver: Any, table: Table, hypers: Iterator[Any]) -> None:
    driver.run_plain(table, next(hypers))


def _table_step(driver: Any, table: Table, hypers: Iterator[Any], stream: int) -> None:
    driver.run_table(table, driver.place_table(table, next(hypers), stream))


def _alternative_step(driver: Any, table: Table, hypers: Iterator[Any], warps: int) -> Callable[[], None]:
    def step() -> None:
        with _alternative(driver, table.tile, warps):
            driver.run(table, next(hypers))

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
