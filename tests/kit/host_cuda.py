"""The CUDA C++ forms compiled for the host by g++: their bits and their bounds where there is no GPU.

Libraries are kept beside pytest's cache, named by a hash of all that they are made from.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from gpuopt.kernels.cuda_math import ARITHMETIC
from gpuopt.kernels.drivers import cuda_source
from gpuopt.kernels.formats import Format
from gpuopt.kernels.signals import NO_SIGNALS, Signals
from gpuopt.kernels.table import HYPER_ROW, NUMEL, POINTERS, Table
from gpuopt.kernels.variant import Variant

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
    threads = table.tiles * (table.tile // cuda_source.elements_per_thread(table.variant))
    library(step_source(table.variant, table.tile), sanitize).table_form(
        ctypes.c_ssize_t(threads), *map(_address, (table.rows, table.tile_tensor, hyper, np.array(signals, np.int64)))
    )


def run_array(table: Table, hyper: np.ndarray[Any, Any], stream: int = 0, sanitize: bool = False) -> None:
    """The array form, one tensor of ``table`` after the other, with the signature of a driver."""
    form = library(step_source(table.variant, table.tile), sanitize).array_form
    for row in table.rows:
        present = [
            ctypes.c_void_p(int(address))
            for address, format in zip(row[POINTERS:], table.variant.formats, strict=True)
            if format is not None
        ]
        form(ctypes.c_ssize_t(int(row[NUMEL])), _address(hyper[row[HYPER_ROW]]), *present)


def step_source(variant: Variant, tile: int) -> str:
    """Both forms as loops over ``i``, which CuPy runs as threads."""
    compute = cuda_source.compute_type(variant)
    names = cuda_source.slot_names(variant)
    types = [format.cuda_type for format in variant.formats if format is not None]
    arrays = ", ".join(f"{type}* {name}_array" for type, name in zip(types, names, strict=True))
    scalars = "\n".join(f"const {compute} {field} = hyper[{k}];" for k, field in enumerate(variant.hyper_fields))
    # As CuPy declares them: inputs are const.
    elements = "\n".join(
        f"{'const ' if name == 'g' else ''}{type}& {name}_stored = {name}_array[i];"
        for type, name in zip(types, names, strict=True)
    )
    return f"""{HEADER}{cuda_source.preamble(variant)}
extern "C" void table_form(ptrdiff_t size, const long long* rows, const int* tile_tensor, const {compute}* hyper,
const long long* signals) {{
for (ptrdiff_t i = 0; i < size; ++i) {{
{cuda_source.table_body(variant, tile)}
}}
}}
extern "C" void array_form(ptrdiff_t size, const {compute}* hyper, {arrays}) {{
{scalars}
for (ptrdiff_t i = 0; i < size; ++i) {{
{elements}
{cuda_source.array_body(variant)}
}}
}}
"""


def convert(format: Format, name: str, values: np.ndarray[Any, Any], to: np.dtype[Any]) -> np.ndarray[Any, Any]:
    """``values`` through the C++ ``load`` or ``store`` of a format."""
    c_types = {"float32": "float", "float64": "double", "uint16": "unsigned short"}
    source = f"""{HEADER}{ARITHMETIC}{format.cuda_form}
extern "C" void convert(ptrdiff_t size, const {c_types[values.dtype.name]}* from, {c_types[to.name]}* to) {{
for (ptrdiff_t i = 0; i < size; ++i) to[i] = {format.name}::{name}(from[i]);
}}
"""
    values, out = np.ascontiguousarray(values), np.empty(values.size, to)
    library(source).convert(ctypes.c_ssize_t(values.size), _address(values), _address(out))
    return out


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
