"""The compute type of the CUDA C++ forms has the arithmetic of NumPy's float32, whatever the compiler is told.

For every pair of values at which float32 changes its ways (zeros, subnormals, ones and their neighbours, infinities
and NaN, in both signs):

1. The six comparisons hold where NumPy's do. None holds with a NaN but ``!=``, which then does.
2. Unary minus turns the sign bit alone, of zeros, subnormals and NaN too.
3. Sums, differences, products, quotients and roots have the bits of NumPy's. A NaN must be one; its payload is free.
4. Whole numbers below 2^16 become the integers that they are.

So it is in what NVRTC makes of them for every architecture with CuPy's options, which tell it to flush subnormals, run
from the PTX; and in what g++ makes of them for the host. What the assembler makes of that PTX flushes nothing in
comparisons and minus, and minus is no addition, which would make any NaN of a NaN; divisions and roots are more than
one instruction to it.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import cache

import cupy
import numpy as np
import pytest
from kit import host_cuda, nvrtc, ptx
from kit.host_gpu import launch_elementwise
from kit.ptx import Buffer

from gpuopt.bench.code import sass
from gpuopt.bench.code.ahead import Compiled
from gpuopt.bench.code.gpus import ARCHS
from gpuopt.kernels.cuda_math import ARITHMETIC
from gpuopt.kernels.drivers.cupy import OPTIONS
from gpuopt.kernels.formats import FORMATS
from gpuopt.verify.compare import different
from gpuopt.verify.drawing import Array, edges

COMPARISONS: dict[str, Callable[[Array, Array], Array]] = {
    "x < y": np.less,
    "x <= y": np.less_equal,
    "x > y": np.greater,
    "x >= y": np.greater_equal,
    "x == y": np.equal,
    "x != y": np.not_equal,
}

MINUS = "-x"

ROUNDED: dict[str, Callable[[Array, Array], Array]] = {
    "x + y": np.add,
    "x - y": np.subtract,
    "x * y": np.multiply,
    "x / y": np.divide,
    "sqrt(x)": lambda x, y: np.sqrt(x),
}

EXACT = (*COMPARISONS, MINUS)

SPECIAL = np.concatenate(
    [
        edges(FORMATS["fp32"].planes[0]),
        np.array([0x3F7FFFFF, 0xBF7FFFFF, 0x7FC00000, 0xFFC00000, 0x7FC12345], np.uint32),
    ]
).view(np.float32)

X, Y = (np.ascontiguousarray(each.ravel()) for each in np.meshgrid(SPECIAL, SPECIAL))


def body(expressions: tuple[str, ...]) -> str:
    """Statements for pair ``i``: a result of each expression, 1 or 0 of a comparison."""
    results = [f"narrow({each})" if each not in COMPARISONS else f"{each} ? 1.0f : 0.0f" for each in expressions]
    lines = [f"results[i * {len(results)} + {k}] = {result};" for k, result in enumerate(results)]
    return "\n".join(["ieee_float x, y; widen(x, xs[i]); widen(y, ys[i]);", *lines])


@cache
def compiled(expressions: tuple[str, ...], arch: str) -> Compiled:
    arrays = "raw float32 xs, raw float32 ys", "raw float32 results"
    kernel = cupy.ElementwiseKernel(*arrays, body(expressions), "pairs", preamble=ARITHMETIC, options=OPTIONS)
    return nvrtc.elementwise(kernel, arch)


@cache
def results(expressions: tuple[str, ...], place: str) -> Array:
    """Of every pair, by a row for each expression."""
    found = np.empty((X.size, len(expressions)), np.float32)
    arrays = X, Y, found.ravel()
    if place == "host":
        function = f"""{host_cuda.HEADER}{ARITHMETIC}
extern "C" void pairs(ptrdiff_t size, const float* xs, const float* ys, float* results) {{
for (ptrdiff_t i = 0; i < size; ++i) {{
{body(expressions)}
}}
}}
"""
        addresses = [ctypes.c_void_p(each.ctypes.data) for each in arrays]
        host_cuda.library(function).pairs(ctypes.c_ssize_t(X.size), *addresses)
    else:
        buffers = [Buffer(f"array {k}", each.ctypes.data, each.nbytes, k == 2) for k, each in enumerate(arrays)]
        launch_elementwise(compiled(expressions, place).ptx, arrays, ptx.Memory(buffers), X.size)
    return found.T


each_place = pytest.mark.parametrize("place", ["host", *ARCHS])


@each_place
@pytest.mark.parametrize("comparison", COMPARISONS)
def test_comparisons(comparison: str, place: str) -> None:
    with np.errstate(invalid="ignore"):
        expected = COMPARISONS[comparison](X, Y)
    found = results(EXACT, place)[EXACT.index(comparison)]
    assert found.tolist() == expected.astype(float).tolist()
    with_nan = np.isnan(X) | np.isnan(Y)
    assert (found[with_nan] == (comparison == "x != y")).all()


@each_place
def test_minus_turns_the_sign_bit_alone(place: str) -> None:
    found = np.ascontiguousarray(results(EXACT, place)[EXACT.index(MINUS)]).view(np.uint32)
    assert found.tolist() == (X.view(np.uint32) ^ np.uint32(1 << 31)).tolist() == (-X).view(np.uint32).tolist()


@each_place
@pytest.mark.parametrize("operation", ROUNDED)
def test_rounded_operations(operation: str, place: str) -> None:
    with np.errstate(all="ignore"):
        expected = ROUNDED[operation](X, Y)
    found = np.ascontiguousarray(results(tuple(ROUNDED), place)[list(ROUNDED).index(operation)])
    (differ,) = different(FORMATS["fp32"], [found], [expected])
    assert not differ.any(), [*zip(X[differ], Y[differ], found[differ], expected[differ], strict=True)][:5]


@each_place
@pytest.mark.parametrize("wide", [False, True])
def test_whole_numbers(place: str, wide: bool) -> None:
    numbers = np.arange(1 << 16).astype(np.float64 if wide else np.float32)
    compute = "double" if wide else "ieee_float"
    statement = f"{compute} x; widen(x, xs[i]); results[i] = whole(x);"
    found = np.zeros(numbers.size, np.uint32)
    if place == "host":
        source = f"""{host_cuda.HEADER}{ARITHMETIC}
extern "C" void wholes(ptrdiff_t size, const {compute}* xs, unsigned int* results) {{
for (ptrdiff_t i = 0; i < size; ++i) {{ {statement} }}
}}
"""
        addresses = [ctypes.c_void_p(each.ctypes.data) for each in (numbers, found)]
        host_cuda.library(source).wholes(ctypes.c_ssize_t(numbers.size), *addresses)
    else:
        buffers = [Buffer("xs", numbers.ctypes.data, numbers.nbytes, False)]
        buffers += [Buffer("results", found.ctypes.data, found.nbytes, True)]
        launch_elementwise(wholes(statement, wide, place).ptx, (numbers, found), ptx.Memory(buffers), numbers.size)
    assert np.array_equal(found, np.arange(1 << 16))


@cache
def wholes(statement: str, wide: bool, arch: str) -> Compiled:
    arrays = f"raw {'float64' if wide else 'float32'} xs", "raw uint32 results"
    kernel = cupy.ElementwiseKernel(*arrays, statement, "wholes", preamble=ARITHMETIC, options=OPTIONS)
    return nvrtc.elementwise(kernel, arch)


@pytest.mark.parametrize("arch", ARCHS)
def test_the_assembler_keeps_comparisons_and_minus(arch: str) -> None:
    code = sass.sass_opcodes(compiled(EXACT, arch).cubin)
    assert sass.count(code, r"STG\.E.*") == len(EXACT)
    assert not sass.among(code, "FTZ|^FADD")
