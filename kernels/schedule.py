"""How hyper rows follow from step counts and settings: on the host, or on a device that keeps both to itself.

On a device a step needs no number from the host: that is what CUDA graphs replay, and what lets an overflow that the
host never sees leave the step counts alone. Both ways compute the same float64 operations in the same order, so they
give the same bits.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from gpuopt.kernels.epilogue import Epilogue
from gpuopt.kernels.prologue import prologue_at
from gpuopt.kernels.random import key_at
from gpuopt.kernels.rules import Rule
from gpuopt.kernels.variant import hyper_row


class Common(NamedTuple):
    """Settings that every rule has; its own follow them. Numbers throughout: what is on or off is 1 or 0.

    A ``seed`` that is negative means that no random bits are needed.
    """

    lr: float
    weight_decay: float = 0.0
    decoupled: float = 0.0
    maximize: float = 0.0
    average_weight: float = 0.0
    seed: float = -1.0


def row_at(rule: Rule, step: int, settings: Sequence[float]) -> tuple[float, ...]:
    """The hyper row of one step (the first is 1) in float64.

    Args:
        rule: Whose.
        step: The number of the step.
        settings: Those of :class:`Common`, then ``rule.settings``.
    """
    common = Common(*settings[: len(Common._fields)])
    prologue = prologue_at(common.lr, common.weight_decay, bool(common.decoupled), bool(common.maximize))
    hyper = rule.hyper_at(step, common.lr, *settings[len(Common._fields) :])
    return hyper_row(prologue, hyper, Epilogue(common.average_weight), key_at(step, common.seed))


class Schedule(NamedTuple):
    """What a device computes the hyper rows of a table from, one row per tensor.

    Attributes:
        counts: int64 (tensors,): address on the device of the step count of each tensor, float32. A step that is not
            skipped advances it.
        groups: int64 (tensors,): row of ``settings`` of each tensor.
        settings: float64 (groups, settings): as :func:`row_at` takes them.
        sources: int64 (groups, settings): address on the device of the scalar that stands for a setting, plus 1 if it
            is float64 and not float32; 0 where the setting is in ``settings``.
        replayed: Whether steps may be captured in a CUDA graph.
    """

    counts: np.ndarray[Any, Any]
    groups: np.ndarray[Any, Any]
    settings: np.ndarray[Any, Any]
    sources: np.ndarray[Any, Any]
    replayed: bool = False
