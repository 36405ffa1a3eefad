"""The alternatives to the Triton driver's kernel."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from gpuopt.bench.code import sass
from gpuopt.bench.sweeps.alternative import PRODUCT, Alternative, Resources
from gpuopt.kernels.drivers import triton as driver
from gpuopt.kernels.drivers.device_table import Placed
from gpuopt.kernels.table import Table
from gpuopt.kernels.variant import Variant
from gpuopt.verify.drawing import Array

_DROPPED = ("EPILOGUE", "C", "AVERAGE", "COPY", "ZERO_GRADS")
"""Compile-time arguments of the driver's kernel that the one with knobs has not."""

OFF: dict[str, Any] = {"EARLY": False, "PERSISTENT": False, "GRADS": "", "STORES": "", "STORED": ""}
"""All knobs of :mod:`triton_kernel` but the tile, off."""


@dataclass(frozen=True)
class Setting:
    """How the knobs stand.

    Attributes:
        tile: Elements of a tile.
        warps: Of a program.
        tail: Elements that a program takes at a time behind a mask; None for one a thread.
        blocks: Programs of a persistent grid for each multiprocessor; 0 for a program for each tile.
        knobs: Those of :data:`OFF` that are on.
        options: Further options of the launch.
    """

    tile: int = driver.TILE
    warps: int = int(driver.OPTIONS["num_warps"])
    tail: int | None = None
    blocks: int = 0
    knobs: Mapping[str, Any] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)


SETTINGS = {
    "2048 / 4": Setting(2048),
    "2048 / 8": Setting(2048, 8),
    "4096 / 8": Setting(4096, 8),
    "sooner": Setting(knobs={"EARLY": True}),
    "sooner, 2048 / 8": Setting(2048, 8, knobs={"EARLY": True}),
    "gradients evict_first": Setting(knobs={"GRADS": "evict_first"}),
    "stores .cs": Setting(knobs={"STORES": ".cs"}),
    "stores evict_first": Setting(knobs={"STORED": "evict_first"}),
    "persistent, 4 an SM": Setting(blocks=4),
    "persistent, 8 an SM": Setting(blocks=8),
    "persistent, 8 an SM, sooner": Setting(blocks=8, knobs={"EARLY": True}),
    "maxnreg 128": Setting(options={"maxnreg": 128}),
    "tails of 256": Setting(tail=256),
    "tails of 512": Setting(tail=512),
    "tails of 512, sooner": Setting(tail=512, knobs={"EARLY": True}),
}
"""What is tried, by its name in ``bench/NOTES.md``: tile and warps, or what else differs from the product."""

FOR_TAILS = ("tails of 256", "tails of 512", "tails of 512, sooner")
"""Those that matter behind masks alone: for tensors smaller than a tile, and misaligned ones."""

FOR_SMALL = ("2048 / 8", "sooner", "persistent, 8 an SM", *FOR_TAILS)
"""Those that could matter where tensors are smaller than a tile."""

FOR_LARGE = tuple(name for name in SETTINGS if name not in FOR_TAILS)
"""Those that could matter where nearly all tiles are full."""


def alternatives(variant: Variant, names: tuple[str, ...] = FOR_LARGE) -> list[Alternative]:
    """The product's kernel and some others."""
    product = Alternative(PRODUCT, driver.TILE, driver.run, partial(_resources_of_product, variant))
    return [product, *(alternative(name, SETTINGS[name], variant) for name in names)]


def alternative(name: str, setting: Setting, variant: Variant) -> Alternative:
    """One of them, for steps of a variant."""
    return Alternative(name, setting.tile, partial(_run, setting), partial(_resources, setting, variant))


def _run(setting: Setting, table: Table, hyper: Array) -> None:
    """As the driver's ``run`` on the default stream, which is the current one."""
    launch(setting, table, driver.place(table, hyper))


def launch(setting: Setting, table: Table, placed: Placed) -> Any:
    """Launches the kernel with these knobs, on the current device and stream."""
    from gpuopt.bench.sweeps.triton_kernel import alternative_kernel

    programs = min(table.tiles, setting.blocks * _multiprocessors()) if setting.blocks else table.tiles
    if not programs:
        return None
    known = constants(setting, table.variant)
    return alternative_kernel[(programs,)](*placed[:4], table.tiles, **known, **_options(setting))


def constants(setting: Setting, variant: Variant) -> dict[str, Any]:
    """The compile-time arguments of the kernel with knobs."""
    of_driver = driver.constants(variant, setting.tile)
    known = {name: value for name, value in of_driver.items() if name not in _DROPPED}
    return {**known, **OFF, **setting.knobs, "TAIL": setting.tail or 32 * setting.warps, "PERSISTENT": setting.blocks > 0}


def _options(setting: Setting) -> dict[str, Any]:
    return {**driver.OPTIONS, "num_warps": setting.warps, **setting.options}


def _multiprocessors() -> int:
    import torch

    return int(torch.cuda.get_device_properties(0).multi_processor_count)


def _resources(setting: Setting, variant: Variant) -> Resources:
    from gpuopt.bench.sweeps.triton_kernel import alternative_kernel

    return _warmed(alternative_kernel, variant, constants(setting, variant), _options(setting), tiles=1)


def _resources_of_product(variant: Variant) -> Resources:
    return _warmed(driver.step_kernel, variant, driver.constants(variant), driver.OPTIONS)


def _warmed(
    kernel: Any, variant: Variant, constants: Mapping[str, Any], options: Mapping[str, Any], **scalars: int
) -> Resources:
    """What the kernel takes that a launch with such arguments would get, which is compiled already if there was one."""
    import torch

    hyper = getattr(torch, variant.compute.name)
    dtypes = (torch.int64, torch.int32, hyper, torch.int64)
    compiled = kernel.warmup(*dtypes, **scalars, **constants, **options, grid=(1,))
    used = sass.resources(compiled.asm["cubin"])
    return Resources(used["REG"], used["STACK"])
