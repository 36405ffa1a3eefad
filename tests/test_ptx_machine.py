"""The interpreter of PTX does what NVIDIA's manual says, and refuses what a test must not let pass.

1. Instructions compute what the manual says: integers wrap around and shift out, comparisons with NaN are false unless
   they say otherwise, conversions round to nearest even, subnormals stay, and what a guard holds back does nothing.
   What is not known here is named.
2. Threads go their own ways through branches and loops. Threads of a block meet at barriers; a barrier that some miss,
   and shared memory in which warps meet without one, are errors.
3. Memory that was not handed over, that is only to be read, or that is not aligned to the access is an error.
4. Arithmetic that is fused, approximate, flushes subnormals, or does not say how it rounds is an error.
5. So the tests with compiled kernels can fail: they do if a hyper value is off by one unit in the last place, if a
   masked store loses its mask, and if products may be fused with sums.
"""

from __future__ import annotations

import re
from unittest.mock import patch

import numpy as np
import pytest
from kit import ptx
from kit.host_gpu import host_gpu
from kit.ptx import Buffer
from kit.same import assert_same_bits

from gpuopt.kernels.drivers import numpy as oracle
from gpuopt.kernels.drivers import triton as driver
from gpuopt.kernels.formats import FORMATS
from gpuopt.kernels.rules import RULES
from gpuopt.kernels.variant import Variant
from gpuopt.verify.compare import first_difference
from gpuopt.verify.tensors import Tensors
from gpuopt.verify.variants import hyper_rows

REGISTERS = ".reg .pred %p<4>; .reg .b16 %h<6>; .reg .b32 %r<8>; .reg .f32 %f<8>; .reg .b64 %d<8>; .reg .f64 %e<4>;"


def program(body: str, threads: int = 32, parameters: str = ".param .u64 a, .param .u64 b") -> ptx.Program:
    declared = "\n".join(f"{each};" for each in REGISTERS.split(";") if each.strip())
    lines = "\n".join(f"{line.strip()}" for line in body.splitlines())
    shared = ".extern .shared .align 16 .b8 smem[];"
    return ptx.Program.of(
        f"{shared}\n.visible .entry k({parameters})\n.reqntid {threads}\n{{\n{declared}\n{lines}\nret;\n}}\n"
    )


def buffer(array: np.ndarray, name: str, writable: bool) -> Buffer:
    return Buffer(name, array.ctypes.data, array.nbytes, writable)


def run(body: str, a: np.ndarray, b: np.ndarray, threads: int = 32, grid: int = 1, shared: int = 0) -> ptx.Memory:
    """Runs a kernel whose parameters are the addresses of what it may read and of what it may write."""
    memory = ptx.Memory([buffer(a, "a", False), buffer(b, "b", True)])
    arguments = [each.ctypes.data.to_bytes(8, "little") for each in (a, b)]
    ptx.launch(program(body, threads), memory, grid, arguments, shared)
    return memory


def each_thread(load: str, store: str, body: str, size_in: int, size_out: int) -> str:
    """Each thread's element of ``a`` loaded, and one of ``b`` stored."""
    return f"""ld.param.u64 %d0, [a];
    ld.param.u64 %d1, [b];
    mov.u32 %r0, %tid.x;
    mad.wide.u32 %d0, %r0, {size_in}, %d0;
    mad.wide.u32 %d1, %r0, {size_out}, %d1;
    {load}
    {body}
    {store}"""


def of_one(
    instructions: str, value: int | float, kind: str, register: str, result: str, result_kind: str
) -> int | float:
    """What instructions make of one value in ``register``, whose result is in another."""
    types = {"u16": np.uint16, "s16": np.int16, "u32": np.uint32, "s32": np.int32, "u64": np.uint64, "s64": np.int64}
    types |= {"f32": np.float32, "f64": np.float64}
    a, b = np.array([value], types[kind]), np.zeros(1, types[result_kind])
    body = f"""ld.param.u64 %d0, [a];
    ld.param.u64 %d1, [b];
    ld.global.{kind} {register}, [%d0];
    {instructions}
    st.global.{result_kind} [%d1], {result};"""
    run(body, a, b, threads=1)
    return b[0].item()


NAN = float("nan")

INTEGERS = [
    ("add.s32 %r1, %r1, 1;", 2**31 - 1, -(2**31)),
    ("sub.s32 %r1, 0, %r1;", -(2**31), -(2**31)),
    ("mul.lo.s32 %r1, %r1, 65537;", 65537, 2**17 + 1),
    ("mad.lo.s32 %r1, %r1, -3, 5;", 7, -16),
    ("div.s32 %r1, %r1, 3;", -8, -2),
    ("div.s32 %r1, %r1, 3;", -9, -3),
    ("div.s32 %r1, %r1, -9;", 8, 0),
    ("div.u32 %r1, %r1, 3;", -8, 0x55555552),
    ("neg.s32 %r1, %r1;", 5, -5),
    ("not.b32 %r1, %r1;", 0, -1),
    ("and.b32 %r1, %r1, 12;", 10, 8),
    ("or.b32 %r1, %r1, 12;", 10, 14),
    ("xor.b32 %r1, %r1, 12;", 10, 6),
    ("min.s32 %r1, %r1, 3;", -2, -2),
    ("max.s32 %r1, %r1, 3;", -2, 3),
    ("min.u32 %r1, %r1, 3;", -2, 3),
    ("shl.b32 %r1, %r1, 31;", 3, -(2**31)),
    ("shl.b32 %r1, %r1, 32;", 3, 0),
    ("shr.s32 %r1, %r1, 40;", -5, -1),
    ("shr.s32 %r1, %r1, 1;", -5, -3),
    ("shr.u32 %r1, %r1, 31;", -5, 1),
    ("shr.u32 %r1, %r1, 32;", -5, 0),
    ("shf.l.wrap.b32 %r1, %r1, 5, 36;", 0x7FFFFFFF, 0x57),
    ("shf.r.wrap.b32 %r1, %r1, 5, 4;", 0x7FFFFFFF, 0x57FFFFFF),
    ("bfe.u32 %r1, %r1, 7, 1;", 0x80, 1),
    ("bfe.u32 %r1, %r1, 8, 32;", -1, 0xFFFFFF),
    ("bfe.u32 %r1, %r1, 40, 4;", -1, 0),
    ("prmt.b32 %r1, %r1, 0x44332211, 0x7410;", 0x0D0C0B0A, 0x44110B0A),
    ("prmt.b32 %r1, %r1, 0, 0x0BA8;", 0x7F80FF01, 0x0100FF00),
    ("mov.b32 {%h0, %h1}, %r1; mov.b32 %r1, {%h1, %h0};", 0x00010002, 0x00020001),
    ("mov.b32 {_, %h1}, %r1; cvt.u32.u16 %r1, %h1;", 0x7FFF0002, 0x7FFF),
    ("cvt.u64.u32 %d2, %r1; shr.u64 %d2, %d2, 16; cvt.u32.u64 %r1, %d2;", -1, 0xFFFF),
    ("cvt.s64.s32 %d2, %r1; shr.u64 %d2, %d2, 32; cvt.u32.u64 %r1, %d2;", -1, -1),
    ("mul.wide.s32 %d2, %r1, -2; shr.s64 %d2, %d2, 32; cvt.u32.u64 %r1, %d2;", 1 << 30, -1),
    ("mul.wide.u32 %d2, %r1, 4; shr.s64 %d2, %d2, 32; cvt.u32.u64 %r1, %d2;", -1, 3),
    ("setp.lt.s32 %p1, %r1, 0; selp.b32 %r1, 1, 2, %p1;", -1, 1),
    ("setp.lt.u32 %p1, %r1, 1; selp.b32 %r1, 1, 2, %p1;", -1, 2),
    ("setp.hi.u32 %p1, %r1, 1; @%p1 mov.b32 %r1, 7;", -1, 7),
    ("setp.eq.s32 %p1, %r1, 4; @!%p1 mov.b32 %r1, 7;", 4, 4),
    ("setp.eq.s32 %p1, %r1, 4; mov.pred %p2, -1; and.pred %p1, %p1, %p2; selp.b32 %r1, 1, 2, %p1;", 4, 1),
    ("setp.eq.s32 %p1, %r1, 4; not.pred %p1, %p1; selp.b32 %r1, 1, 2, %p1;", 4, 2),
]


@pytest.mark.parametrize(("instructions", "value", "expected"), INTEGERS)
def test_integers(instructions: str, value: int, expected: int) -> None:
    assert of_one(instructions, value, "s32", "%r1", "%r1", "s32") == expected


def choose(compare: str) -> str:
    return f"setp.{compare}.f32 %p1, %f1, 0f3F800000; selp.f32 %f1, 0f40000000, 0f00000000, %p1;"


LEAST = 2.0**-149

PAIR = "mov.b32 %r1, %f1; mov.b32 %r2, 0f40000000; mov.b64 %d2, {%r1, %r2};"
"""The value and a 2 beside each other."""

FLOATS = [
    ("add.rn.f32 %f1, %f1, 0f33800000;", 1.0, 1.0),  # 2**-24: a tie, to even
    ("add.rn.f32 %f1, %f1, 0f33800001;", 1.0, 1 + 2.0**-23),
    ("sub.rn.f32 %f1, %f1, 0f00800000;", 2.0**-126 + LEAST, LEAST),
    ("mul.rn.f32 %f1, %f1, 0f3F000000;", 3 * LEAST, 2 * LEAST),
    ("div.rn.f32 %f1, %f1, 0f40400000;", 1.0, float(np.float32(1) / np.float32(3))),
    ("sqrt.rn.f32 %f1, %f1;", 2.0, float(np.float32(2**0.5))),
    ("neg.f32 %f1, %f1;", 0.0, -0.0),
    ("xor.b32 %f1, %f1, 0x80000000;", -LEAST, LEAST),
    ("abs.f32 %f1, %f1;", -2.0, 2.0),
    (choose("eq"), NAN, 0.0),
    (choose("ne"), NAN, 0.0),
    (choose("neu"), NAN, 2.0),
    (choose("equ"), NAN, 2.0),
    (choose("gt"), NAN, 0.0),
    (choose("gtu"), NAN, 2.0),
    (choose("nan"), NAN, 2.0),
    (choose("num"), NAN, 0.0),
    (choose("neu"), 1.0, 0.0),
    (choose("ge"), 1.0, 2.0),
    ("set.gt.u32.f32 %r1, %f1, 0f3F800000; mov.b32 %f1, %r1;", 1.0, 0.0),
    ("set.gt.u32.f32 %r1, %f1, 0f3F800000; setp.eq.s32 %p1, %r1, -1; @%p1 neg.f32 %f1, %f1;", 3.0, -3.0),
    ("cvt.f64.f32 %e1, %f1; cvt.rn.f32.f64 %f1, %e1;", LEAST, LEAST),
    ("cvt.rn.f16.f32 %h1, %f1; cvt.f32.f16 %f1, %h1;", 1 + 2.0**-11, 1.0),
    ("cvt.rn.f16.f32 %h1, %f1; cvt.f32.f16 %f1, %h1;", 3 * 2.0**-25, 2 * 2.0**-24),
    ("cvt.rn.f16.f32 %h1, %f1; cvt.f32.f16 %f1, %h1;", 65520.0, np.inf),
    ("cvt.rn.bf16.f32 %h1, %f1; cvt.f32.bf16 %f1, %h1;", 1 + 2.0**-8, 1.0),
    ("cvt.rn.bf16.f32 %h1, %f1; cvt.f32.bf16 %f1, %h1;", 1 + 3 * 2.0**-8, 1 + 2.0**-6),
    ("cvt.rn.bf16.f32 %h1, %f1; cvt.f32.bf16 %f1, %h1;", float(np.finfo(np.float32).max), np.inf),
    ("cvt.rn.bf16x2.f32 %r1, %f1, 0f40400000; mov.b32 {%h1, _}, %r1; cvt.f32.bf16 %f1, %h1;", 5.0, 3.0),
    ("cvt.rn.bf16x2.f32 %r1, %f1, 0f40400000; mov.b32 {_, %h1}, %r1; add.rn.f32.bf16 %f1, %h1, %f1;", 5.0, 10.0),
    ("cvt.rzi.s32.f32 %r1, %f1; setp.eq.s32 %p1, %r1, -2; @%p1 mov.f32 %f1, 0f3F800000;", -2.75, 1.0),
    ("cvt.rzi.s32.f32 %r1, %f1; setp.eq.s32 %p1, %r1, 2147483647; @%p1 mov.f32 %f1, 0f3F800000;", 1e30, 1.0),
    ("cvt.rzi.s32.f32 %r1, %f1; setp.eq.s32 %p1, %r1, 0; @%p1 mov.f32 %f1, 0f3F800000;", NAN, 1.0),
    (f"{PAIR} add.rn.f32x2 %d2, %d2, %d2; mov.b64 {{_, %r1}}, %d2; mov.b32 %f1, %r1;", 1.5, 4.0),
    (f"{PAIR} mul.rn.f32x2 %d2, %d2, %d2; mov.b64 {{%r1, _}}, %d2; mov.b32 %f1, %r1;", 1.5, 2.25),
]


@pytest.mark.parametrize(("instructions", "value", "expected"), FLOATS)
def test_floats(instructions: str, value: float, expected: float) -> None:
    found = of_one(instructions, value, "f32", "%f1", "%f1", "f32")
    assert np.float32(found).tobytes() == np.float32(expected).tobytes()


def test_a_nan_stays_one_in_16_bits() -> None:
    assert np.isnan(of_one("cvt.rn.bf16.f32 %h1, %f1; cvt.f32.bf16 %f1, %h1;", NAN, "f32", "%f1", "%f1", "f32"))
    assert np.isnan(of_one("cvt.rn.f16.f32 %h1, %f1; cvt.f32.f16 %f1, %h1;", NAN, "f32", "%f1", "%f1", "f32"))


def test_hints_for_caches_change_nothing() -> None:
    policy = "createpolicy.fractional.L2::evict_first.b64 %d3, 1.0;"
    load = "ld.global.L1::evict_first.L2::cache_hint.b32 {%r1}, [%d0+0], %d3;"
    assert of_one(f"{policy} {load} st.global.cs.b32 [%d1], %r1;", 7, "s32", "%r2", "%r1", "s32") == 7


def test_loads_extend_into_wider_registers() -> None:
    assert of_one("", -2, "s16", "%r1", "%r1", "s32") == -2
    assert of_one("", 2**16 - 2, "u16", "%r1", "%r1", "s32") == 2**16 - 2


@pytest.mark.parametrize(
    "instruction",
    [
        "ex2.approx.f32 %f1, %f1;",
        "mul.hi.u32 %r1, %r1, %r1;",
        "min.f32 %f1, %f1, %f1;",
        "setp.lt.and.f32 %p1, %f1, %f1, %p2;",
        "shfl.sync.up.b32 %r1, %r1, 1, 0, -1;",
        "ld.volatile.global.u32 %r1, [%d0];",
        "atom.global.add.u32 %r1, [%d0], 1;",
        "mov.u32 %r1, %clock;",
        "st.local.u32 [%d0], %r1;",
        "ld.global.nc.u32 %r1, [%d0];",
        "cvt.rn.bf16.s32 %h1, %r1;",
        "bar.red.popc.u32 %r1, 0, %p1;",
    ],
)
def test_what_is_not_known_is_named(instruction: str) -> None:
    named = "%clock" if "%clock" in instruction else re.escape(instruction)
    with pytest.raises(NotImplementedError, match=named):
        of_one(instruction, 1, "u32", "%r1", "%r1", "u32")


@pytest.mark.parametrize(
    "instruction",
    [
        "fma.rn.f32 %f1, %f1, %f1, %f1;",
        "mad.rn.f32 %f1, %f1, %f1, %f1;",
        "fma.rn.f32x2 %d2, %d2, %d2, %d2;",
        "add.f32 %f1, %f1, %f1;",
        "mul.f32 %f1, %f1, %f1;",
        "add.rn.ftz.f32 %f1, %f1, %f1;",
        "add.rz.f32 %f1, %f1, %f1;",
        "add.f32x2 %d2, %d2, %d2;",
        "sub.f32.bf16 %f1, %h1, %f1;",
        "div.full.f32 %f1, %f1, %f1;",
        "div.approx.f32 %f1, %f1, %f1;",
        "sqrt.approx.f32 %f1, %f1;",
        "sqrt.rn.ftz.f32 %f1, %f1;",
        "cvt.rz.bf16.f32 %h1, %f1;",
        "cvt.rn.ftz.f16.f32 %h1, %f1;",
        "cvt.ftz.f64.f32 %e1, %f1;",
    ],
)
def test_unsound_arithmetic_is_refused(instruction: str) -> None:
    with pytest.raises(ptx.UnsoundError, match=re.escape(instruction)):
        of_one(instruction, 1.0, "f32", "%f1", "%f1", "f32")


COLLATZ = """mov.b32 %r2, 0;
    again:
    setp.eq.s32 %p1, %r1, 1;
    @%p1 bra done;
    add.s32 %r2, %r2, 1;
    and.b32 %r3, %r1, 1;
    setp.ne.s32 %p2, %r3, 0;
    @%p2 bra odd;
    shr.u32 %r1, %r1, 1;
    bra.uni again;
    odd:
    mad.lo.s32 %r1, %r1, 3, 1;
    bra.uni again;
    done:"""
"""How often a number is halved if it is even and made three times and one if it is odd, until it is 1."""


def steps_to_one(number: int) -> int:
    steps = 0
    while number != 1:
        number, steps = number // 2 if number % 2 == 0 else 3 * number + 1, steps + 1
    return steps


def test_threads_go_their_own_ways() -> None:
    a, b = np.arange(1, 65, dtype=np.int32), np.zeros(64, np.int32)
    run(each_thread("ld.global.s32 %r1, [%d0];", "st.global.s32 [%d1], %r2;", COLLATZ, 4, 4), a, b, threads=64)
    assert b.tolist() == [steps_to_one(number) for number in a.tolist()]


def test_a_kernel_that_does_not_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kit.ptx.machine.MOST_STRETCHES", 1000)
    a = np.zeros(1, np.int32)
    with pytest.raises(RuntimeError, match="k does not end"):
        run("again:\nbra.uni again;", a, a.copy())


def test_blocks_know_which_they_are() -> None:
    a, b = np.zeros(1, np.int32), np.zeros(3 * 32, np.int32)
    body = """ld.param.u64 %d1, [b];
    mov.u32 %r0, %tid.x;
    mov.u32 %r1, %ctaid.x;
    mov.u32 %r2, %ntid.x;
    mov.u32 %r3, %nctaid.x;
    mad.lo.s32 %r4, %r1, %r2, %r0;
    mad.wide.u32 %d1, %r4, 4, %d1;
    mad.lo.s32 %r5, %r3, 1000, %r4;
    st.global.s32 [%d1], %r5;"""
    for most in (1 << 16, 32):  # also where not all blocks are run at once
        b[:] = 0
        with patch("kit.ptx.machine.MOST_THREADS", most):
            run(body, a, b, grid=3)
        assert b.tolist() == list(range(3000, 3096))


def exchange(before: str, after: str = "") -> str:
    """Each thread's number through shared memory to the thread opposite."""
    return each_thread(
        "ld.global.s32 %r1, [%d0];",
        "st.global.s32 [%d1], %r4;",
        f"""mov.b32 %r2, smem;
        mad.lo.s32 %r3, %r0, 4, %r2;
        st.shared.b32 [%r3], %r1;
        {before}
        sub.s32 %r3, 63, %r0;
        mad.lo.s32 %r3, %r3, 4, %r2;
        ld.shared.b32 %r4, [%r3];
        {after}""",
        4,
        4,
    )


WRITE_AGAIN = "mad.lo.s32 %r3, %r0, 4, %r2;\nst.shared.b32 [%r3], %r1;"


def test_warps_meet_in_shared_memory_behind_a_barrier() -> None:
    a, b = np.arange(64, dtype=np.int32), np.zeros(64, np.int32)
    run(exchange("bar.sync 0;", f"bar.sync 0;\n{WRITE_AGAIN}"), a, b, threads=64, shared=256)
    assert b.tolist() == a[::-1].tolist()
    with pytest.raises(ptx.AccessError, match="reads shared memory that another wrote"):
        run(exchange(""), a, b, threads=64, shared=256)
    with pytest.raises(ptx.AccessError, match="writes shared memory that another reads"):
        run(exchange("bar.sync 0;", WRITE_AGAIN), a, b, threads=64, shared=256)
    with pytest.raises(ptx.AccessError, match="4 bytes at byte 128 of 128 of shared memory"):
        run(exchange("bar.sync 0;"), a, b, threads=64, shared=128)


def test_a_barrier_that_some_threads_miss() -> None:
    a, b = np.zeros(64, np.int32), np.zeros(64, np.int32)
    missed = "setp.lt.u32 %p1, %r0, 40;\n@%p1 bra on;\nbar.sync 0;\nmov.b32 %r2, 1;\non:\nmov.b32 %r2, 2;"
    with pytest.raises(RuntimeError, match="reached by some threads"):
        run(each_thread("", "", missed, 4, 4), a, b, threads=64)
    ended = "setp.lt.u32 %p1, %r0, 40;\n@%p1 bra on;\nret;\non:\nbar.sync 0;"
    run(each_thread("", "", ended, 4, 4), a, b, threads=64)  # of threads that have ended none is waited for


def test_threads_of_a_warp_exchange_values() -> None:
    a, b = np.arange(64, dtype=np.int32), np.zeros(64, np.int32)
    load, store = "ld.global.s32 %r1, [%d0];", "st.global.s32 [%d1], %r2;"
    run(each_thread(load, store, "shfl.sync.bfly.b32 %r2, %r1, 16, 31, -1;", 4, 4), a, b, threads=64)
    assert b.tolist() == [number ^ 16 for number in range(64)]


@pytest.mark.parametrize(
    ("access", "problem"),
    [
        ("ld.global.s32 %r1, [%d0+128];", "loads 4 bytes at byte 128 of a, which has 128, which lies in no buffer"),
        ("ld.global.s32 %r1, [%d0+-4];", "loads 4 bytes"),
        ("ld.global.v2.b32 {%r1, %r2}, [%d0+124];", "loads 8 bytes at byte 124 of a.* no multiple of 8"),
        ("ld.global.b64 %d2, [%d0+4];", "loads 8 bytes at byte 4 of a.* no multiple of 8"),
        ("ld.global.v4.b32 {%r1, %r2, %r3, %r4}, [%d0+8];", "loads 16 bytes at byte 8 of a.* no multiple of 16"),
        ("st.global.s32 [%d0], %r0;", "stores 4 bytes at byte 0 of a.* only to be read"),
        ("st.global.v2.b32 [%d1+128], {%r0, %r0};", "stores 8 bytes at byte 128 of b.* lies in no buffer"),
    ],
)
def test_memory_that_is_not_the_kernels(access: str, problem: str) -> None:
    whole = np.zeros(256, np.int32)  # what lies around both is there, and is nobody's
    start = -whole.ctypes.data % 16 // 4 + 16
    a, b = whole[start : start + 32], whole[start + 100 : start + 132]
    with pytest.raises(ptx.AccessError, match=problem):
        run(f"ld.param.u64 %d0, [a];\nld.param.u64 %d1, [b];\nmov.b32 %r0, 0;\n{access}", a, b)


def test_threads_in_several_buffers_are_each_looked_at() -> None:
    whole = np.zeros(256, np.int32)
    a, b = whole[:32], whole[64:96]
    body = """ld.param.u64 %d0, [a];
    mov.u32 %r0, %tid.x;
    mad.wide.u32 %d0, %r0, {}, %d0;
    ld.global.s32 %r1, [%d0];"""
    run(body.format(4), a, b)
    run(body.format(256), a, b, threads=2)
    with pytest.raises(ptx.AccessError, match="lies in no buffer"):
        run(body.format(128), a, b, threads=3)  # the second thread between the two
    with pytest.raises(ptx.AccessError, match="only to be read"):
        run(body.format(256).replace("ld.global.s32 %r1, [%d0]", "st.global.s32 [%d0], %r0"), a, b, threads=2)


ADDS_ONE = """ld.param.u64 %d1, [b];
    mov.u32 %r0, %tid.x;
    {at}
    mad.wide.u32 %d1, %r0, 4, %d1;
    ld.global.s32 %r1, [%d1];
    add.s32 %r1, %r1, 1;
    st.global.s32 [%d1], %r1;"""


def test_what_depends_on_who_is_first_is_an_error() -> None:
    a, b = np.zeros(64, np.int32), np.zeros(64, np.int32)
    own = "mov.u32 %r1, %ctaid.x;\nmad.lo.s32 %r0, %r1, 32, %r0;"
    run(ADDS_ONE.format(at=own), a, b, grid=2)
    assert b.tolist() == [1] * 64
    for most in (1 << 16, 32):  # in one go they add but one, one after the other two
        with patch("kit.ptx.machine.MOST_THREADS", most), pytest.raises(ptx.AccessError, match="two threads store to"):
            run(ADDS_ONE.format(at=""), a, b, grid=2)
    with pytest.raises(ptx.AccessError, match="two threads store to byte 0 of b"):
        run("ld.param.u64 %d1, [b];\nmov.u32 %r0, %tid.x;\nst.global.s32 [%d1], %r0;", a, b)
    neighbour = f"""{ADDS_ONE.format(at=own)}
    mov.u32 %r1, %ctaid.x;
    setp.eq.s32 %p1, %r1, 0;
    @%p1 ld.global.s32 %r2, [%d1+128];"""
    with pytest.raises(ptx.AccessError, match="a block loads what another stores, at byte 128 of b"):
        run(neighbour, a, b, grid=2)
    with pytest.raises(ptx.AccessError, match="two threads write to the same byte"):
        run(each_thread("", "", "mov.b32 %r2, smem;\nst.shared.b32 [%r2], %r0;", 4, 4), a, b, threads=64, shared=16)


def test_arguments_must_be_those_of_the_kernel() -> None:
    memory = ptx.Memory([])
    with pytest.raises(ValueError, match=r"takes parameters of \[8, 8\] bytes, but got \[8\]"):
        ptx.launch(program("mov.b32 %r1, 0;"), memory, 1, [bytes(8)])
    a = np.zeros(8, np.int32)
    with pytest.raises(ValueError, match="overlap"):
        ptx.Memory([buffer(a, "a", False), buffer(a[2:], "b", True)])
    with pytest.raises(ValueError, match="one kernel, but has 0"):
        ptx.Program.of("ret;\n}")


ADAM = Variant(RULES["adam"], (*(FORMATS[name] for name in ("fp32", "bf16", "fp32", "fp32")), None))
NUMELS = [5, driver.TILE + 5]


def stepped(gpu, hyper: np.ndarray) -> Tensors:
    tensors = Tensors(ADAM, NUMELS, seed=1, ordinary_share=1.0)
    driver.run(tensors.table(driver.TILE), hyper)
    return tensors


def test_a_fault_in_a_compiled_kernel_is_seen() -> None:
    hyper = ADAM.hyper_array(hyper_rows(ADAM, 1)[:1])
    expected = Tensors(ADAM, NUMELS, seed=1, ordinary_share=1.0)
    oracle.run(expected.table(oracle.TILE), hyper)
    with host_gpu() as gpu:
        assert_same_bits(stepped(gpu, hyper), expected)
        for field in ("step_size", "one_minus_beta1", "one_minus_beta2", "grad_scale"):
            off = hyper.copy()
            at = off[:, ADAM.hyper_fields.index(field)]
            at[:] = np.nextafter(at, np.float32(1))
            assert first_difference(stepped(gpu, off), expected) is not None, field

        gpu.edit = lambda code: re.sub(r"@!?%p\d+ (st\.global)", r"\1", code)
        with pytest.raises(ptx.AccessError, match=r"stores .* of tensor \d, which has .* lies in no buffer"):
            stepped(gpu, hyper)
        gpu.edit = str
        driver.launcher.cache_clear()  # which keeps what was compiled
        with patch.dict(driver.OPTIONS, enable_fp_fusion=True), pytest.raises(ptx.UnsoundError, match="mul"):
            stepped(gpu, hyper)
