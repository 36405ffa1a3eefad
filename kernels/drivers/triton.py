"""Runs the Triton form: one launch for the whole table, the same kernel for every rule.

Each program takes one tile: it looks up its tensor, then loads, computes and stores. Full tiles of tensors whose
slots are all aligned go without a mask, because only then does Triton emit 16-byte accesses. Divisions and roots
round to nearest and no products are fused into sums, so that the bits are the oracle's.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from functools import cache
from typing import Any

import numpy as np
import torch
import triton
import triton.language as tl

from gpuopt.kernels import prologue
from gpuopt.kernels.drivers.device_table import DeviceTable
from gpuopt.kernels.prologue import Prologue
from gpuopt.kernels.table import ALIGNMENT, FAST_NUMEL, FIRST_TILE, HYPER_ROW, NUMEL, POINTERS, Table
from gpuopt.kernels.triton_math import div_rn, sqrt_rn
from gpuopt.kernels.variant import Variant

TILE = 1024
"""Of 4 warps, 8 elements a thread: 16 bytes of a 16-bit slot, and no register spills, as 32 elements do."""

OPTIONS = {"num_warps": 4, "enable_fp_fusion": False}

INTERPRETED = tl.constexpr(triton.knobs.runtime.interpret)
"""Whether kernels run in Triton's interpreter (``TRITON_INTERPRET=1`` at import), on host memory."""

DEVICE = "cpu" if INTERPRETED.value else "cuda"

_TAIL = tl.constexpr(32 * OPTIONS["num_warps"])
"""Elements that a program takes at a time where it needs a mask: one a thread."""

_ALIGNMENT = tl.constexpr(ALIGNMENT)
_NUMEL = tl.constexpr(NUMEL)
_FAST_NUMEL = tl.constexpr(FAST_NUMEL)
_FIRST_TILE = tl.constexpr(FIRST_TILE)
_HYPER_ROW = tl.constexpr(HYPER_ROW)
_POINTERS = tl.constexpr(POINTERS)
_PROLOGUE_FIELDS = tl.constexpr(len(Prologue._fields))


def unavailable() -> str | None:
    """Why Triton cannot run here; None when it can."""
    if INTERPRETED.value or torch.cuda.is_available():
        return None
    return "PyTorch sees no CUDA device"


def run(table: Table, hyper: np.ndarray[Any, Any], stream: int = 0) -> None:
    """One step over ``table``, see :class:`~gpuopt.kernels.drivers.driver.Driver`."""
    if not table.tiles:
        return
    with nullcontext() if INTERPRETED.value else _on(table.device, stream):
        rows, tile_tensor, scalars = _upload(table, hyper, stream)
        step_kernel[(table.tiles,)](rows, tile_tensor, scalars, **constants(table.variant, table.tile), **OPTIONS)


@cache
def constants(variant: Variant, tile: int = TILE) -> dict[str, Any]:
    """The compile-time arguments of :func:`step_kernel` for one variant."""
    dtypes = [None if format is None else getattr(tl, format.dtype) for format in variant.formats]
    p, g, a, b, c = (*dtypes, None, None, None)[:5]
    return {
        "PROLOGUE": _jit(prologue.triton_form),
        "RULE": _jit(variant.rule.triton_form),
        "P": p,
        "G": g,
        "A": a,
        "B": b,
        "C": c,
        "COMPUTE": getattr(tl, variant.compute.name),
        "SLOTS": len(variant.rule.slots),
        "FIELDS": len(variant.rule.hyper_fields),
        "TILE": tile,
    }


@cache
def _jit(form: Callable[..., Any]) -> Any:
    """A form as a Triton function. Its module gets Triton's names here, so that it imports without Triton."""
    form.__globals__.update(tl=tl, div_rn=div_rn, sqrt_rn=sqrt_rn)
    return triton.jit(form)


def _on(device: int | None, stream: int) -> Any:
    """PyTorch's current device and stream, which Triton launches on, for a raw CUDA stream."""
    if stream == 0:
        return torch.cuda.stream(torch.cuda.default_stream(device))
    return torch.cuda.stream(torch.cuda.ExternalStream(stream, device=device))


def _upload(table: Table, hyper: np.ndarray[Any, Any], stream: int) -> tuple[Any, Any, Any]:
    """Rows, tile map and hyper rows where the kernel can read them."""
    if INTERPRETED.value:
        return torch.from_numpy(table.rows), torch.from_numpy(table.tile_tensor), torch.from_numpy(hyper)
    copy = DeviceTable.of(table, hyper, stream, _to_device, _overwrite)
    scalars = copy.buffer[: copy.hyper_words].view(getattr(torch, hyper.dtype.name))
    return copy.buffer[copy.hyper_words :], copy.tile_tensor, scalars


def _to_device(array: np.ndarray[Any, Any]) -> Any:
    return torch.from_numpy(array).to("cuda")


def _overwrite(buffer: Any, array: np.ndarray[Any, Any]) -> None:
    # From pageable memory the driver takes its own copy before it returns, so the array may change at once.
    buffer[: len(array)].copy_(torch.from_numpy(array), non_blocking=True)


# Pointers come from integers, so alignment must be said where the pointer is used: hints on a callee's arguments
# are lost. An absent slot is None throughout, and what is never reached for it is not compiled.


@triton.jit(do_not_specialize_on_alignment=["rows", "tile_tensor", "hyper"])
def step_kernel(
    rows,
    tile_tensor,
    hyper,
    PROLOGUE: tl.constexpr,
    RULE: tl.constexpr,
    P: tl.constexpr,
    G: tl.constexpr,
    A: tl.constexpr,
    B: tl.constexpr,
    C: tl.constexpr,
    COMPUTE: tl.constexpr,
    SLOTS: tl.constexpr,
    FIELDS: tl.constexpr,
    TILE: tl.constexpr,
):
    """One step of one tile.

    ``rows`` int64 (tensors, _POINTERS + 2 + SLOTS), ``tile_tensor`` int32 (tiles,) and ``hyper`` COMPUTE (rows,
    prologue and rule fields) as in :class:`~gpuopt.kernels.table.Table`. P, G and A to C are the dtypes of
    parameter, gradient and state slots, None where absent; SLOTS counts the state slots of the rule.
    """
    tile = tl.program_id(0)
    row = rows + tl.load(tile_tensor + tile).to(tl.int64) * (_POINTERS + 2 + SLOTS)
    start = (tile - tl.load(row + _FIRST_TILE)) * TILE
    start = tl.multiple_of(start, TILE)
    fields: tl.constexpr = _PROLOGUE_FIELDS + FIELDS
    scalars = hyper + tl.load(row + _HYPER_ROW) * fields
    if start + TILE <= tl.load(row + _FAST_NUMEL):
        update(row, start, None, scalars, PROLOGUE, RULE, P, G, A, B, C, COMPUTE, SLOTS, FIELDS, TILE, _ALIGNMENT)
    else:
        end = min(tl.load(row + _NUMEL), start + TILE)
        for at in range(start, end, _TAIL):
            update(row, at, end - at, scalars, PROLOGUE, RULE, P, G, A, B, C, COMPUTE, SLOTS, FIELDS, _TAIL, 1)


@triton.jit
def update(
    row,
    start,
    size,
    scalars,
    PROLOGUE: tl.constexpr,
    RULE: tl.constexpr,
    P: tl.constexpr,
    G: tl.constexpr,
    A: tl.constexpr,
    B: tl.constexpr,
    C: tl.constexpr,
    COMPUTE: tl.constexpr,
    SLOTS: tl.constexpr,
    FIELDS: tl.constexpr,
    LANES: tl.constexpr,
    ALIGNED: tl.constexpr,
):
    """One step of LANES elements from ``start`` on, or of the first ``size`` of them unless it is None."""
    lane = tl.arange(0, LANES)
    mask = None if size is None else lane < size
    p_at = slot(row, 0, P, start, ALIGNED) + lane
    g_at = slot(row, 1, G, start, ALIGNED) + lane
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

    p, g = PROLOGUE(p, g, scalar_tuple(scalars, _PROLOGUE_FIELDS))
    hyper = scalar_tuple(scalars + _PROLOGUE_FIELDS, FIELDS)
    if SLOTS == 1:
        p, state = RULE(p, g, hyper, a)
    elif SLOTS == 2:
        p, state = RULE(p, g, hyper, a, b)
    else:
        p, state = RULE(p, g, hyper, a, b, c)

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
