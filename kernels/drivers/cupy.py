"""Runs the CUDA C++ form as CuPy ``ElementwiseKernel`` objects, without contraction of products into sums.

A table takes one launch in which each thread moves 16 bytes of every slot. A single small or misaligned array
takes the plain form, one element a thread, which needs no table on the device; of formats of one plane that are not
random.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, ExitStack
from functools import cache
from typing import Any

import cupy
import numpy as np

from gpuopt.kernels.drivers import cuda_source
from gpuopt.kernels.drivers.cupy_staging import Staging
from gpuopt.kernels.drivers.device_table import DeviceTable, Placed
from gpuopt.kernels.formats import Plane
from gpuopt.kernels.schedule import Schedule
from gpuopt.kernels.signals import NO_SIGNALS, Signals
from gpuopt.kernels.table import ALIGNMENT, HYPER_ROW, NUMEL, POINTERS, Table
from gpuopt.kernels.variant import Variant

TILE = 4096
DEVICE = "cuda"
SCHEDULES = True
OPTIONS = ("--fmad=false",)

Array = np.ndarray[Any, Any]

_STAGING = Staging()

PLAIN_NUMEL = {2: 1 << 20, 4: 1 << 24, 8: 1 << 24}
"""Up to this many elements a single array takes the plain form, by the bytes of an element of its narrowest slot."""


def unavailable() -> str | None:
    """Why CuPy cannot run here; None when it can."""
    if not hasattr(cupy.cuda.Stream, "from_external"):
        return f"CuPy {cupy.__version__} is too old, 14 is needed"
    try:
        return None if cupy.cuda.runtime.getDeviceCount() else "CuPy sees no CUDA device"
    except cupy.cuda.runtime.CUDARuntimeError as error:
        return f"CuPy sees no CUDA device ({error})"


def place(table: Table, hyper: Array | Schedule, stream: int = 0, signals: Signals = NO_SIGNALS) -> Placed | Array:
    """By at most one small copy, see :class:`~gpuopt.kernels.drivers.driver.Driver`.

    The plain form takes hyper rows as they are. What follows a schedule is Triton's kernel.
    """
    if isinstance(hyper, Schedule):
        placed: Placed = _triton("a schedule").place(table, hyper, stream, signals)
        return placed
    if takes_plain_form(table) and signals == NO_SIGNALS:
        return hyper
    return place_table(table, hyper, stream, signals)


def place_table(table: Table, hyper: Array, stream: int = 0, signals: Signals = NO_SIGNALS) -> Placed:
    """As :func:`place`, for the table form whatever the table."""
    with on_stream(table.device, stream):
        header = (np.array(signals, dtype=np.int64), hyper)
        copy = DeviceTable.of(table, header, stream, cupy.asarray, _STAGING.overwrite)
        return copy.placed(np.int32, hyper.dtype)


def prepare(table: Table, hyper: Array, threads: int | None = None) -> None:
    """Nothing is compiled on the host before a launch."""


def sum_squares(
    table: Table, placed: Placed | Array, part: int = 0, stream: int = 0, threads: int | None = None
) -> Any:
    """By Triton's kernel, as a tensor of PyTorch."""
    assert isinstance(placed, Placed)
    triton = _triton("the norm of gradients")
    with triton.on_stream(table.device, stream):  # where tensors are made of what is on the device
        return triton.sum_squares(table, Placed(*map(triton.as_tensor, placed[:4])), part, stream)


def step(table: Table, placed: Placed | Array, stream: int = 0, threads: int | None = None) -> None:
    """See :class:`~gpuopt.kernels.drivers.driver.Driver`."""
    if isinstance(placed, Placed) and placed.schedule:
        _triton("a schedule").advance(table, placed, stream)
    if not table.tiles:
        return
    with on_stream(table.device, stream):
        if isinstance(placed, Placed):
            run_table(table, placed)
        else:
            run_plain(table, placed)


def run(table: Table, hyper: Array | Schedule, stream: int = 0, signals: Signals = NO_SIGNALS) -> None:
    """One step over ``table``, see :class:`~gpuopt.kernels.drivers.driver.Driver`."""
    if table.tiles or isinstance(hyper, Schedule):
        step(table, place(table, hyper, stream, signals), stream)


def takes_plain_form(table: Table) -> bool:
    """Whether ``table`` is one array that is small or misaligned, of a variant that the plain form is for."""
    if len(table.rows) != 1 or not cuda_source.has_array_form(table.variant):
        return False
    row = table.rows[0]
    is_small = row[NUMEL] <= PLAIN_NUMEL[cuda_source.narrowest(table.variant)]
    return bool(is_small or (row[POINTERS:] % ALIGNMENT).any())


def run_table(table: Table, placed: Placed) -> None:
    """One launch over all tensors of ``table``, on the current device and stream."""
    threads = table.tiles * (table.tile // cuda_source.elements_per_thread(table.variant))
    table_kernel(table.variant, table.tile)(*map(cupy.asarray, placed[:4]), size=threads)


def run_plain(table: Table, hyper: Array) -> None:
    """One launch over the first array of ``table``, on the current device and stream."""
    variant, row = table.variant, table.rows[0]
    p, g, *state = (
        _array(int(row[POINTERS + column]), int(row[NUMEL]), plane) for column, plane in variant.planes.values()
    )
    array_kernel(variant)(g, *hyper[row[HYPER_ROW]], p, *state)


@cache
def table_kernel(variant: Variant, tile: int) -> cupy.ElementwiseKernel:
    """The kernel that walks a table."""
    return cupy.ElementwiseKernel(
        f"raw int64 rows, raw int32 tile_tensor, raw {variant.compute.name} hyper, raw int64 signals",
        "",
        cuda_source.table_body(variant, tile),
        f"gpuopt_{variant.rule.name}_table",
        preamble=cuda_source.preamble(variant),
        options=OPTIONS,
    )


@cache
def array_kernel(variant: Variant) -> cupy.ElementwiseKernel:
    """The plain kernel: gradient and hyper fields in, the one plane of parameter and state in place."""
    names = cuda_source.slot_names(variant)
    dtypes = [plane.storage.name for _, plane in variant.planes.values()]
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


def on_stream(device: int | None, stream: int) -> AbstractContextManager[Any]:
    """In this context CuPy's device and stream are those of a raw CUDA stream."""
    context = ExitStack()
    context.enter_context(cupy.cuda.Device(device))
    context.enter_context(cupy.cuda.Stream.from_external(_Handle(stream)))
    return context


def _triton(what: str) -> Any:
    """The Triton driver, for the small kernels that only it has."""
    try:
        from gpuopt.kernels.drivers import triton
    except ImportError as error:
        raise RuntimeError(f"{what} needs Triton, with the backend 'cupy' too, but {error}") from error
    return triton


class _Handle:
    """A stream known by its handle, in the CUDA stream protocol."""

    def __init__(self, handle: int) -> None:
        self._handle = handle

    def __cuda_stream__(self) -> tuple[int, int]:
        """Version of the protocol, and the handle."""
        return 0, self._handle


def _array(address: int, numel: int, plane: Plane) -> cupy.ndarray:
    """The ``numel`` entries from ``address`` on, as an array that does not own them."""
    memory = cupy.cuda.UnownedMemory(address, numel * plane.storage.itemsize, None)
    return cupy.ndarray((numel,), plane.storage, cupy.cuda.MemoryPointer(memory, 0))
