"""Gradients, the exact sum of their squares, and how near a driver must come to it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from math import fsum
from typing import Any

import numpy as np
import torch

from gpuopt.kernels.formats import FORMATS
from gpuopt.kernels.gradnorm import clip_factor, norm_of
from gpuopt.kernels.rules import RULES
from gpuopt.kernels.table import PART
from gpuopt.kernels.variant import Variant
from gpuopt.verify.drawing import stored
from gpuopt.verify.tensors import Tensors
from kit.tolerances import NORM

SumSquares = Callable[..., np.ndarray[Any, Any]]
"""Of a table, and of a part if it is given."""

PARTS = [0, 1, -1, 0, 1]
"""Of one tensor after the other, again and again."""

BAD = {"inf": np.inf, "-inf": -np.inf, "nan": np.nan}


def of_format(name: str) -> Variant:
    """A variant whose gradients are of one format, and whose parameters are not."""
    other = "fp32" if name != "fp32" else "bf16"
    return Variant(RULES["sgd"], (FORMATS[other], FORMATS[name], None))


def exact(tensors: Tensors, chosen: Sequence[int] | None = None) -> float:
    """The sum of the squares of all tensors, or of the chosen ones, rounded once."""
    total = Fraction(0)
    for tensor in range(len(tensors.numels)) if chosen is None else chosen:
        values = tensors.formats["grad"].load(tensors.stored(tensor, "grad"))
        if values.dtype == np.float64:
            total += sum((Fraction(value) ** 2 for value in values.tolist()), Fraction(0))
        else:
            wide = values.astype(np.float64)
            total += Fraction(fsum((wide * wide).tolist()))
    return float(total)


def assert_close(sum_squares: SumSquares, name: str, tile: int, numels: list[int], misaligned: bool | str) -> None:
    """Demands a sum that is nearly exact, the same bits the second time, and gradients as they were."""
    tensors = Tensors(of_format(name), numels, seed=6, ordinary_share=1.0, misaligned=misaligned)
    before = tensors.copy()
    table = tensors.table(tile)
    sums = sum_squares(table)
    assert sums.dtype == np.float64
    wanted = exact(tensors)
    assert abs(sums.sum() - wanted) <= NORM * wanted
    assert sum_squares(table).tobytes() == sums.tobytes()
    again = tensors.copy()
    assert sum_squares(again.table(tile)).tobytes() == sums.tobytes()
    assert all(
        np.array_equal(buffer, was[slot])
        for slots, was in zip(tensors.buffers, before.buffers, strict=True)
        for slot, buffer in slots.items()
    )


def assert_ends(clip: Callable[..., None]) -> None:
    """Demands of the end of a norm on a device, for any number of sums, what the host has, and the same in float32."""
    for count in (0, 1, 5, 1023, 1024, 1025, 3000):
        sums = np.random.default_rng(count).random(count) * 3
        for loss_scale, max_norm in ((1.0, 1.0), (3.0, 0.01), (65536.0, 1e9)):
            norm, factor = _end(clip, sums, loss_scale, max_norm)
            wanted = norm_of([sums], loss_scale)
            assert abs(norm - wanted) <= NORM * wanted
            assert factor == clip_factor(norm, max_norm)
    for bad in (np.inf, np.nan):
        sums = np.ones(1500)
        sums[1200] = bad
        assert np.array_equal(_end(clip, sums, 2.0, 1.0), [bad, clip_factor(bad, 1.0)], equal_nan=True)
    assert _end(clip, np.zeros(3), 1.0, 1.0).tolist() == [0.0, 1.0]


def _end(clip: Callable[..., None], sums: np.ndarray[Any, Any], loss_scale: float, max_norm: float) -> Any:
    """Norm and factor in float64, once they are known to be the same in float32."""
    wide, narrow = torch.full((2,), -1.0, dtype=torch.float64), torch.full((2,), -1.0)
    scale, limit = torch.tensor([loss_scale]), torch.tensor([max_norm], dtype=torch.float64)
    clip(torch.from_numpy(sums), limit, scale, wide, narrow)
    assert np.array_equal(narrow.numpy(), wide.numpy().astype(np.float32), equal_nan=True)
    return wide.numpy()


def assert_shows(sum_squares: SumSquares, name: str, tile: int, numels: list[int], bad: float) -> None:
    """Demands that one infinite or undefined gradient, wherever it is, makes the sum so."""
    tensors = Tensors(of_format(name), numels, seed=7, ordinary_share=1.0)
    table = tensors.table(tile)
    assert np.isfinite(sum_squares(table).sum())
    for tensor, numel in enumerate(numels):
        for index in {0, numel // 2, numel - 1} if numel else ():
            element = tensors.stored(tensor, "grad")[index : index + 1]
            kept = element.copy()
            element[:] = stored(tensors.formats["grad"], np.array([bad]))
            total = sum_squares(table).sum()
            assert np.isnan(total) if np.isnan(bad) else total == np.inf
            element[:] = kept


def assert_parts(sum_squares: SumSquares, name: str, tile: int, numels: list[int]) -> None:
    """Demands the sums of parts, each of its own tensors, and that whatever is not finite shows in all of them."""
    for misaligned in (False, "grad"):
        tensors = Tensors(of_format(name), numels, seed=8, ordinary_share=1.0, misaligned=misaligned)
        table = tensors.table(tile)
        table.rows[:, PART] = parts = np.resize(PARTS, len(numels))
        for part in (0, 1, 2):
            wanted = exact(tensors, np.flatnonzero(parts == part).tolist())
            assert abs(sum_squares(table, part).sum() - wanted) <= NORM * wanted
        assert sum_squares(table).tobytes() == sum_squares(table, 0).tobytes()
    for tensor, numel in enumerate(numels):
        for bad in BAD.values() if numel else ():
            element = tensors.stored(tensor, "grad")[numel - 1 :]
            kept = element.copy()
            element[:] = stored(tensors.formats["grad"], np.array([bad]))
            for part in (0, 1):
                total = sum_squares(table, part).sum()
                assert total == np.inf if part == parts[tensor] and np.isinf(bad) else np.isnan(total)
            element[:] = kept
