"""The alternatives to how the Triton driver cuts a step into programs."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

from gpuopt.bench.code import sass
from gpuopt.bench.sweeps.alternative import PRODUCT, Alternative, Resources
from gpuopt.kernels.drivers import triton as driver
from gpuopt.kernels.drivers.device_table import Placed
from gpuopt.kernels.table import Table
from gpuopt.kernels.variant import Variant
from gpuopt.verify.drawing import Array


@dataclass(frozen=True)
class Setting:
    """How a step is cut.

    Attributes:
        tile: Elements of a tile.
        warps: Of a program.
    """

    tile: int = driver.TILE
    warps: int = int(driver.OPTIONS["num_warps"])


SETTINGS = {"2048 / 4": Setting(2048), "2048 / 8": Setting(2048, 8), "4096 / 8": Setting(4096, 8)}
"""What is tried, by its name in ``bench/NOTES.md``: tile and warps."""


def alternatives(variant: Variant) -> list[Alternative]:
    """As the product cuts a step, and others."""
    settings = {PRODUCT: Setting(), **SETTINGS}
    return [alternative(name, setting, variant) for name, setting in settings.items()]


def alternative(name: str, setting: Setting, variant: Variant) -> Alternative:
    """One of them, for steps of a variant."""
    return Alternative(name, setting.tile, partial(_run, setting), partial(_resources, setting, variant))


def _run(setting: Setting, table: Table, hyper: Array) -> None:
    """As the driver's ``run`` on the default stream, which is the current one."""
    launch(setting, table, driver.place(table, hyper))


def launch(setting: Setting, table: Table, placed: Placed) -> None:
    """Launches the driver's kernel so, on the current device and stream."""
    if table.tiles:
        constants = driver.constants(table.variant, setting.tile)
        driver.step_kernel[(table.tiles,)](*placed[:4], **constants, **_options(setting))


def _options(setting: Setting) -> dict[str, Any]:
    return {**driver.OPTIONS, "num_warps": setting.warps}


def _resources(setting: Setting, variant: Variant) -> Resources:
    """What the kernel takes that such a launch would get, which is compiled already if there was one."""
    import torch

    dtypes = (torch.int64, torch.int32, getattr(torch, variant.compute.name), torch.int64)
    constants = driver.constants(variant, setting.tile)
    compiled = driver.step_kernel.warmup(*dtypes, **constants, **_options(setting), grid=(1,))
    used = sass.resources(compiled.asm["cubin"])
    return Resources(used["REG"], used["STACK"])
