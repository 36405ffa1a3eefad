"""The CuPy driver's kernels as NVRTC compiles them, each once for all tests.

They are kept beside pytest's cache, named by a hash of all that they are made from.
"""

from __future__ import annotations

import os
import pickle
from functools import cache
from hashlib import sha256
from pathlib import Path

from gpuopt.bench.code import ahead
from gpuopt.bench.code.ahead import Compiled, compile_cupy, toolchain
from gpuopt.kernels.drivers import cupy as driver
from gpuopt.kernels.variant import Variant

CACHE = Path(__file__).parents[2] / ".pytest_cache" / "nvrtc"


@cache
def compiled(form: str, variant: Variant, arch: str) -> Compiled:
    """One of the two kernels of a variant, for tables of the driver's own tile."""
    kernel = driver.table_kernel(variant, driver.TILE) if form == "table" else driver.array_kernel(variant)
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
