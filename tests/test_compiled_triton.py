"""The Triton driver's kernel, compiled for sm_80, sm_90 and sm_100 on a machine without a GPU.

For every variant and architecture:

- it compiles;
- a full, aligned tile moves in 16-byte accesses alone, of a plane of single bytes in 8-byte ones, each slot but the
  copy once in, each written slot once out;
- where its gradient is not aligned, that alone moves by elements, and no value takes another way through shared memory;
  neither has a mask;
- a scale of a block is stored by one thread, by the only instruction with a mask;
- nothing spills, and registers stay few enough for the occupancy that `REGISTERS` implies;
- arithmetic rounds as IEEE 754 does: no flush to zero, no approximate division or root, no product fused with a sum,
  float64 only where a slot is fp64, and every store of bf16 and fp16 rounds to nearest even;
- the kernel of an edited format is compiled, and not found in Triton's cache under the names of its functions.

The last is read off the PTX. What ptxas makes of it is read off the SASS, for every set of optional slots in fp32 and
for the first rule in every set of formats, since disassembling takes longer than compiling: the accesses stay whole,
local memory is not touched, and no addition or multiplication is merged into another instruction.

The driver's `run`, through Triton's own launch on a GPU that is not there, asks for exactly the kernel that is examined
here, and compiles one for a variant: neither hyper values nor signals, nor the number, sizes or addresses of tensors,
nor where the driver's own buffers lie compile it anew. So it is with the kernels of norms and schedules, which are
examined in ``test_compiled_norm_and_schedule.py``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import numpy as np
import pytest
import torch
import triton
from kit.host_gpu import HostGpu, host_gpu, is_rich, slot_of
from kit.schedules import Scheduled, rows_in_order

from gpuopt.bench.code import sass
from gpuopt.bench.code.ahead import compile_advance, compile_clip, compile_square, compile_triton
from gpuopt.bench.code.gpus import ARCHS
from gpuopt.kernels.drivers import triton as driver
from gpuopt.kernels.drivers import triton_norm
from gpuopt.kernels.epilogue import COPY
from gpuopt.kernels.formats import FORMATS
from gpuopt.kernels.rules import RULES, Rule
from gpuopt.kernels.signals import NO_SIGNALS, Signals
from gpuopt.kernels.table import Table
from gpuopt.kernels.variant import Variant
from gpuopt.verify.variants import hyper_fields, hyper_rows, variants

THREADS = 32 * driver.OPTIONS["num_warps"]

REGISTERS = {
    ("float32", False): (40, 56, 64, 80, 80, 96),
    ("float64", False): (64, 104, 120, 144, 152),
    ("float32", True): (56, 80, 104, 128, 128, 128),
    ("float64", True): (64, 104, 120, 128, 152, 192),
}
"""The most registers of a thread, by compute dtype, whether a format is random or has several planes, and number of
slots beyond parameter and gradient: the most seen, in steps of 8."""

REGISTERS_IN_BLOCKS = {"float32": {1: 96, 2: 112, 3: 128}, "float64": {3: 128, 5: 168}}
"""Likewise where state is in blocks, by compute dtype and number of slots."""

TRITON_3_6 = triton.__version__.startswith("3.6.")

SPILLED = {"sm_80": 24, "sm_90": 8} if TRITON_3_6 else {"sm_80": 8}
"""Bytes of a thread's stack: compilers spill a pair of registers or more in two variants, to get by with 48 or 64."""

SPILLED_IN_BLOCKS = {"sm_80": 8, "sm_100": 8}
"""Likewise in three variants whose state is in blocks, to get by with 80 or 96."""

WHOLE = r"\.(v4\.b32|v2\.b64)"

HALF = r".*\.v2\.b32"
"""What a thread accesses of its 8 elements in a plane of single bytes."""

ROUNDED = [FORMATS["bf16"], FORMATS["fp16"]]
"""Formats that are rounded to by an instruction."""

VARIANTS = variants()


def ways_of(stretches: list[str]) -> tuple[str, str]:
    """Both ways of full tiles, each whole or with a branch in it, behind which both may end in one."""
    if len(stretches) == 2:
        return stretches[0], stretches[1]
    if len(stretches) == 3:
        return stretches[0] + stretches[1], stretches[2] + stretches[1]
    first, end, second, other_end = stretches
    return first + end, second + other_end


class Kernel:
    """One variant compiled for one architecture."""

    def __init__(self, variant: Variant, arch: str) -> None:
        self.variant, self.arch = variant, arch
        self.cubin = (compiled := compile_triton(variant, arch)).cubin
        self.ptx = sass.ptx_opcodes(compiled.ptx)
        stretches = sass.ptx_ways(compiled.ptx, rf"\.global{WHOLE}$")
        self.aligned, self.misaligned = ways_of(stretches)
        self.ends = 1 if len(stretches) == 3 else 2  # of both ways
        entries = {name: plane for name, (_, plane) in variant.planes.items()}
        self.sizes = {name: plane.storage.itemsize for name, plane in entries.items() if plane.block == 1}
        self.scales = len(entries) - len(self.sizes)

    @property
    def loaded(self) -> list[int]:
        """Bytes of an entry of each plane that a step reads, scales aside: of all slots but the copy."""
        return [size for name, size in self.sizes.items() if slot_of(name) != COPY]

    @property
    def stored(self) -> list[int]:
        """Of each plane that a step writes: of all slots but the gradient, unless it is zeroed."""
        return [size for name, size in self.sizes.items() if slot_of(name) in self.variant.written]

    @property
    def rounded(self) -> int:
        """Number of slots that results are rounded to by the GPU: those written, without the zeros of a gradient."""
        formats = dict(zip(self.variant.slots, self.variant.formats, strict=True))
        return sum(formats[slot] in ROUNDED for slot in self.variant.written if slot != "grad")


@pytest.fixture(scope="module", params=[(v, a) for v in VARIANTS for a in ARCHS], ids=lambda p: f"{p[1]}-{p[0]}")
def kernel(request: pytest.FixtureRequest) -> Kernel:
    return Kernel(*request.param)


def accesses_per_thread(itemsizes: list[int]) -> int:
    """16-byte accesses of one thread to one tile of planes with entries of these sizes."""
    return sum(driver.TILE * size // THREADS // 16 for size in itemsizes)


def test_a_full_tile_moves_in_16_byte_accesses(kernel: Kernel) -> None:
    zeroed = kernel.variant.zero_grads
    for access, moved, by_elements in (("ld", kernel.loaded, True), ("st", kernel.stored, zeroed)):
        aligned, misaligned = map(sass.ptx_opcodes, (kernel.aligned, kernel.misaligned))
        whole = accesses_per_thread(moved)
        of_grad = accesses_per_thread([kernel.sizes["grad"]]) * by_elements
        assert sass.count(aligned, rf"{access}\.global{WHOLE}") == whole
        assert sass.count(misaligned, rf"{access}\.global{WHOLE}") == whole - of_grad
        for way in (aligned, misaligned):
            assert sass.count(way, rf"{access}\.global{HALF}") == moved.count(1)
        element = rf"{access}\.global\.b{8 * kernel.sizes['grad']}"  # as are some scalars and addresses
        elements = sass.count(misaligned, element) - sass.count(aligned, element)
        assert elements == by_elements * driver.TILE // THREADS
        shared = rf"{access}\.shared.*"
        assert sass.count(misaligned, shared) == sass.count(aligned, shared)


def test_a_full_tile_has_no_mask_but_of_scales(kernel: Kernel) -> None:
    for way in (kernel.aligned, kernel.misaligned):
        masked = re.findall(r"^\s*@.*((?:ld|st)\.global\S*)", way, re.MULTILINE)
        assert masked == ["st.global.b32"] * kernel.scales


def test_nothing_spills_and_registers_are_few(kernel: Kernel) -> None:
    used = sass.resources(kernel.cubin)
    variant, dtype, slots = kernel.variant, kernel.variant.compute.name, len(kernel.variant.present) - 2
    assert used["STACK"] <= (SPILLED_IN_BLOCKS if variant.in_blocks else SPILLED).get(kernel.arch, 0)
    assert used["LOCAL"] == 0
    most = REGISTERS_IN_BLOCKS[dtype] if variant.in_blocks else REGISTERS[dtype, is_rich(variant)]
    assert used["REG"] <= most[slots]


def test_arithmetic_rounds_as_ieee_754(kernel: Kernel) -> None:
    assert not sass.among(kernel.ptx, sass.INEXACT)
    assert not sass.among(kernel.ptx, r"\.f64") or kernel.variant.compute == np.float64


def test_stores_round_to_nearest_even(kernel: Kernel) -> None:
    assert not sass.among(kernel.ptx, sass.NARROWING) - sass.among(kernel.ptx, sass.NARROWING_TO_NEAREST)
    # One element a thread and store in the masked path, which may be unrolled; all of a tile in the others.
    zeros = kernel.variant.zero_grads * 2 * driver.TILE // THREADS  # of a full tile, and of a step that is skipped
    scales = kernel.scales * (kernel.ends + 1)
    masked, rest = divmod(sass.count(kernel.ptx, r"st\.global\.[bfsu]\d+") - zeros - scales, len(kernel.stored))
    assert (masked > 0, rest) == (True, 0)
    assert sass.narrowed(kernel.ptx) == kernel.rounded * (2 * driver.TILE // THREADS + masked)


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
    grad = accesses_per_thread([kernel.sizes["grad"]])  # whole on one of both ways of a full tile
    assert sass.count(code, r"LDG\.E\.128.*") == 2 * accesses_per_thread(kernel.loaded) - grad
    zeros = grad * kernel.variant.zero_grads
    assert sass.count(code, r"STG\.E\.128.*") == kernel.ends * accesses_per_thread(kernel.stored) - zeros
    if not (variant.in_blocks and arch in SPILLED_IN_BLOCKS):
        assert not sass.among(code, sass.LOCAL_MEMORY)
    assert not sass.among(code, sass.FLOAT64) or variant.compute == np.float64
    if TRITON_3_6 and sass.among(code, r"^FFMA2"):
        pytest.xfail("ptxas 12.9, which Triton 3.6 brings, fuses mul.rn.f32x2 with add.rn.f32x2 whatever it is told")
    # Unrolling may repeat instructions. Those that divisions and roots expand to are FMAs, or flush to zero.
    assert sass.count(code, sass.MULTIPLICATION) >= sass.count(kernel.ptx, r"mul\.rn\.f.*")
    assert sass.count(code, sass.ADDITION) >= sass.count(kernel.ptx, r"(add|sub)\.rn\.f.*")
    if not sass.among(kernel.ptx, r"^(div|sqrt)\."):
        assert not sass.among(code, r"FTZ|^[FD]FMA|^MUFU")


EDITED = """
def triton_load(stored, compute):
    return stored.to(compute)


def triton_store(value, random):
    return ((value {edit}).to(tl.bfloat16),)
"""


def edited(folder: Path, edit: str) -> Variant:
    """One whose format has functions of the same names and module in each folder."""
    path = folder / "edited.py"
    folder.mkdir()
    path.write_text(EDITED.format(edit=edit))
    module = module_from_spec(spec := spec_from_file_location("edited", path))
    spec.loader.exec_module(module)
    forms = {name: getattr(module, name) for name in ("triton_load", "triton_store")}
    param = replace(FORMATS["bf16"], name="edited", **forms)
    return Variant(RULES["sgd"], (param, FORMATS["bf16"], None))


def test_an_edited_format_is_compiled_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path / "cache"))
    one, other, again = (edited(tmp_path / f"{k}", edit) for k, edit in enumerate(("+ 1.0", "- value", "+ 1.0")))
    ptx = [code_in(compile_triton(variant, "sm_90").ptx) for variant in (one, other, again)]
    assert ptx[0] == ptx[2] != ptx[1]


@pytest.fixture
def gpu() -> Iterator[HostGpu]:
    """Lets the driver do all but launch: as if on an H100."""
    with host_gpu(runs=False) as gpu:
        yield gpu


def table_of(variant: Variant, numels: list[int], hyper_rows: int = 1, misalignment: int = 0) -> Table:
    """Tensors that are nowhere."""
    address = 1 << 40 | misalignment
    addresses = [[address] * variant.width for _ in numels]
    return Table(variant, driver.TILE, numels, addresses, [i % hyper_rows for i in range(len(numels))], 0)


def code_in(ptx: str) -> str:
    """PTX less what debuggers read: its files and lines are those of the checkout that first filled Triton's cache."""
    code, files, _ = ptx.partition("\t.file\t")
    assert files
    return "".join(line for line in code.splitlines(keepends=True) if not line.startswith("\t.loc\t"))


@pytest.mark.parametrize("variant", DISASSEMBLED, ids=str)
def test_run_compiles_the_kernel_that_is_examined_here(variant: Variant, gpu: HostGpu) -> None:
    driver.run(table_of(variant, [5000, 3]), variant.hyper_array([list(hyper_fields(variant).values())]))
    (launched,) = gpu.launches
    assert code_in(launched.compiled.asm["ptx"]) == code_in(compile_triton(variant, "sm_90").ptx)


@pytest.mark.parametrize("variant", [VARIANTS[0], VARIANTS[-1]], ids=str)
def test_only_a_new_variant_compiles(variant: Variant, gpu: HostGpu) -> None:
    width = len(variant.hyper_fields)

    def run(table: Table, rows: list[list[float]], signals: Signals = NO_SIGNALS) -> None:
        driver.run(table, variant.hyper_array(rows), signals=signals)

    for count in (1, 15, 16, 17, 256):
        for numel in (1, 16, driver.TILE, 3 * driver.TILE + 1):
            for gpu.offset in (0, 1):
                run(table_of(variant, [numel] * count, misalignment=gpu.offset * 8), [[0.001] * width])
    for value in (0.0, 1.0, 16.0, float("inf"), float("nan")):
        run(table_of(variant, [5]), [[value] * width])
    for rows in (1, 2, 3, 16):
        run(table_of(variant, [5] * 16, rows), [[0.5] * width] * rows)
    for signals in (Signals(1 << 40, 1 << 40, 1 << 40), Signals(found_inf=8)):
        run(table_of(variant, [5]), [[0.5] * width], signals)
    assert len(gpu.launches) == 5 * 4 * 2 + 5 + 4 + 2
    assert len(gpu.compilations) == 1
    other = VARIANTS[1]
    driver.run(table_of(other, [5]), other.hyper_array([[0.5] * len(other.hyper_fields)]))
    assert len(gpu.compilations) == 2


def test_a_step_moves_and_changes_its_scalars_without_compiling(gpu: HostGpu) -> None:
    """From step to step of one table: gradients elsewhere, another lr, and hyper rows that come and go."""
    variant = VARIANTS[0]
    table = table_of(variant, [5000, 3])
    for step in range(1, 5):
        table.move("grad", [1 << 41 | 4 * step] * 2)
        table.assign_hyper_rows([0, step % 2])
        driver.run(table, variant.hyper_array(hyper_rows(variant, step)[: 1 + step % 2]))
    assert len(gpu.launches) == 4
    assert len(gpu.compilations) == 1


def test_a_norm_of_any_gradients_compiles_once(gpu: HostGpu) -> None:
    variant = VARIANTS[0]
    for count in (1, 16, 17, 5000):
        for numel in (1, driver.TILE, 3 * driver.TILE + 1):
            for gpu.offset in (0, 1):
                table = table_of(variant, [numel] * count, misalignment=gpu.offset * 4)
                placed = driver.place(table, variant.hyper_array([[0.5] * len(variant.hyper_fields)]))
                driver.sum_squares(table, placed)
    assert len(gpu.compilations) == 1
    assert code_in(gpu.launches[0].compiled.asm["ptx"]) == code_in(compile_square(variant, "sm_90").ptx)


def test_the_end_of_a_norm_of_any_sums_compiles_once(gpu: HostGpu) -> None:
    for count in (1, 16, 17, 4096):
        for start in (0, 1):
            scalars = torch.zeros(6)[start : start + 4]
            wide = torch.zeros(6, dtype=torch.float64)[start : start + 4]
            triton_norm.clip(torch.zeros(count, dtype=torch.float64), wide[:1], scalars[:1], wide[1:3], scalars[1:3])
    assert len(gpu.compilations) == 1
    assert code_in(gpu.launches[0].compiled.asm["ptx"]) == code_in(compile_clip("sm_90").ptx)


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_a_schedule_for_any_tensors_compiles_once(rule: Rule, gpu: HostGpu) -> None:
    variant = Variant(rule, (FORMATS["fp32"],) * (2 + len(rule.slots)))
    for tensors in (1, 16, 17, 300):
        for sourced in (0.0, 1.0):
            for gpu.offset in (0, 1):
                schedule = Scheduled(rule, np.zeros(tensors), seed=tensors, sourced=sourced).schedule
                table = rows_in_order(table_of(variant, [0] * tensors))
                driver.advance(table, driver.place(table, schedule))
    assert len(gpu.compilations) == 1
    assert code_in(gpu.launches[0].compiled.asm["ptx"]) == code_in(compile_advance(variant, "sm_90").ptx)
