"""``python -m gpuopt.bench.gpu_sweeps FOLDER``: experiments that set the constants of the GPU drivers.

Writes ``sweeps.json``: for each number of elements the median times of each form, on the GPU and on the host.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from itertools import cycle
from pathlib import Path
from statistics import median
from typing import Any

from gpuopt.bench.contenders.contender import Entrant
from gpuopt.bench.meters import Meter, meter_for
from gpuopt.bench.timing import Timing, measure
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
ROUNDS, SECONDS = 25, 10.0
"""Most turns of each form, and the time after which no further round begins."""


def main(folder: Path) -> None:
    """Does all of them."""
    folder.mkdir(parents=True, exist_ok=True)
    meter = meter_for("cuda")
    found = {"cupy_forms": cupy_forms(meter), "triton_tiles": triton_tiles(meter)}
    (folder / "sweeps.json").write_text(json.dumps(found, indent=1) + "\n")
    for name, rows in found.items():
        for row in rows:
            times = ", ".join(f"{form} {seconds * 1e6:,.1f} us" for form, seconds in row["gpu"].items())
            print(f"{name}, {row['numel']:,} elements: {times}")


def cupy_forms(meter: Meter) -> list[dict[str, Any]]:
    """Adam on one array by the plain and by the table form: what ``PLAIN_NUMEL`` is to be."""
    import cupy

    from gpuopt.kernels.drivers import cupy as driver

    found = []
    for numel in FORM_SIZES:
        table, hypers, keep = _adam_table(driver, numel)
        stream = cupy.cuda.get_current_stream().ptr
        steps = {
            "plain": partial(_plain_step, driver, table, hypers),
            "table": partial(_table_step, driver, table, hypers, stream),
        }
        found.append(_medians(numel, steps, meter))
        del keep
    return found


def triton_tiles(meter: Meter) -> list[dict[str, Any]]:
    """Adam on one array with each of :data:`TILES`."""
    from gpuopt.kernels.drivers import triton as driver

    found = []
    for numel in TILE_SIZES:
        steps, keep = {}, []
        for tile, warps in TILES:
            with _alternative(driver, tile, warps):
                table, hypers, memory = _adam_table(driver, numel)
            keep.append(memory)
            steps[f"{tile} x {warps}"] = _alternative_step(driver, table, hypers, warps)
        found.append(_medians(numel, steps, meter))
        keep.clear()
    return found


def _medians(numel: int, steps: Mapping[str, Callable[[], None]], meter: Meter) -> dict[str, Any]:
    timings = {name: Timing() for name in steps}
    entrants = [(Entrant(step, dict), timings[name]) for name, step in steps.items()]
    measure(entrants, meter, ROUNDS, seconds=SECONDS, rest=0.0)
    for name, timing in timings.items():
        if timing.problem is not None:
            raise RuntimeError(f"{name} on {numel:,} elements: {timing.problem}")
    return {
        "numel": numel,
        "gpu": {name: median(timing.device) for name, timing in timings.items() if timing.device},
        "host": {name: median(timing.step) for name, timing in timings.items() if timing.step},
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


if __name__ == "__main__":
    main(Path(*sys.argv[1:2]))
