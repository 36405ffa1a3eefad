"""The CuPy driver's two kernels, compiled for sm_80, sm_90 and sm_100 on a machine without a GPU.

For every variant and architecture, from the CUDA source that CuPy writes and with the options that it adds:

- both compile, in NVRTC;
- the table kernel has one path in which a thread moves its elements in 16-byte accesses alone, of a plane of single
  bytes in 8-byte ones, each slot but the copy once in and each written slot once out, one in which it does so but for
  the gradient, and one in which it takes one element at a time, or where slots are in blocks as many, but each in an
  access of its own; in each of them a scale is loaded once and stored by one of the threads that share it;
- the array kernel, of variants that have one, loads each slot but the copy once per element and stores each written
  slot once: no store makes it load again;
- nothing spills, and registers stay few enough for the occupancy that `REGISTERS` implies;
- arithmetic rounds as IEEE 754 does: no flush to zero, no approximate division or root, no product fused with a sum,
  float64 only where a slot is fp64, and every store of bf16 and fp16 rounds to nearest even.

The last is read off the PTX; what the assembler makes of it is read off the SASS for every set of optional slots in
fp32, since disassembling takes longer than compiling.
"""

from __future__ import annotations

import re
from collections import Counter

import numpy as np
import pytest
from kit import nvrtc
from kit.host_gpu import is_rich, slot_of

from gpuopt.bench.code import sass
from gpuopt.bench.code.gpus import ARCHS
from gpuopt.kernels.drivers.cuda_source import has_array_form
from gpuopt.kernels.epilogue import COPY
from gpuopt.kernels.formats import FORMATS
from gpuopt.kernels.variant import Variant
from gpuopt.verify.variants import variants

REGISTERS = {
    ("table", "float32", False): (32, 56, 64, 80, 80, 96),
    ("table", "float64", False): (56, 104, 128, 144, 144),
    ("table", "float32", True): (56, 64, 80, 96, 96, 96),
    ("table", "float64", True): (56, 104, 128, 136, 144, 192),
    ("array", "float32", False): (24, 40, 40, 40, 48),
    ("array", "float64", False): (32, 40, 48, 56),
}
"""The most registers of a thread, by kernel, compute dtype, whether a format is random or has several planes, and
number of slots beyond parameter and gradient: the most seen, in steps of 8."""

REGISTERS_IN_BLOCKS = {"float32": {1: 72, 2: 96, 3: 112}, "float64": {3: 128, 5: 192}}
"""Likewise of the table kernel where state is in blocks, by compute dtype and number of slots."""

ROUNDED = [FORMATS["bf16"], FORMATS["fp16"]]
"""Formats that are rounded to by an instruction."""

CASES = [
    (form, variant, arch)
    for variant in variants()
    for arch in ARCHS
    for form in ("table", "array")
    if form == "table" or has_array_form(variant)
]


class Kernel:
    """One kernel of one variant compiled for one architecture."""

    def __init__(self, form: str, variant: Variant, arch: str) -> None:
        compiled = {"table": nvrtc.table, "array": nvrtc.array}[form](variant, arch)
        self.form = form
        self.variant = variant
        self.cubin = compiled.cubin
        self.ptx = sass.ptx_opcodes(compiled.ptx)
        entries = {name: plane for name, (_, plane) in variant.planes.items()}
        self.sizes = {name: plane.storage.itemsize for name, plane in entries.items() if plane.block == 1}
        self.scales = [plane.storage.itemsize for plane in entries.values() if plane.block > 1]

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

    @property
    def elements_per_thread(self) -> int:
        """Of the table kernel: as many as make 16 bytes of the narrowest plane, 8 at most."""
        return min(16 // min(self.sizes.values()), 8)

    @property
    def whole_accesses(self) -> tuple[int, int]:
        """16-byte loads and stores that there are to be, of a gradient on one of two paths."""
        grad = self._accesses([self.sizes["grad"]])
        zeros = grad * self.variant.zero_grads
        return 2 * self._accesses(self.loaded) - grad, 2 * self._accesses(self.stored) - zeros

    def _accesses(self, sizes: list[int]) -> int:
        return sum(self.elements_per_thread * size // 16 for size in sizes) * (self.form == "table")

    @property
    def half_accesses(self) -> tuple[int, int]:
        """Those of 8 bytes, of planes of single bytes."""
        return 2 * self.loaded.count(1), 2 * self.stored.count(1)

    @property
    def one_by_one(self) -> int:
        """Elements that a thread of the table kernel takes where it does not take them at once."""
        return self.elements_per_thread if self.variant.in_blocks else 1

    @property
    def bodies(self) -> int:
        """How often the array kernel's loop was compiled: once for each value of a condition on scalars."""
        return sass.count(self.ptx, r"st\..*") // len(self.stored)

    def accesses(self, access: str) -> Counter[int]:
        """How many single accesses of each size in bytes there are, ``access`` being ``ld`` or ``st``."""
        sizes: Counter[int] = Counter()
        for opcode, number in self.ptx.items():
            if match := re.fullmatch(rf"{access}(?:\.global)?(?:\.nc)?\.[bfsu](\d+)", opcode):
                sizes[int(match[1]) // 8] += number
        return sizes


@pytest.fixture(scope="module", params=CASES, ids=lambda case: "-".join(map(str, case)))
def kernel(request: pytest.FixtureRequest) -> Kernel:
    return Kernel(*request.param)


def test_accesses_are_whole_and_none_is_repeated(kernel: Kernel) -> None:
    whole = tuple(sass.count(kernel.ptx, rf"{access}\.global\.v4\.b32") for access in ("ld", "st"))
    assert whole == kernel.whole_accesses
    half = tuple(sass.count(kernel.ptx, rf"{access}\.global\.v2\.b32") for access in ("ld", "st"))
    assert half == kernel.half_accesses
    if kernel.form == "table":
        # Of a gradient that is not aligned, and of a step that is skipped.
        zeros = [kernel.sizes["grad"]] * kernel.variant.zero_grads * (kernel.elements_per_thread + 1)
        assert kernel.accesses("st") == Counter(kernel.stored * kernel.one_by_one + 3 * kernel.scales + zeros)
    else:
        assert kernel.accesses("st") == Counter(kernel.stored * kernel.bodies)
        assert kernel.accesses("ld") == Counter(kernel.loaded * kernel.bodies)


def test_nothing_spills_and_registers_are_few(kernel: Kernel) -> None:
    used = sass.resources(kernel.cubin)
    assert (used["STACK"], used["LOCAL"]) == (0, 0)
    variant, dtype, slots = kernel.variant, kernel.variant.compute.name, len(kernel.variant.present) - 2
    most = REGISTERS_IN_BLOCKS[dtype] if variant.in_blocks else REGISTERS[kernel.form, dtype, is_rich(variant)]
    assert used["REG"] <= most[slots]


def test_arithmetic_rounds_as_ieee_754(kernel: Kernel) -> None:
    assert not sass.among(kernel.ptx, sass.INEXACT)
    assert not sass.among(kernel.ptx, r"\.f64") or kernel.variant.compute == np.float64


def test_stores_round_to_nearest_even(kernel: Kernel) -> None:
    assert not sass.among(kernel.ptx, sass.NARROWING) - sass.among(kernel.ptx, sass.NARROWING_TO_NEAREST)
    elements = 2 * kernel.elements_per_thread + 1 if kernel.form == "table" else kernel.bodies
    assert sass.narrowed(kernel.ptx) == kernel.rounded * elements


DISASSEMBLED = [case for case in CASES if {format.name for format in case[1].formats if format is not None} == {"fp32"}]


@pytest.mark.parametrize("case", DISASSEMBLED, ids=lambda case: "-".join(map(str, case)))
def test_the_assembler_keeps_what_the_ptx_says(case: tuple[str, Variant, str]) -> None:
    kernel = Kernel(*case)
    code = sass.sass_opcodes(kernel.cubin)
    whole = tuple(sass.count(code, rf"{access}\.E\.128.*") for access in ("LDG", "STG"))
    assert whole == kernel.whole_accesses
    assert not sass.among(code, sass.LOCAL_MEMORY)
    assert not sass.among(code, sass.FLOAT64)
    # Unrolling may repeat instructions. Those that divisions and roots expand to are FMAs, or flush to zero.
    assert sass.count(code, sass.MULTIPLICATION) >= sass.count(kernel.ptx, r"mul\.rn\.f.*")
    assert sass.count(code, sass.ADDITION) >= sass.count(kernel.ptx, r"(add|sub)\.rn\.f.*")
    if not sass.among(kernel.ptx, r"^(div|sqrt)\."):
        assert not sass.among(code, r"FTZ|^FFMA|^MUFU")
