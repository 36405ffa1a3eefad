"""Follows a schedule: advances the step counts of a table and computes its hyper rows, on the device."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import triton
import triton.language as tl

from gpuopt.kernels import prologue
from gpuopt.kernels.drivers.device_table import Placed
from gpuopt.kernels.drivers.triton import FOUND_INF, jit, signal
from gpuopt.kernels.drivers.triton_launch import Launcher
from gpuopt.kernels.rules import Rule
from gpuopt.kernels.schedule import Common
from gpuopt.kernels.table import Table
from gpuopt.kernels.triton_math import step_key

LANES = 128
"""Tensors that one program takes."""

OPTIONS = {"num_warps": 4, "enable_fp_fusion": False}

_COMMON = tl.constexpr(len(Common._fields))


def advance(table: Table, placed: Placed) -> None:
    """Fills the hyper rows of ``placed``, one per tensor, in one launch on the current device and stream."""
    tensors = len(table.rows)
    if not tensors:
        return
    programs = triton.cdiv(tensors, LANES)
    launcher(table.variant.rule, table.variant.compute)(
        programs, *placed.schedule, placed.signals, placed.hyper, tensors
    )


@cache
def launcher(rule: Rule, compute: np.dtype[Any]) -> Launcher:
    """Launches :func:`advance_kernel` for one rule and hyper rows of one dtype."""
    return Launcher(advance_kernel, constants(rule), OPTIONS)


@cache
def constants(rule: Rule) -> dict[str, Any]:
    """The compile-time arguments of :func:`advance_kernel`."""
    return {
        "PROLOGUE": jit(prologue.triton_hyper),
        "RULE": jit(rule.triton_hyper),
        "SETTINGS": len(rule.settings),
        "LANES": LANES,
    }


@triton.jit(
    do_not_specialize=["tensors"],
    do_not_specialize_on_alignment=["counts", "groups", "settings", "sources", "signals", "hyper"],
)
def advance_kernel(
    counts,
    groups,
    settings,
    sources,
    signals,
    hyper,
    tensors,
    PROLOGUE: tl.constexpr,
    RULE: tl.constexpr,
    SETTINGS: tl.constexpr,
    LANES: tl.constexpr,
):
    """One program advances LANES tensors; see :class:`~gpuopt.kernels.schedule.Schedule` for its arguments."""
    lane = tl.program_id(0) * LANES + tl.arange(0, LANES)
    mask = lane < tensors
    count_at = tl.load(counts + lane, mask=mask, other=0).to(tl.pointer_type(tl.float32))
    skipped = signal(signals, FOUND_INF, tl.float32, 0.0) != 0
    count = tl.load(count_at, mask=mask, other=1.0) + tl.where(skipped, 0.0, 1.0)
    tl.store(count_at, count, mask=mask)
    step = count.to(tl.float64)

    at = tl.load(groups + lane, mask=mask, other=0) * (_COMMON + SETTINGS)
    lr, weight_decay, decoupled, maximize, average_weight, seed = setting_tuple(settings, sources, at, _COMMON)
    own = setting_tuple(settings, sources, at + _COMMON, SETTINGS)
    fields = (
        PROLOGUE(lr, weight_decay, decoupled, maximize) + RULE(step, lr, own) + (average_weight,) + step_key(step, seed)
    )
    row = hyper + lane * len(fields)
    for i in tl.static_range(len(fields)):
        tl.store(row + i, fields[i].to(hyper.dtype.element_ty), mask=mask)


@triton.jit
def setting_tuple(settings, sources, at, COUNT: tl.constexpr):
    """COUNT settings from ``at`` on, in float64: from where their source is, if they have one."""
    values: tl.tuple = ()
    for i in tl.static_range(COUNT):
        source = tl.load(sources + at + i)
        is_wide = source % 2 == 1
        narrow = tl.load(source.to(tl.pointer_type(tl.float32)), mask=(source != 0) & (source % 2 == 0), other=0.0)
        wide = tl.load((source - 1).to(tl.pointer_type(tl.float64)), mask=is_wide, other=0.0)
        given = tl.load(settings + at + i)
        values = values + (tl.where(is_wide, wide, tl.where(source != 0, narrow.to(tl.float64), given)),)
    return values
