"""A launcher asks Triton once which compilation a launch gets, and may.

1. The first launch on a device is Triton's own; each later one launches what that compiled, with the compile-time
   arguments in the kernel's order. A launch that fails to compile leaves nothing, and the next tries again.
2. Of every kernel that is launched so, compile-time arguments come last and are given in their order, and no other
   argument is specialised on: neither its value nor its alignment chooses a compilation. Where hyper rows of two dtypes
   are filled by one rule, each has a launcher.

``kit.host_gpu`` demands of every later launch that its arguments have the types of the first, so all tests that step
twice on a GPU that is not there hold the drivers to it. Interpreted, each launch is Triton's own.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from triton.runtime.driver import DriverConfig

from gpuopt.kernels.drivers import triton as driver
from gpuopt.kernels.drivers import triton_norm, triton_schedule
from gpuopt.kernels.drivers.triton_launch import Launcher
from gpuopt.kernels.rules import RULES
from gpuopt.verify.variants import variants

CONSTANTS, OPTIONS = {"A": 1, "B": None}, {"num_warps": 4}


class Kernel:
    """Plays Triton: tells how it was launched, and by what was compiled."""

    def __init__(self) -> None:
        self.launches: list[Any] = []
        self.fails = False

    def __getitem__(self, grid: Any) -> Any:
        def launch(*arguments: Any, **options: Any) -> Any:
            if self.fails:
                raise RuntimeError("no compiler")
            self.launches.append(("Triton's", grid, arguments, options))
            return Compiled(self, f"compilation {len(self.launches)}")

        return launch


class Compiled:
    """What it returns."""

    def __init__(self, kernel: Kernel, name: str) -> None:
        self._kernel, self._name = kernel, name

    def __getitem__(self, grid: Any) -> Any:
        return lambda *arguments: self._kernel.launches.append((self._name, grid, arguments))


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    made = SimpleNamespace(index=0)
    monkeypatch.setattr(DriverConfig, "active", SimpleNamespace(get_current_device=lambda: made.index), raising=False)
    return made


def test_the_first_launch_on_a_device_is_tritons(device: SimpleNamespace) -> None:
    kernel = Kernel()
    launch = Launcher(kernel, CONSTANTS, OPTIONS)
    launch(3, "x", 7)
    launch(5, "y", 8)
    device.index = 1
    launch(6, "z", 9)
    launch(7, "z", 9)
    device.index = 0
    launch(8, "x", 7)
    assert kernel.launches == [
        ("Triton's", (3,), ("x", 7), {**CONSTANTS, **OPTIONS}),
        ("compilation 1", (5, 1, 1), ("y", 8, 1, None)),
        ("Triton's", (6,), ("z", 9), {**CONSTANTS, **OPTIONS}),
        ("compilation 3", (7, 1, 1), ("z", 9, 1, None)),
        ("compilation 1", (8, 1, 1), ("x", 7, 1, None)),
    ]


def test_what_does_not_compile_is_tried_again(device: SimpleNamespace) -> None:
    kernel = Kernel()
    launch = Launcher(kernel, CONSTANTS, OPTIONS)
    kernel.fails = True
    with pytest.raises(RuntimeError, match="no compiler"):
        launch(1, "x")
    kernel.fails = False
    launch(1, "x")
    assert [how for how, *_ in kernel.launches] == ["Triton's"]


VARIANT = variants()[0]
KERNELS = {
    "step": (driver.step_kernel, driver.constants(VARIANT)),
    "square": (triton_norm.square_kernel, triton_norm.constants(VARIANT, driver.TILE)),
    "clip": (triton_norm.clip_kernel, triton_norm.CLIP_CONSTANTS),
    "advance": (triton_schedule.advance_kernel, triton_schedule.constants(RULES["adam"])),
}


POINTERS = {
    *("rows", "tile_tensor", "hyper", "signals", "sums", "max_norm", "loss_scale", "wide", "narrow"),
    *("counts", "groups", "settings", "sources"),
}
"""Runtime arguments that are addresses; all others are numbers."""


@pytest.mark.parametrize("name", KERNELS)
def test_nothing_but_compile_time_arguments_chooses_a_compilation(name: str) -> None:
    kernel, constants = KERNELS[name]
    are_constants = [param.is_constexpr for param in kernel.params]
    assert are_constants == sorted(are_constants)
    assert [param.name for param in kernel.params if param.is_constexpr] == list(constants)
    for param in kernel.params:
        if param.name in POINTERS:
            assert param.do_not_specialize_on_alignment, param.name
        elif not param.is_constexpr:
            assert param.do_not_specialize, param.name  # else a 1 would be compiled in, and reused for another number


def test_each_tile_has_a_launcher() -> None:
    one, other = (driver.launcher(VARIANT, tile) for tile in (1024, 2048))
    assert [each._constants["TILE"] for each in (one, other)] == [1024, 2048]


def test_hyper_rows_of_each_dtype_have_a_launcher() -> None:
    rule = RULES["adam"]
    one, other, again = (triton_schedule.launcher(rule, np.dtype(name)) for name in ("float32", "float64", "float32"))
    assert one is again
    assert one is not other
