"""The CUDA C++ forms compiled for the host by g++: their bits and their bounds where there is no GPU.

Libraries are kept beside pytest's cache, named by a hash of all that they are made from.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
from collections.abc import Sequence
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from gpuopt.kernels.blocks import CUDA_FORM
from gpuopt.kernels.cuda_math import ARITHMETIC
from gpuopt.kernels.drivers import cuda_source
from gpuopt.kernels.formats import BLOCK, Format
from gpuopt.kernels.signals import NO_SIGNALS, Signals
from gpuopt.kernels.table import HYPER_ROW, NUMEL, POINTERS, Table
from gpuopt.kernels.variant import Variant

Array = np.ndarray[Any, Any]

CACHE = Path(__file__).parents[2] / ".pytest_cache" / "host_cuda"

FLAGS = (
    *("-std=c++17", "-O2", "-ffp-contract=off", "-shared", "-fPIC"),
    # Not every rule uses every scalar, and the unroll pragma is CUDA's.
    *("-Wall", "-Wextra", "-Werror", "-Wno-unused-variable", "-Wno-unused-parameter", "-Wno-unknown-pragmas"),
)
SANITIZERS = ("-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")

HEADER = """
#include <cmath>
#include <cstddef>
#include <cstring>
#define __device__
using std::memcpy;
using std::sqrt;
"""


def run_table(
    table: Table,
    hyper: np.ndarray[Any, Any],
    stream: int = 0,
    signals: Signals = NO_SIGNALS,
    sanitize: bool = False,
) -> None:
    """The table form, with the signature of a driver."""
    threads = table.tiles * (table.tile // _count(table.variant))
    library(step_source(table.variant, table.tile), sanitize).table_form(
        ctypes.c_ssize_t(threads), *map(_address, (table.rows, table.tile_tensor, hyper, np.array(signals, np.int64)))
    )


def _count(variant: Variant) -> int:
    """Elements that a thread takes: threads run one after the other here, so that none can share a block."""
    return BLOCK if variant.in_blocks else cuda_source.elements_per_thread(variant)


def run_array(table: Table, hyper: np.ndarray[Any, Any], stream: int = 0, sanitize: bool = False) -> None:
    """The array form, one tensor of ``table`` after the other, with the signature of a driver."""
    form = library(step_source(table.variant, table.tile), sanitize).array_form
    for row in table.rows:
        present = [ctypes.c_void_p(int(row[POINTERS + column])) for column, _ in table.variant.planes.values()]
        form(ctypes.c_ssize_t(int(row[NUMEL])), _address(hyper[row[HYPER_ROW]]), *present)


def step_source(variant: Variant, tile: int) -> str:
    """Every form that a variant has as a loop over ``i``, which CuPy runs as threads."""
    compute = cuda_source.compute_type(variant)
    table_form = f"""{HEADER}{cuda_source.preamble(variant)}
extern "C" void table_form(ptrdiff_t size, const long long* rows, const int* tile_tensor, const {compute}* hyper,
const long long* signals) {{
for (ptrdiff_t i = 0; i < size; ++i) {{
{cuda_source.table_body(variant, tile, _count(variant))}
}}
}}
"""
    if not cuda_source.has_array_form(variant):
        return table_form
    names = cuda_source.slot_names(variant)
    types = [plane.cuda_type for _, plane in variant.planes.values()]
    arrays = ", ".join(f"{type}* {name}_array" for type, name in zip(types, names, strict=True))
    scalars = "\n".join(f"const {compute} {field} = hyper[{k}];" for k, field in enumerate(variant.hyper_fields))
    # As CuPy declares them: inputs are const.
    elements = "\n".join(
        f"{'const ' if name == 'g' else ''}{type}& {name}_stored = {name}_array[i];"
        for type, name in zip(types, names, strict=True)
    )
    return f"""{table_form}
extern "C" void array_form(ptrdiff_t size, const {compute}* hyper, {arrays}) {{
{scalars}
for (ptrdiff_t i = 0; i < size; ++i) {{
{elements}
{cuda_source.array_body(variant)}
}}
}}
"""


_C_TYPES = {np.dtype(np.float32): "float", np.dtype(np.float64): "double", np.dtype(np.uint32): "unsigned int"}


def load(format: Format, *planes: Array) -> Array:
    """Entries of each plane through the C++ ``load`` of a format."""
    out = np.empty(planes[0].size, np.float64 if format.planes[0].dtype == "float64" else np.float32)
    arrays = [(out, _C_TYPES[out.dtype]), *zip(planes, (plane.cuda_type for plane in format.planes), strict=True)]
    _each_element(format, f"a0[i] = {format.name}::load({_entries(format, 1)});", arrays)
    return out


def store(format: Format, values: Array, random: Array | None = None) -> list[Array]:
    """``values`` through the C++ ``store`` of a format, with random bits if it asks for any: entries of each plane."""
    random = np.zeros(values.size, np.uint32) if random is None else random
    out = [np.empty(values.size, plane.storage) for plane in format.planes]
    inputs = [(each, _C_TYPES[each.dtype]) for each in (values, random)]
    arrays = [*inputs, *zip(out, (plane.cuda_type for plane in format.planes), strict=True)]
    _each_element(format, f"{format.name}::store(a0[i], a1[i], {_entries(format, 2)});", arrays)
    return out


def codes(format: Format, values: Array, random: Array, factors: Array) -> Array:
    """As :func:`store`, of a format in blocks with the factor of each element's block: codes."""
    out = np.empty(values.size, np.uint8)
    arrays = [(each, _C_TYPES[each.dtype]) for each in (values, random, factors)]
    _each_element(format, f"{format.name}::store(a0[i], a1[i], a2[i], a3[i]);", [*arrays, (out, "unsigned char")])
    return out


def scales(largest: Array, top: float) -> tuple[Array, Array]:
    """Scale and factor of blocks, by the bits of their largest magnitudes, as the C++ of blocks has them."""
    scales, factors = np.empty(largest.size, np.float32), np.empty(largest.size, np.float32)
    source = f"""{HEADER}{ARITHMETIC}{CUDA_FORM}
extern "C" void scales_of(ptrdiff_t size, const unsigned int* largest, float* scales, float* factors) {{
    for (ptrdiff_t i = 0; i < size; ++i) {{
        scales[i] = scale_of(largest[i]);
        factors[i] = factor_of(scales[i], {top!r}f);
    }}
}}
"""
    arrays = [_address(each) for each in (np.ascontiguousarray(largest), scales, factors)]
    library(source).scales_of(ctypes.c_ssize_t(largest.size), *arrays)
    return scales, factors


def _entries(format: Format, first: int) -> str:
    return ", ".join(f"a{first + k}[i]" for k in range(len(format.planes)))


def _each_element(format: Format, statement: str, arrays: Sequence[tuple[Array, str]]) -> None:
    parameters = ", ".join(f"{c_type}* a{k}" for k, (_, c_type) in enumerate(arrays))
    source = f"""{HEADER}{ARITHMETIC}{format.cuda_form}
extern "C" void convert(ptrdiff_t size, {parameters}) {{ for (ptrdiff_t i = 0; i < size; ++i) {statement} }}
"""
    contiguous = [np.ascontiguousarray(array) for array, _ in arrays]
    library(source).convert(ctypes.c_ssize_t(contiguous[0].size), *map(_address, contiguous))


@cache
def library(source: str, sanitize: bool = False) -> ctypes.CDLL:
    """``source`` compiled and loaded."""
    flags = FLAGS + SANITIZERS if sanitize else FLAGS
    name = sha256(repr((source, flags)).encode()).hexdigest()[:24]
    built = CACHE / f"{name}.so"
    if not built.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        # Under a name of its own until it is whole: another process may want the same.
        fresh = CACHE / f"{name}.{os.getpid()}"
        environment = {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}
        result = subprocess.run(
            ["g++", *flags, "-x", "c++", "-", "-o", fresh],
            input=source,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        if result.returncode:
            raise RuntimeError(f"{result.stderr}\n{source}")
        fresh.rename(built)
    return ctypes.CDLL(str(built))


def _address(array: np.ndarray[Any, Any]) -> ctypes.c_void_p:
    return ctypes.c_void_p(array.ctypes.data)
