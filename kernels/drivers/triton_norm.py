"""The global norm of gradients on the device: one pass that reads them once, and one program that ends it.

See :mod:`gpuopt.kernels.gradnorm` for the arithmetic. Which tiles a program takes, and the order in which sums are
added, follow from the table alone, so that the same gradients give the same bits.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
import triton
import triton.language as tl

from gpuopt.kernels import gradnorm
from gpuopt.kernels.drivers.device_table import Placed
from gpuopt.kernels.drivers.triton import ALIGNED, DEVICE, jit
from gpuopt.kernels.drivers.triton_launch import Launcher
from gpuopt.kernels.table import FIRST_TILE, NUMEL, PART, POINTERS, Table
from gpuopt.kernels.variant import Variant

PROGRAMS = 4096
"""Most programs, each of which leaves one sum: enough to fill any GPU twice."""

TAIL = tl.constexpr(256)
"""Elements that a program takes at a time where it needs a mask: more would spill on some GPUs."""

LANES = 1024
"""Sums that the last program adds at a time."""

OPTIONS = {"num_warps": 4, "enable_fp_fusion": False}

CLIP_CONSTANTS = {"FORM": jit(gradnorm.triton_form), "EPSILON": gradnorm.EPSILON, "LANES": LANES}

_NUMEL = tl.constexpr(NUMEL)
_FIRST_TILE = tl.constexpr(FIRST_TILE)
_PART = tl.constexpr(PART)
_POINTERS = tl.constexpr(POINTERS)


def sum_squares(table: Table, placed: Placed, part: int) -> Any:
    """One sum per program, on the current device and stream."""
    each = triton.cdiv(table.tiles, PROGRAMS)
    programs = triton.cdiv(table.tiles, each) if each else 0
    sums = torch.empty(programs, dtype=torch.float64, device=DEVICE)
    if programs:
        launcher(table.variant, table.tile)(programs, placed.rows, placed.tile_tensor, sums, table.tiles, each, part)
    return sums


def clip(sums: Any, max_norm: Any, loss_scale: Any, wide: Any, narrow: Any) -> None:
    """Ends the norm, in one program on the current device and stream.

    Args:
        sums: float64, all sums of squares.
        max_norm: float64, one element.
        loss_scale: float32, one element.
        wide: float64 (2,), written: the norm, and the factor that clips it.
        narrow: float32 (2,), written: the same.
    """
    clip_launcher()(1, sums, sums.numel(), max_norm, loss_scale, wide, narrow)


@cache
def launcher(variant: Variant, tile: int) -> Launcher:
    """Launches :func:`square_kernel` for one variant."""
    return Launcher(square_kernel, constants(variant, tile), OPTIONS)


@cache
def clip_launcher() -> Launcher:
    """Launches :func:`clip_kernel`."""
    return Launcher(clip_kernel, CLIP_CONSTANTS, OPTIONS)


@cache
def constants(variant: Variant, tile: int) -> dict[str, Any]:
    """The compile-time arguments of :func:`square_kernel`."""
    grad = variant.formats[1]
    assert grad is not None
    return {
        "G": getattr(tl, grad.planes[0].dtype),
        "LOAD": jit(grad.triton_load),
        "WIDTH": POINTERS + variant.width,
        "TILE": tile,
    }


@triton.jit(do_not_specialize=["tiles", "each", "part"], do_not_specialize_on_alignment=["rows", "tile_tensor", "sums"])
def square_kernel(
    rows,
    tile_tensor,
    sums,
    tiles,
    each,
    part,
    G: tl.constexpr,
    LOAD: tl.constexpr,
    WIDTH: tl.constexpr,
    TILE: tl.constexpr,
):
    """Adds the squares of ``each`` tiles, lane by lane, and then those of the lanes."""
    EXACT: tl.constexpr = tl.float64 if G == tl.float64 else tl.float32
    program = tl.program_id(0)
    first = program.to(tl.int64) * each
    whole = tl.zeros([TILE], tl.float64)
    rest = tl.zeros([TAIL], tl.float64)
    for tile in range(first, min(first + each, tiles)):
        row = rows + tl.load(tile_tensor + tile).to(tl.int64) * WIDTH
        start = (tile - tl.load(row + _FIRST_TILE)) * TILE
        start = tl.multiple_of(start, TILE)
        numel = tl.load(row + _NUMEL)
        grad = tl.load(row + _POINTERS + 1)
        weight = (tl.load(row + _PART) == part).to(EXACT)
        if start + TILE <= numel and grad % ALIGNED == 0:
            whole += square(tl.load(gradient(grad, G, ALIGNED) + start + tl.arange(0, TILE)), weight, LOAD)
        elif start + TILE <= numel:
            whole += square(tl.load(gradient(grad, G, 1) + start + tl.arange(0, TILE)), weight, LOAD)
        else:
            lane = tl.arange(0, TAIL)
            end = min(numel, start + TILE)
            for at in range(start, end, TAIL):
                rest += square(tl.load(gradient(grad, G, 1) + at + lane, mask=lane < end - at, other=0.0), weight, LOAD)
    tl.store(sums + program, tl.sum(whole) + tl.sum(rest))


@triton.jit
def gradient(address, G: tl.constexpr, ALIGNED: tl.constexpr):
    """Pointer to a gradient, which begins at a multiple of ALIGNED bytes."""
    return tl.multiple_of(address.to(tl.pointer_type(G)), ALIGNED)


@triton.jit
def square(stored, weight, LOAD: tl.constexpr):
    """In float64, once the gradient is multiplied in the dtype of its weight, which holds it exactly."""
    g = (LOAD(stored, weight.dtype) * weight).to(tl.float64)
    return g * g


@triton.jit(
    do_not_specialize=["count"],
    do_not_specialize_on_alignment=["sums", "max_norm", "loss_scale", "wide", "narrow"],
)
def clip_kernel(
    sums, count, max_norm, loss_scale, wide, narrow, FORM: tl.constexpr, EPSILON: tl.constexpr, LANES: tl.constexpr
):
    """One program: the norm and its factor from ``count`` sums."""
    lane = tl.arange(0, LANES)
    total = tl.zeros([LANES], tl.float64)
    for at in range(0, count, LANES):
        total += tl.load(sums + at + lane, mask=lane < count - at, other=0.0)
    norm, factor = FORM(tl.sum(total), tl.load(loss_scale).to(tl.float64), tl.load(max_norm), EPSILON)
    tl.store(wide, norm)
    tl.store(wide + 1, factor)
    tl.store(narrow, norm.to(tl.float32))
    tl.store(narrow + 1, factor.to(tl.float32))
