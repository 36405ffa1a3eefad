"""The Triton driver's kernel of a step, with knobs, and without what the subjects do not need.

It knows no more than two slots of state, no average, no copy and no zeroing. With all knobs off it compiles to the very
instructions of :func:`gpuopt.kernels.drivers.triton.step_kernel`, which a test holds it to.
"""

from __future__ import annotations

import triton
import triton.language as tl

from gpuopt.kernels.drivers.triton import CLIP_FACTOR, FOUND_INF, LOSS_SCALE, narrow, scalar_tuple, signal, slot, widen
from gpuopt.kernels.epilogue import Epilogue
from gpuopt.kernels.prologue import Prologue
from gpuopt.kernels.table import ALIGNMENT, FAST_NUMEL, FIRST_TILE, HYPER_ROW, NUMEL, POINTERS
from gpuopt.kernels.triton_math import div_rn

_ALIGNED = tl.constexpr(ALIGNMENT)
_NUMEL = tl.constexpr(NUMEL)
_FAST_NUMEL = tl.constexpr(FAST_NUMEL)
_FIRST_TILE = tl.constexpr(FIRST_TILE)
_HYPER_ROW = tl.constexpr(HYPER_ROW)
_POINTERS = tl.constexpr(POINTERS)
_PROLOGUE_FIELDS = tl.constexpr(len(Prologue._fields))
_EPILOGUE_FIELDS = tl.constexpr(len(Epilogue._fields))


@triton.jit(do_not_specialize=["tiles"], do_not_specialize_on_alignment=["rows", "tile_tensor", "hyper", "signals"])
def alternative_kernel(
    rows,
    tile_tensor,
    hyper,
    signals,
    tiles,
    PROLOGUE: tl.constexpr,
    RULE: tl.constexpr,
    P: tl.constexpr,
    G: tl.constexpr,
    A: tl.constexpr,
    B: tl.constexpr,
    COMPUTE: tl.constexpr,
    SLOTS: tl.constexpr,
    FIELDS: tl.constexpr,
    TILE: tl.constexpr,
    TAIL: tl.constexpr,
    EARLY: tl.constexpr,
    PERSISTENT: tl.constexpr,
    GRADS: tl.constexpr,
    STORES: tl.constexpr,
    STORED: tl.constexpr,
):
    """One step of one tile, or of every so manieth where there are fewer programs than ``tiles``.

    As :func:`~gpuopt.kernels.drivers.triton.step_kernel`, and with knobs: TAIL elements at a time behind a mask; EARLY
    loads FAST_NUMEL beside the row's first words and divides for the gradient scale after the slots' loads; PERSISTENT
    programs take several tiles; GRADS is the eviction policy of gradients, STORES and STORED the cache modifier and the
    eviction policy of what is stored.
    """
    found_inf = signal(signals, FOUND_INF, tl.float32, 0.0)
    if found_inf == 0:
        clip_factor = signal(signals, CLIP_FACTOR, COMPUTE, 1.0)
        loss_scale = signal(signals, LOSS_SCALE, tl.float32, 1.0).to(COMPUTE)
        # fmt: off
        if PERSISTENT:
            for tile in range(tl.program_id(0), tiles, tl.num_programs(0)):
                one_tile(tile, rows, tile_tensor, hyper, clip_factor, loss_scale, PROLOGUE, RULE, P, G, A, B, COMPUTE,
                         SLOTS, FIELDS, TILE, TAIL, EARLY, GRADS, STORES, STORED)
        else:
            one_tile(tl.program_id(0), rows, tile_tensor, hyper, clip_factor, loss_scale, PROLOGUE, RULE, P, G, A, B,
                     COMPUTE, SLOTS, FIELDS, TILE, TAIL, EARLY, GRADS, STORES, STORED)
        # fmt: on


@triton.jit
def one_tile(
    tile,
    rows,
    tile_tensor,
    hyper,
    clip_factor,
    loss_scale,
    PROLOGUE: tl.constexpr,
    RULE: tl.constexpr,
    P: tl.constexpr,
    G: tl.constexpr,
    A: tl.constexpr,
    B: tl.constexpr,
    COMPUTE: tl.constexpr,
    SLOTS: tl.constexpr,
    FIELDS: tl.constexpr,
    TILE: tl.constexpr,
    TAIL: tl.constexpr,
    EARLY: tl.constexpr,
    GRADS: tl.constexpr,
    STORES: tl.constexpr,
    STORED: tl.constexpr,
):
    """One step of one tile."""
    row = rows + tl.load(tile_tensor + tile).to(tl.int64) * (_POINTERS + 4 + SLOTS)
    if EARLY:
        fast_numel = tl.load(row + _FAST_NUMEL)
    start = (tile - tl.load(row + _FIRST_TILE)) * TILE
    start = tl.multiple_of(start, TILE)
    fields: tl.constexpr = _PROLOGUE_FIELDS + FIELDS + _EPILOGUE_FIELDS
    scalars = hyper + tl.load(row + _HYPER_ROW) * fields
    grad_scale = tl.load(scalars) * clip_factor
    if not EARLY:
        grad_scale = div_rn(grad_scale, loss_scale)
        fast_numel = tl.load(row + _FAST_NUMEL)
    # fmt: off
    if start + TILE <= fast_numel:
        update(row, start, None, scalars, grad_scale, loss_scale, PROLOGUE, RULE, P, G, A, B, COMPUTE, SLOTS, FIELDS,
               TILE, _ALIGNED, EARLY, GRADS, STORES, STORED)
    else:
        end = min(tl.load(row + _NUMEL), start + TILE)
        for at in range(start, end, TAIL):
            update(row, at, end - at, scalars, grad_scale, loss_scale, PROLOGUE, RULE, P, G, A, B, COMPUTE, SLOTS,
                   FIELDS, TAIL, 1, EARLY, GRADS, STORES, STORED)
    # fmt: on


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
    P: tl.constexpr,
    G: tl.constexpr,
    A: tl.constexpr,
    B: tl.constexpr,
    COMPUTE: tl.constexpr,
    SLOTS: tl.constexpr,
    FIELDS: tl.constexpr,
    LANES: tl.constexpr,
    ALIGNED: tl.constexpr,
    EARLY: tl.constexpr,
    GRADS: tl.constexpr,
    STORES: tl.constexpr,
    STORED: tl.constexpr,
):
    """As :func:`gpuopt.kernels.drivers.triton.update`, with the knobs of :func:`alternative_kernel`."""
    lane = tl.arange(0, LANES)
    mask = None if size is None else lane < size
    p_at = slot(row, 0, P, start, ALIGNED) + lane
    g_at = slot(row, 1, G, start, ALIGNED) + lane
    p = widen(tl.load(p_at, mask=mask), COMPUTE)
    g = widen(tl.load(g_at, mask=mask, eviction_policy=GRADS), COMPUTE)
    a = None
    b = None
    if A is not None:
        a_at = slot(row, 2, A, start, ALIGNED) + lane
        a = widen(tl.load(a_at, mask=mask), COMPUTE)
    if B is not None:
        b_at = slot(row, 3, B, start, ALIGNED) + lane
        b = widen(tl.load(b_at, mask=mask), COMPUTE)

    hyper = scalar_tuple(scalars + _PROLOGUE_FIELDS, FIELDS)
    if EARLY:
        grad_scale = div_rn(grad_scale, loss_scale)
    p, g = PROLOGUE(p, g, (grad_scale,) + scalar_tuple(scalars + 1, _PROLOGUE_FIELDS - 1))
    if SLOTS == 1:
        p, state = RULE(p, g, hyper, a)
    elif SLOTS == 2:
        p, state = RULE(p, g, hyper, a, b)
    else:
        p, state = RULE(p, g, hyper, a, b, None)

    tl.store(p_at, narrow(p, P), mask=mask, cache_modifier=STORES, eviction_policy=STORED)
    if A is not None:
        tl.store(a_at, narrow(state[0], A), mask=mask, cache_modifier=STORES, eviction_policy=STORED)
    if B is not None:
        tl.store(b_at, narrow(state[1], B), mask=mask, cache_modifier=STORES, eviction_policy=STORED)
