"""Runs the CUDA C++ form as CuPy ``ElementwiseKernel`` objects, without contraction of products into sums.

A table takes one launch in which each thread moves 16 bytes of every slot. A single small or misaligned array
takes the plain form, one element a thread, which needs no table on the device.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import cupy
import numpy as np

from gpuopt.kernels.drivers import cuda_source
from gpuopt.kernels.drivers.device_table import DeviceTable
from gpuopt.kernels.formats import Format
from gpuopt.kernels.table import FAST_NUMEL, HYPER_ROW, NUMEL, POINTERS, Table
from gpuopt.kernels.variant import Variant

TILE = 4096
DEVICE = "cuda"
OPTIONS = ("--fmad=false",)

PLAIN_NUMEL = 1 << 20
"""Up to this many elements a single array takes the plain form."""


def unavailable() -> str | None:
    """Why CuPy cannot run here; None when it can."""
    try:
        return None if cupy.cuda.runtime.getDeviceCount() else "CuPy sees no CUDA device"
    except cupy.cuda.runtime.CUDARuntimeError as error:
        return f"CuPy sees no CUDA device ({error})"


def run(table: Table, hyper: np.ndarray[Any, Any], stream: int = 0) -> None:
    """One step over ``table``, see :class:`~gpuopt.kernels.drivers.driver.Driver`."""
    if not table.tiles:
        return
    with cupy.cuda.Device(table.device), cupy.cuda.Stream.from_external(_Handle(stream)):
        if takes_plain_form(table):
            run_plain(table, hyper)
        else:
            run_table(table, hyper, stream)


def takes_plain_form(table: Table) -> bool:
    """Whether ``table`` is one array that is small or misaligned."""
    numel, fast_numel = table.rows[0, [NUMEL, FAST_NUMEL]]
    return len(table.rows) == 1 and (numel <= PLAIN_NUMEL or fast_numel < numel)


def run_table(table: Table, hyper: np.ndarray[Any, Any], stream: int) -> None:
    """One launch over all tensors of ``table``, on the current device and stream, whose handle is ``stream``."""
    copy = DeviceTable.of(table, hyper, stream, cupy.asarray, _overwrite)
    rows = copy.buffer[copy.hyper_words :]
    scalars = copy.buffer[: copy.hyper_words].view(hyper.dtype)
    threads = table.tiles * (table.tile // cuda_source.elements_per_thread(table.variant))
    table_kernel(table.variant, table.tile)(rows, copy.tile_tensor, scalars, size=threads)


def run_plain(table: Table, hyper: np.ndarray[Any, Any]) -> None:
    """One launch over the first array of ``table``, on the current device and stream."""
    variant, row = table.variant, table.rows[0]
    p, g, *state = (
        _array(int(address), int(row[NUMEL]), format)
        for address, format in zip(row[POINTERS:], variant.formats, strict=True)
        if format is not None
    )
    array_kernel(variant)(g, *hyper[row[HYPER_ROW]], p, *state)


@cache
def table_kernel(variant: Variant, tile: int) -> cupy.ElementwiseKernel:
    """The kernel that walks a table."""
    return cupy.ElementwiseKernel(
        f"raw int64 rows, raw int32 tile_tensor, raw {variant.compute.name} hyper",
        "",
        cuda_source.table_body(variant, tile),
        f"gpuopt_{variant.rule.name}_table",
        preamble=cuda_source.preamble(variant),
        options=OPTIONS,
    )


@cache
def array_kernel(variant: Variant) -> cupy.ElementwiseKernel:
    """The plain kernel: gradient and hyper fields in, parameter and state in place."""
    names = cuda_source.slot_names(variant)
    dtypes = [format.storage.name for format in variant.formats if format is not None]
    p, g, *state = (f"{dtype} {name}_stored" for dtype, name in zip(dtypes, names, strict=True))
    scalars = (f"{variant.compute.name} {field}" for field in variant.hyper_fields)
    return cupy.ElementwiseKernel(
        ", ".join((g, *scalars)),
        ", ".join((p, *state)),
        cuda_source.array_body(variant),
        f"gpuopt_{variant.rule.name}_array",
        preamble=cuda_source.preamble(variant),
        options=OPTIONS,
    )


class _Handle:
    """A stream known by its handle, in the CUDA stream protocol."""

    def __init__(self, handle: int) -> None:
        self._handle = handle

    def __cuda_stream__(self) -> tuple[int, int]:
        """Version of the protocol, and the handle."""
        return 0, self._handle


def _array(address: int, numel: int, format: Format) -> cupy.ndarray:
    """The ``numel`` elements from ``address`` on, as an array that does not own them."""
    memory = cupy.cuda.UnownedMemory(address, numel * format.itemsize, None)
    return cupy.ndarray((numel,), format.storage, cupy.cuda.MemoryPointer(memory, 0))


def _overwrite(buffer: cupy.ndarray, array: np.ndarray[Any, Any]) -> None:
    # From pageable memory the driver takes its own copy before it returns, so the array may change at once.
    buffer[: len(array)].set(array, stream=cupy.cuda.get_current_stream())
