"""The CuPy driver's two kernels, compiled for sm_80, sm_90 and sm_100 on a machine without a GPU.

For every variant and architecture, from the CUDA source that CuPy writes and with the options that it adds:

- both compile, in NVRTC;
- the table kernel has one path in which a thread moves its elements in 16-byte accesses alone, each slot but the copy
  once in and each written slot once out, one in which it does so but for the gradient, and one in which it takes one
  element at a time;
- the array kernel loads each slot but the copy once per element and stores each written slot once: no store makes it
  load again;
- nothing spills, and registers stay few enough for the occupancy that `REGISTERS` implies;
- arithmetic rounds as IEEE 754 does: no flush to zero, no approximate division or root, no product fused with a sum,
  float64 only where a slot is fp64, and every 16-bit store rounds to nearest even.

The last is read off the PTX; what the assembler makes of it is read off the SASS for every set of optional slots in
fp32, since disassembling takes longer than compiling.
"""

from __future__ import annotations

import re
from collections import Counter

import numpy as np
import pytest
from kit import nvrtc

from gpuopt.bench.code import sass
from gpuopt.bench.code.gpus import ARCHS
from gpuopt.kernels.epilogue import COPY
from gpuopt.kernels.variant import Variant
from gpuopt.verify.variants import variants

REGISTERS = {
    ("table", "float32"): (32, 56, 64, 80, 80, 96),
    ("table", "float64"): (56, 104, 128, 144, 144),
    ("array", "float32"): (24, 40, 40, 40, 48),
    ("array", "float64"): (32, 40, 48, 56),
}
"""The most registers of a thread, by kernel, compute dtype and number of slots beyond parameter and gradient: the most
seen, in steps of 8."""

CASES = [
    (form, variant, arch)
    for variant in variants()
    for arch in ARCHS
    for form in ("table", "array")
    if form == "table" or not variant.zero_grads  # which the array kernel leaves to the other
]


class Kernel:
    """One kernel of one variant compiled for one architecture."""

    def __init__(self, form: str, variant: Variant, arch: str) -> None:
        compiled = {"table": nvrtc.table, "array": nvrtc.array}[form](variant, arch)
        self.form = form
        self.variant = variant
        self.cubin = compiled.cubin
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

    @property
    def elements_per_thread(self) -> int:
        """Of the table kernel: as many as make 16 bytes of the narrowest slot."""
        return 16 // min(self.sizes.values())

    @property
    def whole_accesses(self) -> tuple[int, int]:
        """16-byte loads and stores that there are to be, of a gradient on one of two paths."""
        count = self.elements_per_thread if self.form == "table" else 0
        grad = self.sizes["grad"]
        zeros = grad * self.variant.zero_grads
        return count * (2 * sum(self.loaded) - grad) // 16, count * (2 * sum(self.stored) - zeros) // 16

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
    if kernel.form == "table":
        # Of a gradient that is not aligned, and of a step that is skipped.
        zeros = [kernel.sizes["grad"]] * kernel.variant.zero_grads * (kernel.elements_per_thread + 1)
        assert kernel.accesses("st") == Counter(kernel.stored + zeros)
    else:
        assert kernel.accesses("st") == Counter(kernel.stored * kernel.bodies)
        assert kernel.accesses("ld") == Counter(kernel.loaded * kernel.bodies)


def test_nothing_spills_and_registers_are_few(kernel: Kernel) -> None:
    used = sass.resources(kernel.cubin)
    assert (used["STACK"], used["LOCAL"]) == (0, 0)
    assert used["REG"] <= REGISTERS[kernel.form, kernel.variant.compute.name][len(kernel.sizes) - 2]


def test_arithmetic_rounds_as_ieee_754(kernel: Kernel) -> None:
    assert not sass.among(kernel.ptx, sass.INEXACT)
    assert not sass.among(kernel.ptx, r"\.f64") or kernel.variant.compute == np.float64


def test_16_bit_stores_round_to_nearest_even(kernel: Kernel) -> None:
    assert not sass.among(kernel.ptx, sass.NARROWING) - sass.among(kernel.ptx, sass.NARROWING_TO_NEAREST)
    elements = 2 * kernel.elements_per_thread + 1 if kernel.form == "table" else kernel.bodies
    assert sass.narrowed(kernel.ptx) == kernel.rounded.count(2) * elements


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
