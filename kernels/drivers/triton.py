"""Runs the Triton form: one launch for the whole table, the same kernel for every rule.

Each program takes one tile: it looks up its tensor, then loads, computes and stores. Full tiles of tensors whose
slots are aligned go without a mask, because only then does Triton emit 16-byte accesses; where the gradient alone is
not, it is accessed by elements, and all else as ever. Divisions and roots round to nearest and no products are fused
into sums, so that the bits are the oracle's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from typing import Any, Self

import numpy as np
import torch
import triton
import triton.language as tl

from gpuopt.kernels import blocks, epilogue, prologue
from gpuopt.kernels.drivers.device_table import DeviceTable, Placed
from gpuopt.kernels.drivers.triton_launch import INTERPRETED, Launcher
from gpuopt.kernels.epilogue import Epilogue
from gpuopt.kernels.formats import BLOCK
from gpuopt.kernels.prologue import Prologue
from gpuopt.kernels.random import Key
from gpuopt.kernels.rules.rule import MOST_SLOTS
from gpuopt.kernels.schedule import Schedule
from gpuopt.kernels.signals import NO_SIGNALS, Signals
from gpuopt.kernels.table import (
    ALIGNMENT,
    FAST_NUMEL,
    FIRST_TILE,
    HYPER_ROW,
    NUMEL,
    ORIGIN,
    PITCH,
    POINTERS,
    RUN,
    Table,
)
from gpuopt.kernels.triton_math import div_rn, power_rn, random_bits, slot_key, sqrt_rn
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
_ORIGIN = tl.constexpr(ORIGIN)
_RUN = tl.constexpr(RUN)
_PITCH = tl.constexpr(PITCH)
_POINTERS = tl.constexpr(POINTERS)
_PROLOGUE_FIELDS = tl.constexpr(len(Prologue._fields))
_EPILOGUE_FIELDS = tl.constexpr(len(Epilogue._fields))
_KEY_FIELDS = tl.constexpr(len(Key._fields))
_BLOCK = tl.constexpr(BLOCK)
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


@dataclass(frozen=True)
class Slot:
    """How :func:`step_kernel` reaches and stores a slot.

    Attributes:
        columns: Where the addresses of its planes are among those of a row.
        dtypes: Triton's of the planes.
        blocks: Elements that share an entry, of each plane.
        load: The format's, compiled.
        store: Likewise.
        salt: The slot's index in the variant, which tells its random bits from those of others; None where the format
            is not random.
        top: That of the format, if it is in blocks.
    """

    columns: tuple[int, ...]
    dtypes: tuple[Any, ...]
    blocks: tuple[int, ...]
    load: Any
    store: Any
    salt: int | None
    top: float | None


@dataclass(frozen=True)
class Forms:
    """A variant as :func:`step_kernel` is compiled for it.

    No tuple, since Triton 3.6 would make one of its own of it, which can hold no None.

    Attributes:
        prologue: The form, compiled, as are the two that follow.
        rule: The rule's.
        restore: That of the relation of the rule's slots; None where there is none, as is the next.
        reduce: Likewise.
        epilogue: The epilogue's.
        slots: Parameter, gradient, ``MOST_SLOTS`` of state, average and copy; None where absent.
        state: Number of the rule's state slots, present or not.
        fields: Number of the rule's hyper fields.
        width: Number of addresses in a row.
        compute: Triton's dtype of the arithmetic.
        is_random: Whether any slot is stored by random bits.
        zero_grads: Whether gradients are zeroed.
    """

    prologue: Any
    rule: Any
    restore: Any
    reduce: Any
    epilogue: Any
    slots: tuple[Slot | None, ...]
    state: int
    fields: int
    width: int
    compute: Any
    is_random: bool
    zero_grads: bool

    def fingerprint(self) -> str:
        """Changes when any function does, of which Triton's cache on disk would know the names alone."""
        slots = (slot for slot in self.slots if slot is not None)
        functions = (
            self.prologue,
            self.rule,
            *(each for each in (self.restore, self.reduce) if each is not None),
            self.epilogue,
            *(each for slot in slots for each in (slot.load, slot.store)),
        )
        return "" if INTERPRETED.value else sha256("".join(each.cache_key for each in functions).encode()).hexdigest()


@cache
def constants(variant: Variant, tile: int = TILE) -> dict[str, Any]:
    """The compile-time arguments of :func:`step_kernel` for one variant."""
    p, g, *state, average, copy = (
        None
        if format is None
        else Slot(
            columns,
            tuple(getattr(tl, plane.dtype) for plane in format.planes),
            tuple(plane.block for plane in format.planes),
            jit(format.triton_load),
            jit(format.triton_store),
            index if format.is_random else None,
            format.top,
        )
        for index, (format, columns) in enumerate(zip(variant.formats, variant.columns, strict=True))
    )
    relation = variant.relation
    forms = Forms(
        jit(prologue.triton_form),
        jit(variant.rule.triton_form),
        relation and jit(relation.triton_restore),
        relation and relation.triton_reduce and jit(relation.triton_reduce),
        jit(epilogue.triton_form),
        (p, g, *state, *(None,) * (MOST_SLOTS - len(state)), average, copy),
        len(state),
        len(variant.rule.hyper_fields),
        variant.width,
        getattr(tl, variant.compute.name),
        variant.is_random,
        variant.zero_grads,
    )
    return {"FORMS": forms, "FINGERPRINT": forms.fingerprint(), "TILE": tile}


@cache
def jit(form: Callable[..., Any]) -> Any:
    """A form as a Triton function. Its module gets Triton's names here, so that it imports without Triton."""
    form.__globals__.update(tl=tl, INTERPRETED=INTERPRETED, div_rn=div_rn, power_rn=power_rn, sqrt_rn=sqrt_rn)
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


_magnitude, _scale, _factor = map(jit, (blocks.triton_magnitude, blocks.triton_scale, blocks.triton_factor))

# Pointers come from integers, so alignment must be said where the pointer is used: hints on a callee's arguments
# are lost. An absent slot is None throughout, and what is never reached for it is not compiled.

_P, _G, _A, _B, _C, _AVERAGE, _COPY = map(tl.constexpr, range(4 + MOST_SLOTS))


@triton.jit(do_not_specialize_on_alignment=["rows", "tile_tensor", "hyper", "signals"])
def step_kernel(
    rows,
    tile_tensor,
    hyper,
    signals,
    FORMS: tl.constexpr,
    FINGERPRINT: tl.constexpr,
    TILE: tl.constexpr,
):
    """One step of one tile.

    ``rows`` int64 (tensors, _POINTERS + FORMS.width), ``tile_tensor`` int32 (tiles,) and ``hyper`` of the compute dtype
    (rows, fields) as in :class:`~gpuopt.kernels.table.Table`, ``signals`` int64 as in
    :class:`~gpuopt.kernels.signals.Signals`. FINGERPRINT is of FORMS.
    """
    found_inf = signal(signals, FOUND_INF, tl.float32, 0.0)
    if found_inf == 0:
        clip_factor = signal(signals, CLIP_FACTOR, FORMS.compute, 1.0)
        loss_scale = signal(signals, LOSS_SCALE, tl.float32, 1.0).to(FORMS.compute)
        tile = tl.program_id(0)
        row = rows + tl.load(tile_tensor + tile).to(tl.int64) * (_POINTERS + FORMS.width)
        # Here, so that they are on their way beside the row's other words, and not after them.
        fast_numel = tl.load(row + _FAST_NUMEL)
        grad = tl.load(row + _POINTERS + _G)
        start = (tile - tl.load(row + _FIRST_TILE)) * TILE
        start = tl.multiple_of(start, TILE)
        fields: tl.constexpr = _PROLOGUE_FIELDS + FORMS.fields + _EPILOGUE_FIELDS + _KEY_FIELDS
        scalars = hyper + tl.load(row + _HYPER_ROW) * fields
        grad_scale = tl.load(scalars) * clip_factor
        place = None
        if FORMS.is_random:
            place = tile_in_model(row, start, TILE)
        if start + TILE <= fast_numel and grad % ALIGNED == 0:
            update(row, start, None, place, scalars, grad_scale, loss_scale, FORMS, TILE, ALIGNED, ALIGNED)
        elif start + TILE <= fast_numel:
            update(row, start, None, place, scalars, grad_scale, loss_scale, FORMS, TILE, ALIGNED, 1)
        else:
            end = min(tl.load(row + _NUMEL), start + TILE)
            for at in range(start, end, TAIL):
                update(row, at, end - at, place, scalars, grad_scale, loss_scale, FORMS, TAIL, 1, 1)
    if FORMS.zero_grads:  # noqa: SIM102 (it decides at compile time)
        if found_inf != 0:
            tile = tl.program_id(0)
            row = rows + tl.load(tile_tensor + tile).to(tl.int64) * (_POINTERS + FORMS.width)
            start = (tile - tl.load(row + _FIRST_TILE)) * TILE
            lane = start + tl.arange(0, TILE)
            zero_grads(planes(row, FORMS, _G, 0, 1), lane, lane < tl.load(row + _NUMEL), FORMS, TILE)


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
    place,
    scalars,
    grad_scale,
    loss_scale,
    FORMS: tl.constexpr,
    LANES: tl.constexpr,
    ALIGNED: tl.constexpr,
    G_ALIGNED: tl.constexpr,
):
    """One step of LANES elements from ``start`` on, or of the first ``size`` of them unless it is None.

    The gradient's base is a multiple of G_ALIGNED bytes, those of other slots' planes are of ALIGNED. ``place`` is that
    of the tile, see :func:`tile_in_model`; None if no format is random.
    """
    lane = tl.arange(0, LANES)
    mask = None if size is None else lane < size
    p_at = planes(row, FORMS, _P, start, ALIGNED)
    g_at = planes(row, FORMS, _G, start, G_ALIGNED)
    p = load(p_at, lane, mask, size, FORMS, _P, LANES)
    g = load(g_at, lane, mask, size, FORMS, _G, LANES)
    a = None
    b = None
    c = None
    if FORMS.slots[_A] is not None:
        a_at = planes(row, FORMS, _A, start, ALIGNED)
        a = load(a_at, lane, mask, size, FORMS, _A, LANES)
    if FORMS.slots[_B] is not None:
        b_at = planes(row, FORMS, _B, start, ALIGNED)
        b = load(b_at, lane, mask, size, FORMS, _B, LANES)
    if FORMS.slots[_C] is not None:
        c_at = planes(row, FORMS, _C, start, ALIGNED)
        c = load(c_at, lane, mask, size, FORMS, _C, LANES)

    # Not before the loads, which a division would keep waiting.
    grad_scale = div_rn(grad_scale, loss_scale)
    # Before the prologue: after it, some variants would spill.
    hyper = scalar_tuple(scalars + _PROLOGUE_FIELDS, FORMS.fields)
    p, g = FORMS.prologue(p, g, (grad_scale,) + scalar_tuple(scalars + 1, _PROLOGUE_FIELDS - 1))
    # Taken apart here, and once more below, since a Triton function returns no None for a slot that is absent.
    if FORMS.restore is not None:
        if FORMS.state == 1:
            state = FORMS.restore(hyper, a)
        elif FORMS.state == 2:
            state = FORMS.restore(hyper, a, b)
        else:
            state = FORMS.restore(hyper, a, b, c)
        if FORMS.slots[_A] is not None:
            a = state[0]
            state = state[1:]
        if FORMS.slots[_B] is not None:
            b = state[0]
            state = state[1:]
        if FORMS.slots[_C] is not None:
            c = state[0]
    if FORMS.state == 1:
        p, state = FORMS.rule(p, g, hyper, a)
    elif FORMS.state == 2:
        p, state = FORMS.rule(p, g, hyper, a, b)
    else:
        p, state = FORMS.rule(p, g, hyper, a, b, c)
    if FORMS.reduce is not None:
        if FORMS.slots[_A] is not None:
            a = state[0]
            state = state[1:]
        if FORMS.slots[_B] is not None:
            b = state[0]
            state = state[1:]
        if FORMS.slots[_C] is not None:
            c = state[0]
        if FORMS.state == 1:
            state = FORMS.reduce(hyper, a)
        elif FORMS.state == 2:
            state = FORMS.reduce(hyper, a, b)
        else:
            state = FORMS.reduce(hyper, a, b, c)

    after = scalars + _PROLOGUE_FIELDS + FORMS.fields
    index = None
    key = None
    if FORMS.is_random:
        index = index_in_model(place, start + lane)
        key = scalar_tuple(after + _EPILOGUE_FIELDS, _KEY_FIELDS)
    if FORMS.slots[_AVERAGE] is not None:
        average_at = planes(row, FORMS, _AVERAGE, start, ALIGNED)
        average = load(average_at, lane, mask, size, FORMS, _AVERAGE, LANES)
        average = FORMS.epilogue(p, average, scalar_tuple(after, _EPILOGUE_FIELDS))
        store(average_at, lane, mask, size, average, index, key, FORMS, _AVERAGE, LANES)
    if FORMS.slots[_COPY] is not None:
        copy_at = planes(row, FORMS, _COPY, start, ALIGNED)
        store(copy_at, lane, mask, size, p, index, key, FORMS, _COPY, LANES)
    if FORMS.zero_grads:
        zero_grads(g_at, lane, mask, FORMS, LANES)
    store(p_at, lane, mask, size, p, index, key, FORMS, _P, LANES)
    if FORMS.slots[_A] is not None:
        store(a_at, lane, mask, size, state[0], index, key, FORMS, _A, LANES)
        state = state[1:]
    if FORMS.slots[_B] is not None:
        store(b_at, lane, mask, size, state[0], index, key, FORMS, _B, LANES)
        state = state[1:]
    if FORMS.slots[_C] is not None:
        store(c_at, lane, mask, size, state[0], index, key, FORMS, _C, LANES)


@triton.jit
def planes(row, FORMS: tl.constexpr, SLOT: tl.constexpr, start, ALIGNED: tl.constexpr):
    """Pointers to element ``start`` of each plane of a slot, whose bases are multiples of ALIGNED bytes."""
    pointers: tl.tuple = ()
    for i in tl.static_range(len(FORMS.slots[SLOT].dtypes)):
        address = tl.load(row + _POINTERS + FORMS.slots[SLOT].columns[i])
        base = address.to(tl.pointer_type(FORMS.slots[SLOT].dtypes[i]))
        if FORMS.slots[SLOT].blocks[i] == 1:
            pointers = pointers + (tl.multiple_of(base, ALIGNED) + start,)
        else:
            pointers = pointers + (base + start // _BLOCK,)
    return pointers


@triton.jit
def load(at, lane, mask, size, FORMS: tl.constexpr, SLOT: tl.constexpr, LANES: tl.constexpr):
    """Elements ``lane`` from the pointers ``at`` on, in the compute dtype; ``mask`` is of the first ``size``."""
    if FORMS.slots[SLOT].top is not None:
        block = tl.arange(0, LANES // _BLOCK)
        scales = tl.load(at[1] + block, mask=None if size is None else block * _BLOCK < size)
        return FORMS.slots[SLOT].load(tl.load(at[0] + lane, mask=mask), spread(scales, LANES), FORMS.compute)
    entries: tl.tuple = ()
    for i in tl.static_range(len(FORMS.slots[SLOT].dtypes)):
        entries = entries + (tl.load(at[i] + lane, mask=mask),)
    return FORMS.slots[SLOT].load(*entries, FORMS.compute)


@triton.jit
def store(at, lane, mask, size, value, index, key, FORMS: tl.constexpr, SLOT: tl.constexpr, LANES: tl.constexpr):
    """The opposite, by random bits of ``index`` and the halves of ``key`` if the format is random.

    The scale of a block is stored once all that load it have found its new largest magnitude together.
    """
    random = None
    if FORMS.slots[SLOT].salt is not None:
        key_of_slot = slot_key(key[0], key[1], FORMS.slots[SLOT].salt)
        random = random_bits(index, key_of_slot, FORMS.slots[SLOT].salt)
    if FORMS.slots[SLOT].top is not None:
        magnitude = _magnitude(value).to(tl.int32, bitcast=True)
        if mask is not None:
            magnitude = tl.where(mask, magnitude, 0)
        largest = tl.max(tl.reshape(magnitude, [LANES // _BLOCK, _BLOCK]), axis=1)
        scales = _scale(largest.to(tl.uint32, bitcast=True))
        factors = spread(_factor(scales, FORMS.slots[SLOT].top), LANES)
        tl.store(at[0] + lane, FORMS.slots[SLOT].store(value, random, factors)[0], mask=mask)
        block = tl.arange(0, LANES // _BLOCK)
        tl.store(at[1] + block, scales, mask=None if size is None else block * _BLOCK < size)
    else:
        entries = FORMS.slots[SLOT].store(value, random)
        for i in tl.static_range(len(FORMS.slots[SLOT].dtypes)):
            tl.store(at[i] + lane, entries[i], mask=mask)


@triton.jit
def spread(entries, LANES: tl.constexpr):
    """The entry of its block for each of LANES elements."""
    return tl.reshape(tl.broadcast_to(entries[:, None], [LANES // _BLOCK, _BLOCK]), [LANES])


@triton.jit
def zero_grads(at, lane, mask, FORMS: tl.constexpr, LANES: tl.constexpr):
    """Zeros in LANES elements ``lane`` of a gradient."""
    tl.store(at[0] + lane, tl.zeros([LANES], FORMS.slots[_G].dtypes[0]), mask=mask)


@triton.jit
def tile_in_model(row, start, TILE: tl.constexpr):
    """Where TILE elements from ``start`` on are in the whole model, see :class:`~gpuopt.kernels.table.Whereabouts`.

    Scalars, from which :func:`index_in_model` takes no division of 64 bits: ``start``; by how much the index of that
    element exceeds it; which of its run it is; how long the run is; and what lies between two, 0 where all elements
    follow each other. Of a run longer than TILE all but the last TILE elements are left out.
    """
    run = tl.load(row + _RUN)
    ahead = tl.load(row + _ORIGIN)
    pitch = tl.load(row + _PITCH)
    left = run
    gap = tl.zeros_like(run)
    if run != pitch:
        runs = start // run
        gap = pitch - run
        ahead += runs * gap
        left = (runs + 1) * run - start
    run = min(run, TILE).to(tl.uint32)
    return start, ahead, run - min(left, run.to(tl.int64)).to(tl.uint32), run, gap


@triton.jit
def index_in_model(place, element):
    """Index in the whole model of elements of the tile that ``place`` is of, all in int64."""
    start, ahead, before, run, gap = place
    index = ahead + element
    if gap != 0:
        index += ((before + (element - start).to(tl.uint32)) // run).to(tl.int64) * gap
    return index


@triton.jit
def scalar_tuple(at, COUNT: tl.constexpr):
    """The COUNT scalars from ``at`` on."""
    scalars: tl.tuple = ()
    for i in tl.static_range(COUNT):
        scalars = scalars + (tl.load(at + i),)
    return scalars
