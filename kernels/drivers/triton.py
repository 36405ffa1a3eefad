"""Runs the Triton form: one launch for the whole table, the same kernel for every rule.

Each program takes one tile: it looks up its tensor, then loads, computes and stores. Full tiles of tensors whose
slots are aligned go without a mask, because only then does Triton emit 16-byte accesses; where the gradient alone is
not, it is accessed by elements, and all else as ever. Divisions and roots round to nearest and no products are fused
into sums, so that the bits are the oracle's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from typing import Any, Self

import numpy as np
import torch
import triton
import triton.language as tl

from gpuopt.kernels import epilogue, prologue
from gpuopt.kernels.drivers.device_table import DeviceTable, Placed
from gpuopt.kernels.drivers.triton_launch import INTERPRETED, Launcher
from gpuopt.kernels.epilogue import Epilogue
from gpuopt.kernels.prologue import Prologue
from gpuopt.kernels.rules.rule import MOST_SLOTS
from gpuopt.kernels.schedule import Schedule
from gpuopt.kernels.signals import NO_SIGNALS, Signals
from gpuopt.kernels.table import ALIGNMENT, FAST_NUMEL, FIRST_TILE, HYPER_ROW, NUMEL, POINTERS, Table
from gpuopt.kernels.triton_math import div_rn, power_rn, sqrt_rn
from gpuopt.kernels.variant import Variant

TILE = 1024
"""Of 4 warps, 8 elements a thread: 16 bytes of a 16-bit slot, and no register spills, as 32 elements do."""

OPTIONS = {"num_warps": 4, "enable_fp_fusion": False}

DEVICE = "cpu" if INTERPRETED.value else "cuda"
SCHEDULES = True

TAIL = tl.constexpr(TILE // 2)
"""Elements that a program takes at a time where it needs a mask, one in an access. Of fewer, too few are in flight; of
a whole tile, compilers move values between the layouts of both ways through shared memory."""

ALIGNED = tl.constexpr(ALIGNMENT)
_NUMEL = tl.constexpr(NUMEL)
_FAST_NUMEL = tl.constexpr(FAST_NUMEL)
_FIRST_TILE = tl.constexpr(FIRST_TILE)
_HYPER_ROW = tl.constexpr(HYPER_ROW)
_POINTERS = tl.constexpr(POINTERS)
_PROLOGUE_FIELDS = tl.constexpr(len(Prologue._fields))
_EPILOGUE_FIELDS = tl.constexpr(len(Epilogue._fields))
LOSS_SCALE, CLIP_FACTOR, FOUND_INF = map(tl.constexpr, range(len(Signals._fields)))

Array = np.ndarray[Any, Any]


def unavailable() -> str | None:
    """Why Triton cannot run here; None when it can."""
    if INTERPRETED.value or torch.cuda.is_available():
        return None
    return "PyTorch sees no CUDA device"


def place(table: Table, hyper: Array | Schedule, stream: int = 0, signals: Signals = NO_SIGNALS) -> Placed:
    """By at most one small copy, see :class:`~gpuopt.kernels.drivers.driver.Driver`."""
    words = np.array(signals, dtype=np.int64)
    with on_stream(table.device, stream):
        if isinstance(hyper, Schedule):
            header = (words, hyper.counts, hyper.groups, hyper.settings, hyper.sources)
            copy = _upload(table, header, stream, hyper.replayed)
            fields = len(table.variant.hyper_fields)
            scalars = torch.empty(len(table.rows), fields, dtype=_torch_dtype(table.variant.compute), device=DEVICE)
            placed = copy.placed(torch.int32)
            counts, groups, settings, sources = placed.schedule
            return placed._replace(hyper=scalars, schedule=(counts, groups, settings.view(torch.float64), sources))
        return _upload(table, (words, hyper), stream).placed(torch.int32, _torch_dtype(hyper.dtype))


def prepare(table: Table, hyper: Array, threads: int | None = None) -> None:
    """Nothing is compiled on the host before a launch."""


def sum_squares(table: Table, placed: Placed, part: int = 0, stream: int = 0, threads: int | None = None) -> Any:
    """See :mod:`~gpuopt.kernels.drivers.triton_norm`."""
    from gpuopt.kernels.drivers import triton_norm

    with on_stream(table.device, stream):
        return triton_norm.sum_squares(table, placed, part)


def advance(table: Table, placed: Placed, stream: int = 0) -> None:
    """See :mod:`~gpuopt.kernels.drivers.triton_schedule`."""
    from gpuopt.kernels.drivers import triton_schedule

    with on_stream(table.device, stream):
        triton_schedule.advance(table, placed)


def step(table: Table, placed: Placed, stream: int = 0, threads: int | None = None) -> None:
    """See :class:`~gpuopt.kernels.drivers.driver.Driver`."""
    if not table.tiles and not placed.schedule:
        return
    with on_stream(table.device, stream):
        if placed.schedule:
            advance(table, placed, stream)
        if table.tiles:
            launcher(table.variant, table.tile)(table.tiles, *placed[:4])


def run(table: Table, hyper: Array | Schedule, stream: int = 0, signals: Signals = NO_SIGNALS) -> None:
    """One step over ``table``, see :class:`~gpuopt.kernels.drivers.driver.Driver`."""
    step(table, place(table, hyper, stream, signals), stream)


@cache
def launcher(variant: Variant, tile: int) -> Launcher:
    """Launches :func:`step_kernel` for one variant."""
    return Launcher(step_kernel, constants(variant, tile), OPTIONS)


@cache
def constants(variant: Variant, tile: int = TILE) -> dict[str, Any]:
    """The compile-time arguments of :func:`step_kernel` for one variant."""
    dtypes = [None if format is None else getattr(tl, format.dtype) for format in variant.formats]
    *state, average, copy = dtypes[2:]
    p, g, a, b, c = (*dtypes[:2], *state, *(None,) * MOST_SLOTS)[: 2 + MOST_SLOTS]
    return {
        "PROLOGUE": jit(prologue.triton_form),
        "RULE": jit(variant.rule.triton_form),
        "EPILOGUE": jit(epilogue.triton_form),
        "P": p,
        "G": g,
        "A": a,
        "B": b,
        "C": c,
        "AVERAGE": average,
        "COPY": copy,
        "ZERO_GRADS": variant.zero_grads,
        "COMPUTE": getattr(tl, variant.compute.name),
        "SLOTS": len(variant.rule.slots),
        "FIELDS": len(variant.rule.hyper_fields),
        "TILE": tile,
    }


@cache
def jit(form: Callable[..., Any]) -> Any:
    """A form as a Triton function. Its module gets Triton's names here, so that it imports without Triton."""
    form.__globals__.update(tl=tl, div_rn=div_rn, power_rn=power_rn, sqrt_rn=sqrt_rn)
    return triton.jit(form)


def on_stream(device: int | None, stream: int) -> AbstractContextManager[Any]:
    """In this context PyTorch's device and stream, which Triton launches on, are those of a raw CUDA stream."""
    if INTERPRETED.value:
        return nullcontext()
    if device == torch.cuda.current_device() and stream == torch.cuda.current_stream(device).cuda_stream:
        return nullcontext()
    if stream == 0:
        return torch.cuda.stream(torch.cuda.default_stream(device))
    return torch.cuda.stream(torch.cuda.ExternalStream(stream, device=device))


def _upload(table: Table, header: Sequence[Array], stream: int, replayed: bool = False) -> DeviceTable:
    """A header, the rows and the tile map where a kernel can read them."""
    if INTERPRETED.value or not torch.cuda.is_current_stream_capturing():
        copy = DeviceTable.of(table, header, stream, _to_device, _overwrite)
        if replayed and not INTERPRETED.value and _Spare.of(table, header) is None:
            table.kept[_Spare] = _Spare(copy)
    else:
        spare = _Spare.of(table, header)
        if spare is None:
            raise RuntimeError(
                "a CUDA graph can capture a step only after one outside of a graph, and again after another"
            )
        del table.kept[_Spare]
        table.kept.setdefault("captured", []).append(spare)
        copy = spare.capture(table, header)
    return copy


class _Spare:
    """Memory for the copy of a table that a CUDA graph makes, got beforehand: a capture must not ask for any.

    A replay copies again from the same pinned memory, so that is never written afterwards.
    """

    def __init__(self, copy: DeviceTable) -> None:
        self._copy = copy.twin(torch.empty_like(copy.buffer))
        self._pinned = torch.empty(copy.buffer.shape, dtype=copy.buffer.dtype, device="cpu", pin_memory=True)

    @classmethod
    def of(cls, table: Table, header: Sequence[Array]) -> Self | None:
        """The spare of a table, if it has one for headers of this layout."""
        spare = table.kept.get(cls)
        return spare if spare is not None and spare._copy.holds(header) else None

    def capture(self, table: Table, header: Sequence[Array]) -> DeviceTable:
        """The copy, made on the stream that is being captured."""
        self._pinned.numpy()[:] = self._copy.words(table, header)
        self._copy.buffer.copy_(self._pinned, non_blocking=True)
        return self._copy


def as_tensor(array: Any) -> Any:
    """An array of another library on this device, not copied."""
    return torch.as_tensor(array, device=DEVICE)


@cache
def _torch_dtype(dtype: np.dtype[Any]) -> Any:
    return getattr(torch, dtype.name)


def _to_device(array: np.ndarray[Any, Any]) -> Any:
    buffer = torch.empty(array.shape, dtype=torch.int64, device=DEVICE)
    _overwrite(buffer, array)
    return buffer


def _overwrite(buffer: Any, array: np.ndarray[Any, Any]) -> None:
    # PyTorch keeps pinned memory until copies from it are done, so the array may change at once, and no one waits.
    source = torch.from_numpy(array)
    buffer.copy_(source if INTERPRETED.value else source.pin_memory(), non_blocking=True)


# Pointers come from integers, so alignment must be said where the pointer is used: hints on a callee's arguments
# are lost. An absent slot is None throughout, and what is never reached for it is not compiled.


@triton.jit(do_not_specialize_on_alignment=["rows", "tile_tensor", "hyper", "signals"])
def step_kernel(
    rows,
    tile_tensor,
    hyper,
    signals,
    PROLOGUE: tl.constexpr,
    RULE: tl.constexpr,
    EPILOGUE: tl.constexpr,
    P: tl.constexpr,
    G: tl.constexpr,
    A: tl.constexpr,
    B: tl.constexpr,
    C: tl.constexpr,
    AVERAGE: tl.constexpr,
    COPY: tl.constexpr,
    ZERO_GRADS: tl.constexpr,
    COMPUTE: tl.constexpr,
    SLOTS: tl.constexpr,
    FIELDS: tl.constexpr,
    TILE: tl.constexpr,
):
    """One step of one tile.

    ``rows`` int64 (tensors, _POINTERS + 4 + SLOTS), ``tile_tensor`` int32 (tiles,) and ``hyper`` COMPUTE (rows,
    prologue, rule and epilogue fields) as in :class:`~gpuopt.kernels.table.Table`, ``signals`` int64 as in
    :class:`~gpuopt.kernels.signals.Signals`. P, G, A to C, AVERAGE and COPY are the dtypes of parameter, gradient,
    state and epilogue slots, None where absent; SLOTS counts the state slots of the rule.
    """
    found_inf = signal(signals, FOUND_INF, tl.float32, 0.0)
    if found_inf == 0:
        clip_factor = signal(signals, CLIP_FACTOR, COMPUTE, 1.0)
        loss_scale = signal(signals, LOSS_SCALE, tl.float32, 1.0).to(COMPUTE)
        tile = tl.program_id(0)
        row = rows + tl.load(tile_tensor + tile).to(tl.int64) * (_POINTERS + 4 + SLOTS)
        # Here, so that they are on their way beside the row's other words, and not after them.
        fast_numel = tl.load(row + _FAST_NUMEL)
        grad = tl.load(row + _POINTERS + 1)
        start = (tile - tl.load(row + _FIRST_TILE)) * TILE
        start = tl.multiple_of(start, TILE)
        fields: tl.constexpr = _PROLOGUE_FIELDS + FIELDS + _EPILOGUE_FIELDS
        scalars = hyper + tl.load(row + _HYPER_ROW) * fields
        grad_scale = tl.load(scalars) * clip_factor
        # fmt: off
        if start + TILE <= fast_numel and grad % ALIGNED == 0:
            update(row, start, None, scalars, grad_scale, loss_scale, PROLOGUE, RULE, EPILOGUE, P, G, A, B, C, AVERAGE,
                   COPY, ZERO_GRADS, COMPUTE, SLOTS, FIELDS, TILE, ALIGNED, ALIGNED)
        elif start + TILE <= fast_numel:
            update(row, start, None, scalars, grad_scale, loss_scale, PROLOGUE, RULE, EPILOGUE, P, G, A, B, C, AVERAGE,
                   COPY, ZERO_GRADS, COMPUTE, SLOTS, FIELDS, TILE, ALIGNED, 1)
        else:
            end = min(tl.load(row + _NUMEL), start + TILE)
            for at in range(start, end, TAIL):
                update(row, at, end - at, scalars, grad_scale, loss_scale, PROLOGUE, RULE, EPILOGUE, P, G, A, B, C,
                       AVERAGE, COPY, ZERO_GRADS, COMPUTE, SLOTS, FIELDS, TAIL, 1, 1)
        # fmt: on
    if ZERO_GRADS:  # noqa: SIM102 (it decides at compile time)
        if found_inf != 0:
            tile = tl.program_id(0)
            row = rows + tl.load(tile_tensor + tile).to(tl.int64) * (_POINTERS + 4 + SLOTS)
            start = (tile - tl.load(row + _FIRST_TILE)) * TILE
            lane = start + tl.arange(0, TILE)
            tl.store(slot(row, 1, G, 0, 1) + lane, tl.zeros([TILE], G), mask=lane < tl.load(row + _NUMEL))


@triton.jit
def signal(signals, SIGNAL: tl.constexpr, DTYPE: tl.constexpr, default):
    """The scalar at the address of one signal, ``default`` where none is given."""
    address = tl.load(signals + SIGNAL)
    return tl.load(address.to(tl.pointer_type(DTYPE)), mask=address != 0, other=default)


@triton.jit
def update(
    row,
    start,
    size,
    scalars,
    grad_scale,
    loss_scale,
    PROLOGUE: tl.constexpr,
    RULE: tl.constexpr,
    EPILOGUE: tl.constexpr,
    P: tl.constexpr,
    G: tl.constexpr,
    A: tl.constexpr,
    B: tl.constexpr,
    C: tl.constexpr,
    AVERAGE: tl.constexpr,
    COPY: tl.constexpr,
    ZERO_GRADS: tl.constexpr,
    COMPUTE: tl.constexpr,
    SLOTS: tl.constexpr,
    FIELDS: tl.constexpr,
    LANES: tl.constexpr,
    ALIGNED: tl.constexpr,
    G_ALIGNED: tl.constexpr,
):
    """One step of LANES elements from ``start`` on, or of the first ``size`` of them unless it is None.

    The gradient's base is a multiple of G_ALIGNED bytes, those of other slots are of ALIGNED.
    """
    lane = tl.arange(0, LANES)
    mask = None if size is None else lane < size
    p_at = slot(row, 0, P, start, ALIGNED) + lane
    g_at = slot(row, 1, G, start, G_ALIGNED) + lane
    p = widen(tl.load(p_at, mask=mask), COMPUTE)
    g = widen(tl.load(g_at, mask=mask), COMPUTE)
    a = None
    b = None
    c = None
    if A is not None:
        a_at = slot(row, 2, A, start, ALIGNED) + lane
        a = widen(tl.load(a_at, mask=mask), COMPUTE)
    if B is not None:
        b_at = slot(row, 3, B, start, ALIGNED) + lane
        b = widen(tl.load(b_at, mask=mask), COMPUTE)
    if C is not None:
        c_at = slot(row, 4, C, start, ALIGNED) + lane
        c = widen(tl.load(c_at, mask=mask), COMPUTE)

    # Not before the loads, which a division would keep waiting.
    grad_scale = div_rn(grad_scale, loss_scale)
    # Before the prologue: after it, some variants would spill.
    hyper = scalar_tuple(scalars + _PROLOGUE_FIELDS, FIELDS)
    p, g = PROLOGUE(p, g, (grad_scale,) + scalar_tuple(scalars + 1, _PROLOGUE_FIELDS - 1))
    if SLOTS == 1:
        p, state = RULE(p, g, hyper, a)
    elif SLOTS == 2:
        p, state = RULE(p, g, hyper, a, b)
    else:
        p, state = RULE(p, g, hyper, a, b, c)

    if AVERAGE is not None:
        average_at = slot(row, 2 + SLOTS, AVERAGE, start, ALIGNED) + lane
        average = widen(tl.load(average_at, mask=mask), COMPUTE)
        average = EPILOGUE(p, average, scalar_tuple(scalars + _PROLOGUE_FIELDS + FIELDS, _EPILOGUE_FIELDS))
        tl.store(average_at, narrow(average, AVERAGE), mask=mask)
    if COPY is not None:
        tl.store(slot(row, 3 + SLOTS, COPY, start, ALIGNED) + lane, narrow(p, COPY), mask=mask)
    if ZERO_GRADS:
        tl.store(g_at, tl.zeros_like(g).to(G), mask=mask)
    tl.store(p_at, narrow(p, P), mask=mask)
    if A is not None:
        tl.store(a_at, narrow(state[0], A), mask=mask)
    if B is not None:
        tl.store(b_at, narrow(state[1], B), mask=mask)
    if C is not None:
        tl.store(c_at, narrow(state[2 if B is not None else 1], C), mask=mask)


@triton.jit
def slot(row, SLOT: tl.constexpr, DTYPE: tl.constexpr, start, ALIGNED: tl.constexpr):
    """Pointer to element ``start`` of slot SLOT, whose base is a multiple of ALIGNED bytes."""
    base = tl.load(row + _POINTERS + SLOT).to(tl.pointer_type(DTYPE))
    return tl.multiple_of(base, ALIGNED) + start


@triton.jit
def scalar_tuple(at, COUNT: tl.constexpr):
    """The COUNT scalars from ``at`` on."""
    scalars: tl.tuple = ()
    for i in tl.static_range(COUNT):
        scalars = scalars + (tl.load(at + i),)
    return scalars


@triton.jit
def widen(stored, COMPUTE: tl.constexpr):
    """Stored values in the compute dtype, exactly."""
    if INTERPRETED and stored.dtype == tl.bfloat16:
        bits = stored.to(tl.uint16, bitcast=True).to(tl.uint32) << 16
        return bits.to(tl.float32, bitcast=True).to(COMPUTE)
    else:
        return stored.to(COMPUTE)


@triton.jit
def narrow(value, DTYPE: tl.constexpr):
    """Values of the compute dtype as they are stored: 16-bit formats round to float32 first."""
    if DTYPE == tl.bfloat16 or DTYPE == tl.float16:
        value = value.to(tl.float32)
    if INTERPRETED and DTYPE == tl.bfloat16:
        # The interpreter's own conversion neither rounds ties to even nor keeps every NaN.
        bits = value.to(tl.uint32, bitcast=True)
        rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
        half = tl.where(value != value, 0x7FC0, rounded)
        return half.to(tl.uint16).to(tl.bfloat16, bitcast=True)
    else:
        return value.to(DTYPE)
