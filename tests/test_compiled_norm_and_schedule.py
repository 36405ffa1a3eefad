"""The Triton driver's smaller kernels, compiled for sm_80, sm_90 and sm_100 on a machine without a GPU.

The kernels that add squares, end the norm and follow a schedule, with the options that the driver gives them:

- each compiles, and nothing spills;
- a full, aligned tile of gradients of any format is read in 16-byte accesses alone, each element once, and nothing of
  it is written; what the assembler makes of that keeps them whole; one that is not aligned is read by elements, without
  a mask;
- squares are added in float64, one 8-byte sum a program is stored; of a gradient that is not fp64, the product with its
  weight alone is float32's, which is exact;
- all of them round as IEEE 754 does: no flush to zero, no approximate division or root, no
  product fused with a sum. Only a schedule for float32 rounds to it, once per hyper field.
"""

from __future__ import annotations

import pytest
from kit.squares import of_format

from gpuopt.bench.code import sass
from gpuopt.bench.code.ahead import Compiled, compile_advance, compile_clip, compile_square
from gpuopt.bench.code.gpus import ARCHS
from gpuopt.kernels.drivers import triton as driver
from gpuopt.kernels.drivers import triton_norm
from gpuopt.kernels.formats import FORMATS, Format
from gpuopt.kernels.rules import RULES, Rule
from gpuopt.kernels.variant import Variant
from gpuopt.verify.variants import UNIFORM

THREADS = 32 * triton_norm.OPTIONS["num_warps"]

each_arch = pytest.mark.parametrize("arch", ARCHS)


def assert_no_spill(compiled: Compiled) -> None:
    used = sass.resources(compiled.cubin)
    assert (used["STACK"], used["LOCAL"]) == (0, 0)


@each_arch
@pytest.mark.parametrize("format", [FORMATS[name] for name in UNIFORM], ids=UNIFORM)
def test_squares_are_read_16_bytes_at_a_time(format: Format, arch: str) -> None:
    compiled = compile_square(of_format(format.name), arch)
    assert_no_spill(compiled)
    ptx, code = sass.ptx_opcodes(compiled.ptx), sass.sass_opcodes(compiled.cubin)
    whole = driver.TILE * format.itemsize // THREADS // 16
    assert sass.count(ptx, r"ld\.global.*\.(v4\.b32|v2\.b64)") == whole
    assert sass.count(code, r"LDG\.E\.128.*") == whole
    aligned, misaligned = (sass.ptx_opcodes(way) for way in sass.ptx_ways(compiled.ptx, "mul.rn.f64") if "@" not in way)
    element = rf"ld\.global\.b{8 * format.itemsize}"  # as are some addresses
    elements = sass.count(misaligned, element) - sass.count(aligned, element)
    assert elements == driver.TILE // THREADS
    assert sass.count(ptx, r"st\.global.*") == sass.count(ptx, r"st\.global\.b64") == 1
    assert {"add.rn.f64", "mul.rn.f64"} <= set(ptx)
    assert not sass.among(ptx, sass.INEXACT)
    assert sass.among(ptx, r"^(add|mul)\..*f(16|32)") <= {"mul.rn.f32", "mul.rn.f32x2"}
    assert not sass.among(code, sass.LOCAL_MEMORY)


@each_arch
def test_the_end_of_the_norm(arch: str) -> None:
    compiled = compile_clip(arch)
    assert_no_spill(compiled)
    ptx = sass.ptx_opcodes(compiled.ptx)
    assert not sass.among(ptx, sass.INEXACT)
    assert ptx["sqrt.rn.f64"] == 1
    assert ptx["div.rn.f64"] == 2
    assert ptx["cvt.rn.f32.f64"] == 2


@each_arch
@pytest.mark.parametrize("format", ["fp32", "fp64"])
@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_the_schedule(rule: Rule, format: str, arch: str) -> None:
    variant = Variant(rule, (FORMATS[format],) * (2 + len(rule.slots)))
    compiled = compile_advance(variant, arch)
    assert_no_spill(compiled)
    ptx = sass.ptx_opcodes(compiled.ptx)
    assert not sass.among(ptx, sass.INEXACT)
    rounded = sass.count(ptx, r"cvt\.rn\.f32\.f64")
    assert rounded <= (len(variant.hyper_fields) if format == "fp32" else 0)
    assert sass.count(ptx, r"st\.global\.b(32|64)") == len(variant.hyper_fields) + 1
