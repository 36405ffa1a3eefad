"""The CuPy driver's kernels as NVRTC compiles them, each once for all tests.

They are kept beside pytest's cache, named by a hash of all that they are made from.
"""

from __future__ import annotations

import os
import pickle
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

from gpuopt.bench.code import ahead
from gpuopt.bench.code.ahead import Compiled, compile_cupy, toolchain
from gpuopt.kernels.drivers import cupy as driver
from gpuopt.kernels.drivers.cupy import array_kernel, table_kernel
from gpuopt.kernels.formats import FORMATS
from gpuopt.kernels.rules import RULES
from gpuopt.kernels.variant import Variant

CACHE = Path(__file__).parents[2] / ".pytest_cache" / "nvrtc"


def table(variant: Variant, arch: str, tile: int = driver.TILE) -> Compiled:
    """The kernel that walks a table, by the driver's own tile if not told."""
    return _compiled(table_kernel(variant, tile), variant, arch)


def array(variant: Variant, arch: str) -> Compiled:
    """The kernel for a single array."""
    return _compiled(array_kernel(variant), variant, arch)


def elementwise(kernel: Any, arch: str) -> Compiled:
    """A kernel that is no driver's: all that it takes are arrays."""
    return _compiled(kernel, Variant(RULES["sgd"], (FORMATS["fp32"],) * 2 + (None,)), arch)


@cache
def _compiled(kernel: Any, variant: Variant, arch: str) -> Compiled:
    source = [kernel.name, list(map(str, kernel.params)), kernel.operation, kernel.preamble]
    how = driver.OPTIONS, arch, toolchain("cupy"), Path(ahead.__file__).read_text()
    name = sha256(repr((source, how)).encode()).hexdigest()[:24]
    built = CACHE / name
    if built.exists():
        found: Compiled = pickle.loads(built.read_bytes())
        return found
    made = compile_cupy(kernel, variant, arch)
    CACHE.mkdir(parents=True, exist_ok=True)
    # Under a name of its own until it is whole: another process may want the same.
    fresh = CACHE / f"{name}.{os.getpid()}"
    fresh.write_bytes(pickle.dumps(made))
    fresh.rename(built)
    return made
