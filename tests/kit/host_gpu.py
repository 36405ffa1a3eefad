"""The drivers for GPUs on host memory: their own code, with compiled kernels whose PTX is interpreted at each launch.

Triton is told of a GPU that only says what it is. So a launch goes through Triton's binder, specialisation and compiler
as on that GPU; what would be loaded onto it is run by :mod:`kit.ptx` instead. CuPy's kernels are those that NVRTC
makes of the source that CuPy writes.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, NamedTuple
from unittest.mock import patch

import cupy
import numpy as np
import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.runtime.driver import DriverConfig

from gpuopt.bench.code.ahead import CUPY_THREADS
from gpuopt.kernels.drivers import cupy as cupy_driver
from gpuopt.kernels.drivers import numpy as numpy_driver
from gpuopt.kernels.drivers import triton as driver
from gpuopt.kernels.drivers import triton_norm, triton_schedule
from gpuopt.kernels.drivers.device_table import Placed
from gpuopt.kernels.schedule import Schedule
from gpuopt.kernels.signals import NO_SIGNALS, Signals
from gpuopt.kernels.table import NUMEL, POINTERS, Table
from gpuopt.kernels.variant import Variant
from kit import nvrtc, ptx
from kit.host_part import ON_THE_HOST
from kit.ptx import Buffer

Array = np.ndarray[Any, Any]


class Reach(NamedTuple):
    """What kernels reach by addresses that lie in what they are given."""

    tensors: Sequence[Buffer] = ()
    signals: Sequence[Buffer] = ()
    schedule: Sequence[Buffer] = ()

    @property
    def gradients(self) -> list[Buffer]:
        """Those of the tensors, to be read."""
        return [replace(each, writable=False) for each in self.tensors if each.name.startswith("grad ")]


class Rights(NamedTuple):
    """What a kernel may do: which of its arguments it writes to, and what it reaches besides."""

    writes: tuple[str, ...]
    reaches: Callable[[Reach], Sequence[Buffer]]


KERNELS: dict[Any, Rights] = {
    driver.step_kernel: Rights((), lambda reach: [*reach.tensors, *reach.signals]),
    triton_norm.square_kernel: Rights(("sums",), lambda reach: reach.gradients),
    triton_norm.clip_kernel: Rights(("wide", "narrow"), lambda reach: []),
    triton_schedule.advance_kernel: Rights(("hyper",), lambda reach: [*reach.schedule, *reach.signals]),
}
"""The kernels of the Triton driver."""

_PLACE = driver.place


class Launched:
    """A kernel that was launched.

    Attributes:
        compiled: What Triton made.
        memory: What it has touched.
    """

    def __init__(self, compiled: Any, memory: ptx.Memory) -> None:
        self.compiled, self.memory = compiled, memory


class HostGpu:
    """A GPU that is not there.

    Attributes:
        arch: What it claims to be.
        launches: What was launched on it, in order.
        compilations: What Triton said of each kernel that it compiled or found on the disk.
        edit: Applied to the PTX of each kernel before it runs, to see what a fault in it would do.
        offset: Elements by which the driver's own buffers miss the alignment of 16 bytes that an allocator gives.
        runs: Whether kernels are run; else they are compiled alone.
    """

    def __init__(self, arch: str = "sm_90", runs: bool = True) -> None:
        self.arch, self.runs, self.offset = arch, runs, 0
        self.launches: list[Launched] = []
        self.compilations: list[dict[str, Any]] = []
        self.edit: Callable[[str], str] = str
        self._reaches: dict[int, Reach] = {}

    def place(self, table: Table, hyper: Array | Schedule, stream: int = 0, signals: Signals = NO_SIGNALS) -> Placed:
        """The driver's ``place``; kernels may then reach what the table, the signals and the schedule point to."""
        schedule = schedule_of(hyper) if isinstance(hyper, Schedule) else []
        placed = _PLACE(table, hyper, stream, signals)
        reach = Reach(tensors_of(table), signals_of(table.variant, signals), schedule)
        self._reaches |= dict.fromkeys((placed.rows.data_ptr(), placed.signals.data_ptr()), reach)
        return placed

    def sum_squares(self, table: Table, part: int = 0) -> Array:
        """The driver's ``sum_squares``, with what it places."""
        hyper = table.variant.hyper_array([[0.5] * len(table.variant.hyper_fields)])
        sums: Array = driver.sum_squares(table, driver.place(table, hyper), part).numpy()
        return sums

    def to_device(self, array: Array) -> torch.Tensor:
        """In the driver's place, a copy in host memory."""
        allocated = torch.from_numpy(np.empty(len(array) + self.offset + 16, array.dtype))
        start = -allocated.data_ptr() % 16 // array.itemsize + self.offset
        return allocated[start : start + len(array)].copy_(torch.from_numpy(array))

    def launch(self, kernel: Any, arguments: tuple[Any, ...], options: dict[str, Any]) -> Any:
        """In Triton's place: compiles as it would, and runs what comes of it."""
        grid = options.pop("grid")
        only_compiled = options.pop("warmup")
        compiled = kernel.run_as_triton_does(*arguments, grid=grid, warmup=True, **options)
        if only_compiled:
            return compiled
        self.run(kernel, compiled, arguments, grid)
        return Again(self, kernel, compiled, {**options, **dict(zip(kernel.arg_names, arguments, strict=False))})

    def run(self, kernel: Any, compiled: Any, arguments: tuple[Any, ...], grid: tuple[int, ...]) -> None:
        """Runs what was compiled."""
        if not self.runs:
            self.launches.append(Launched(compiled, ptx.Memory([])))
            return
        program = ptx.Program.of(self.edit(compiled.asm["ptx"]))
        given = dict(zip(kernel.arg_names, arguments, strict=False))
        buffers = [
            Buffer(name, each.data_ptr(), each.numel() * each.element_size(), name in KERNELS[kernel].writes)
            for name, each in given.items()
            if isinstance(each, torch.Tensor)
        ]
        # What was placed together is known by the rows or the signals, of which each of these kernels takes one.
        reach = next((self._reaches[each.address] for each in buffers if each.address in self._reaches), Reach())
        memory = ptx.Memory([*buffers, *KERNELS[kernel].reaches(reach)])
        self.launches.append(Launched(compiled, memory))
        values = [each.data_ptr() if isinstance(each, torch.Tensor) else each for each in given.values()]
        # Triton adds the addresses of scratch memory, of which these kernels need none.
        values += [0] * (len(program.parameters) - len(values))
        packed = [
            int(value).to_bytes(size, "little", signed=True)
            for value, size in zip(values, program.parameters.values(), strict=True)
        ]
        ptx.launch(program, memory, grid[0], packed, shared=compiled.metadata.shared)


class Again:
    """What Triton returns of a launch, which may be launched again, with compile-time arguments in their places."""

    def __init__(self, gpu: HostGpu, kernel: Any, compiled: Any, given: dict[str, Any]) -> None:
        self._gpu, self._kernel, self._compiled, self._given = gpu, kernel, compiled, given

    def __getitem__(self, grid: tuple[int, int, int]) -> Callable[..., None]:
        def launch(*arguments: Any) -> None:
            assert len(grid) == 3
            values = dict(zip(self._kernel.arg_names, arguments, strict=True))
            runtime = [param.name for param in self._kernel.params if not param.is_constexpr]
            for name, value in values.items():
                if name in runtime:
                    assert _type_of(value) == _type_of(self._given[name]), name
                else:
                    assert value == self._given[name], name
            self._gpu.run(self._kernel, self._compiled, tuple(values[name] for name in runtime), grid)

        return launch


def _type_of(value: Any) -> Any:
    """What a compilation depends on of an argument that it is not specialised on."""
    return value.dtype if isinstance(value, torch.Tensor) else type(value)


LAUNCHERS = (driver.launcher, triton_norm.launcher, triton_norm.clip_launcher, triton_schedule.launcher)
"""Which keep what was compiled."""


@contextmanager
def host_gpu(arch: str = "sm_90", runs: bool = True) -> Iterator[HostGpu]:
    """The Triton driver on a GPU that is not there, for as long as this lasts."""
    gpu = HostGpu(arch, runs)
    active = SimpleNamespace(
        get_current_target=lambda: GPUTarget("cuda", int(arch.removeprefix("sm_")), 32),
        get_current_device=lambda: 0,
        get_current_stream=lambda device: 0,
    )
    patches = [
        patch.object(DriverConfig, "active", active),
        patch.object(triton.knobs.compilation, "listener", lambda **event: gpu.compilations.append(event)),
        patch.object(torch.cuda, "is_current_stream_capturing", lambda: False),
        patch.object(driver, "_to_device", gpu.to_device),
        patch.object(driver._Spare, "__init__", lambda spare, copy: setattr(spare, "_copy", copy)),
        patch.object(driver, "place", gpu.place),
        patch.multiple(driver, **ON_THE_HOST),
        patch.object(triton_norm, "DEVICE", "cpu"),
    ]
    for kernel in KERNELS:
        patches += [
            patch.object(kernel, "run_as_triton_does", kernel.run, create=True),
            patch.object(kernel, "run", _launcher(gpu, kernel)),
            patch.object(kernel, "device_caches", defaultdict(kernel.create_binder)),
        ]
    for each in patches:
        each.start()
    for launcher in LAUNCHERS:
        launcher.cache_clear()
    try:
        yield gpu
    finally:
        for launcher in LAUNCHERS:
            launcher.cache_clear()
        for each in reversed(patches):
            each.stop()


def _launcher(gpu: HostGpu, kernel: Any) -> Any:
    return lambda *arguments, **options: gpu.launch(kernel, arguments, options)


def tensors_of(table: Table) -> list[Buffer]:
    """The entries of every plane of every tensor of a table."""
    variant = table.variant
    return [
        Buffer(
            f"{name} of tensor {index}",
            int(row[POINTERS + column]),
            plane.entries(int(row[NUMEL])) * plane.storage.itemsize,
            slot_of(name) in variant.written,
        )
        for index, row in enumerate(table.rows)
        for name, (column, plane) in variant.planes.items()
    ]


def slot_of(name: str) -> str:
    """The slot that a plane, or a buffer of :func:`tensors_of`, is of."""
    return name.partition(" ")[0].partition(".")[0]


def is_rich(variant: Variant) -> bool:
    """Whether a format of it is random or has several planes."""
    return variant.is_random or len(variant.planes) > len(variant.present)


def signals_of(variant: Variant, signals: Signals) -> list[Buffer]:
    """The scalars of the signals that are given."""
    sizes = Signals(4, variant.compute.itemsize, 4)
    return [
        Buffer(name, address, size, writable=False)
        for name, address, size in zip(Signals._fields, signals, sizes, strict=True)
        if address
    ]


def schedule_of(schedule: Schedule) -> list[Buffer]:
    """The step counts and the settings that a schedule points to."""
    counts = [Buffer("a step count", int(address), 4, writable=True) for address in schedule.counts]
    sources = sorted({int(source) for source in schedule.sources.ravel() if source})
    return counts + [Buffer("a setting", source & -2, 8 if source & 1 else 4, writable=False) for source in sources]


@contextmanager
def host_cupy(arch: str = "sm_90") -> Iterator[list[ptx.Memory]]:
    """The CuPy driver on a GPU that is not there, for as long as this lasts; what its launches have touched."""
    touched: list[ptx.Memory] = []
    reach = Reach()

    def reaching(original: Callable[..., Any]) -> Callable[..., Any]:
        def begin(table: Table, hyper: Array, *others: Any) -> Any:
            nonlocal reach
            signals = others[1] if others else NO_SIGNALS
            reach = Reach(tensors_of(table), signals_of(table.variant, signals))
            return original(table, hyper, *others)

        return begin

    def walks(variant: Variant, tile: int) -> Any:
        return launches("table", nvrtc.table(variant, arch, tile).ptx)

    def launches(form: str, code: str) -> Any:
        def launch(*arguments: Any, size: int | None = None, block_size: int = CUPY_THREADS) -> None:
            given = [each for each in arguments if isinstance(each, np.ndarray) and each.ndim]
            own = [Buffer(f"argument {k}", each.ctypes.data, each.nbytes, False) for k, each in enumerate(given)]
            memory = ptx.Memory([*(own if form == "table" else []), *reach.tensors, *reach.signals])
            touched.append(memory)
            launch_elementwise(code, arguments, memory, given[0].size if size is None else size, block_size)

        return launch

    host = SimpleNamespace(asarray=np.array, ElementwiseKernel=cupy.ElementwiseKernel)
    with (
        patch.multiple(
            cupy_driver,
            DEVICE="cpu",
            cupy=host,
            place_table=reaching(cupy_driver.place_table),
            run_plain=reaching(cupy_driver.run_plain),
            on_stream=lambda device, stream: nullcontext(),
            table_kernel=walks,
            array_kernel=lambda variant: launches("array", nvrtc.array(variant, arch).ptx),
            _array=numpy_driver._memory,
            unavailable=lambda: None,
        ),
        patch.object(cupy_driver._STAGING, "overwrite", _overwrite_array),
    ):
        yield touched


def launch_elementwise(
    code: str, arguments: Sequence[Any], memory: ptx.Memory, size: int, block_size: int = CUPY_THREADS
) -> None:
    """Runs the PTX of an ``ElementwiseKernel`` with ``size`` threads, as CuPy would launch it."""
    packed = [_packed(each) for each in arguments] + [np.array([size, size, 0], np.int64).tobytes()]
    ptx.launch(ptx.Program.of(code), memory, -(-size // block_size), packed, block=block_size)


def _overwrite_array(buffer: Array, array: Array) -> None:
    buffer[: len(array)] = array


def _packed(argument: Any) -> bytes:
    """An argument as CuPy gives it to a kernel: an array of one dimension is address, size, shape and strides."""
    if argument.ndim == 0:
        scalar: bytes = argument.tobytes()
        return scalar
    assert argument.ndim == 1
    return np.array([argument.ctypes.data, argument.size, argument.size, argument.itemsize], np.int64).tobytes()
