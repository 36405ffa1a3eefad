"""The Triton driver's kernel, compiled for sm_80, sm_90 and sm_100 on a machine without a GPU.

For every variant and architecture:

- it compiles;
- a full, aligned tile moves in 16-byte accesses alone, each slot but the copy once in, each written slot once out;
- nothing spills, and registers stay few enough for the occupancy that `REGISTERS` implies;
- arithmetic rounds as IEEE 754 does: no flush to zero, no approximate division or root, no product fused with a sum,
  float64 only where a slot is fp64, and every 16-bit store rounds to nearest even.

The last is read off the PTX. What ptxas makes of it is read off the SASS, for every set of optional slots in fp32 and
for the first rule in every set of formats, since disassembling takes longer than compiling: the accesses stay whole,
local memory is not touched, and no addition or multiplication is merged into another instruction.

The driver's `run` asks Triton for exactly the kernel that is examined here, and compiles one for a variant: neither
hyper values nor signals nor the number, sizes or addresses of tensors compile it anew.
"""

from __future__ import annotations

from collections import defaultdict
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.runtime.driver import DriverConfig

from gpuopt.bench.code import sass
from gpuopt.bench.code.ahead import compile_triton
from gpuopt.bench.code.gpus import ARCHS
from gpuopt.kernels.drivers import triton as driver
from gpuopt.kernels.epilogue import COPY
from gpuopt.kernels.signals import NO_SIGNALS, Signals
from gpuopt.kernels.table import Table
from gpuopt.kernels.variant import Variant
from gpuopt.verify.variants import hyper_fields, variants

THREADS = 32 * driver.OPTIONS["num_warps"]

REGISTERS = {
    "float32": (32, 56, 64, 72, 80, 96),
    "float64": (48, 96, 120, 136, 152),
}
"""The most registers of a thread, by compute dtype and number of slots beyond parameter and gradient: the most seen,
in steps of 8."""

TRITON_3_6 = triton.__version__.startswith("3.6.")

SPILLED = 8 if TRITON_3_6 else 0
"""Bytes of a thread's stack. Triton 3.6 spills one pair of registers in two variants on sm_80, to get by with 48."""

VARIANTS = variants()


class Kernel:
    """One variant compiled for one architecture."""

    def __init__(self, variant: Variant, arch: str) -> None:
        self.variant = variant
        self.cubin = (compiled := compile_triton(variant, arch)).cubin
        self.ptx = sass.ptx_opcodes(compiled.ptx)
        self.sizes = {
            slot: format.itemsize for slot, format in zip(variant.slots, variant.formats, strict=True) if format
        }

    @property
    def loaded(self) -> list[int]:
        """Item sizes of the slots that a step reads: all but the copy."""
        return [size for slot, size in self.sizes.items() if slot != COPY]

    @property
    def stored(self) -> list[int]:
        """Item sizes of the slots that a step writes: all but the gradient, unless it is zeroed."""
        return [self.sizes[slot] for slot in self.variant.written]

    @property
    def rounded(self) -> list[int]:
        """Item sizes of the slots that results are rounded to: those written, without the zeros of a gradient."""
        return [self.sizes[slot] for slot in self.variant.written if slot != "grad"]


@pytest.fixture(scope="module", params=[(v, a) for v in VARIANTS for a in ARCHS], ids=lambda p: f"{p[1]}-{p[0]}")
def kernel(request: pytest.FixtureRequest) -> Kernel:
    return Kernel(*request.param)


def accesses_per_thread(itemsizes: list[int]) -> int:
    """16-byte accesses of one thread to one tile of slots with these item sizes."""
    return driver.TILE * sum(itemsizes) // THREADS // 16


def test_a_full_tile_moves_in_16_byte_accesses(kernel: Kernel) -> None:
    assert sass.count(kernel.ptx, r"ld\.global.*\.(v4\.b32|v2\.b64)") == accesses_per_thread(kernel.loaded)
    assert sass.count(kernel.ptx, r"st\.global.*\.(v4\.b32|v2\.b64)") == accesses_per_thread(kernel.stored)


def test_nothing_spills_and_registers_are_few(kernel: Kernel) -> None:
    used = sass.resources(kernel.cubin)
    assert used["STACK"] <= SPILLED
    assert used["LOCAL"] == 0
    assert used["REG"] <= REGISTERS[kernel.variant.compute.name][len(kernel.sizes) - 2]


def test_arithmetic_rounds_as_ieee_754(kernel: Kernel) -> None:
    assert not sass.among(kernel.ptx, sass.INEXACT)
    assert not sass.among(kernel.ptx, r"\.f64") or kernel.variant.compute == np.float64


def test_16_bit_stores_round_to_nearest_even(kernel: Kernel) -> None:
    assert not sass.among(kernel.ptx, sass.NARROWING) - sass.among(kernel.ptx, sass.NARROWING_TO_NEAREST)
    # One element a thread and store in the masked path, which may be unrolled; all of a tile in the other.
    zeros = kernel.variant.zero_grads * driver.TILE // THREADS  # of a step that is skipped
    masked, rest = divmod(sass.count(kernel.ptx, r"st\.global\.[bfsu]\d+") - zeros, len(kernel.stored))
    assert (masked > 0, rest) == (True, 0)
    assert sass.narrowed(kernel.ptx) == kernel.rounded.count(2) * (driver.TILE // THREADS + masked)


DISASSEMBLED = [
    variant
    for variant in VARIANTS
    if {format.name for format in variant.formats if format is not None} == {"fp32"}
    or (variant.rule, variant.present) == (VARIANTS[0].rule, VARIANTS[0].present)
]


@pytest.mark.parametrize("arch", ARCHS)
@pytest.mark.parametrize("variant", DISASSEMBLED, ids=str)
def test_the_assembler_keeps_what_the_ptx_says(variant: Variant, arch: str) -> None:
    kernel = Kernel(variant, arch)
    code = sass.sass_opcodes(kernel.cubin)
    assert sass.count(code, r"LDG\.E\.128.*") == accesses_per_thread(kernel.loaded)
    assert sass.count(code, r"STG\.E\.128.*") == accesses_per_thread(kernel.stored)
    assert not sass.among(code, sass.LOCAL_MEMORY)
    assert not sass.among(code, sass.FLOAT64) or variant.compute == np.float64
    if TRITON_3_6 and sass.among(code, r"^FFMA2"):
        pytest.xfail("ptxas 12.9, which Triton 3.6 brings, fuses mul.rn.f32x2 with add.rn.f32x2 whatever it is told")
    # Unrolling may repeat instructions. Those that divisions and roots expand to are FMAs, or flush to zero.
    assert sass.count(code, sass.MULTIPLICATION) >= sass.count(kernel.ptx, r"mul\.rn\.f.*")
    assert sass.count(code, sass.ADDITION) >= sass.count(kernel.ptx, r"(add|sub)\.rn\.f.*")
    if not sass.among(kernel.ptx, r"^(div|sqrt)\."):
        assert not sass.among(code, r"FTZ|^[FD]FMA|^MUFU")


class Launches:
    """What the driver's `run` asks of Triton.

    Attributes:
        kernels: What would have been launched.
        compiled: An event for each that was not in memory yet.
        offset: Elements by which the driver's own buffers miss 16-byte alignment.
    """

    def __init__(self) -> None:
        self.kernels: list[Any] = []
        self.compiled: list[dict[str, Any]] = []
        self.offset = 0

    def to_device(self, array: np.ndarray) -> torch.Tensor:
        """In the driver's place, a copy in host memory."""
        allocated = torch.from_numpy(np.empty(len(array) + self.offset + 16, array.dtype))
        start = -allocated.data_ptr() % 16 // array.itemsize + self.offset
        return allocated[start : start + len(array)].copy_(torch.from_numpy(array))


@pytest.fixture
def launches(monkeypatch: pytest.MonkeyPatch) -> Launches:
    """Lets `run` do all but launch: as if on an H100, with host memory in place of the GPU's."""
    recorded = Launches()
    step_kernel = driver.step_kernel
    launch = step_kernel.run

    def compile_only(*arguments, warmup, **options) -> None:
        recorded.kernels.append(launch(*arguments, warmup=True, **options))

    gpu = SimpleNamespace(
        get_current_target=lambda: GPUTarget("cuda", 90, 32),
        get_current_device=lambda: 0,
        get_current_stream=lambda device: 0,
    )
    monkeypatch.setattr(DriverConfig, "active", gpu)
    monkeypatch.setattr(step_kernel, "device_caches", defaultdict(step_kernel.create_binder))
    monkeypatch.setattr(step_kernel, "run", compile_only)
    monkeypatch.setattr(triton.knobs.compilation, "listener", lambda **event: recorded.compiled.append(event))
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: False)
    monkeypatch.setattr(driver, "on_stream", lambda device, stream: nullcontext())
    monkeypatch.setattr(driver, "_to_device", recorded.to_device)
    return recorded


def run(
    variant: Variant,
    numels: list[int],
    hyper_rows: list[list[float]],
    misalignment: int = 0,
    signals: Signals = NO_SIGNALS,
) -> None:
    """`run` on tensors that are nowhere: nothing is launched."""
    address = 1 << 40 | misalignment
    addresses = [[0 if format is None else address for format in variant.formats] for _ in numels]
    table = Table(variant, driver.TILE, numels, addresses, [i % len(hyper_rows) for i in range(len(numels))], 0)
    driver.run(table, variant.hyper_array(hyper_rows), signals=signals)


def code_in(ptx: str) -> str:
    """PTX less what follows for debuggers: the sources' paths are those of the checkout that Triton first compiled."""
    code, files, _ = ptx.partition("\t.file\t")
    assert files
    return code


@pytest.mark.parametrize("variant", DISASSEMBLED, ids=str)
def test_run_compiles_the_kernel_that_is_examined_here(variant: Variant, launches: Launches) -> None:
    run(variant, [5000, 3], [list(hyper_fields(variant).values())])
    (kernel,) = launches.kernels
    assert code_in(kernel.asm["ptx"]) == code_in(compile_triton(variant, "sm_90").ptx)


@pytest.mark.parametrize("variant", [VARIANTS[0], VARIANTS[-1]], ids=str)
def test_only_a_new_variant_compiles(variant: Variant, launches: Launches) -> None:
    width = len(variant.hyper_fields)
    for count in (1, 15, 16, 17, 256):
        for numel in (1, 16, driver.TILE, 3 * driver.TILE + 1):
            for launches.offset in (0, 1):
                run(variant, [numel] * count, [[0.001] * width], misalignment=launches.offset * 8)
    for value in (0.0, 1.0, 16.0, float("inf"), float("nan")):
        run(variant, [5], [[value] * width])
    for rows in (1, 2, 3, 16):
        run(variant, [5] * 16, [[0.5] * width] * rows)
    for signals in (Signals(1 << 40, 1 << 40, 1 << 40), Signals(found_inf=8)):
        run(variant, [5], [[0.5] * width], signals=signals)
    assert len(launches.kernels) == 5 * 4 * 2 + 5 + 4 + 2
    assert len(launches.compiled) == 1
    run(VARIANTS[1], [5], [[0.5] * len(VARIANTS[1].hyper_fields)])
    assert len(launches.compiled) == 2
