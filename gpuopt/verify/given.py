"""Signals that are given, with their scalars in host memory; which values are worth it, and for which variants."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np

from gpuopt.kernels import epilogue
from gpuopt.kernels.formats import FORMATS
from gpuopt.kernels.signals import Signals
from gpuopt.kernels.variant import Variant
from gpuopt.verify.variants import variants

SIGNALLED = [
    variant
    for variant in variants()
    if variant.present[-1] in epilogue.SLOTS
    or (len(variant.state) == len(variant.rule.slots) and set(variant.formats) <= {FORMATS["fp32"], None})
]
"""Every rule with all of its slots: in every set of formats that has an epilogue, and in fp32 without one."""

COMBINATIONS: list[dict[str, float]] = [
    {field: value for field, value in zip(Signals._fields, values, strict=True) if value is not None}
    for values in product((None, 3.0), (None, 0.37), (None, 0.0))
]
"""Every way to give or leave out each signal."""

EDGES: list[dict[str, float]] = [
    {"loss_scale": 0.0},
    {"loss_scale": np.inf},
    {"loss_scale": np.nan, "clip_factor": 0.5},
    {"loss_scale": 1e-45},
    {"loss_scale": 65536.0, "clip_factor": 1.0},
    {"clip_factor": 0.0},
    {"clip_factor": np.inf, "loss_scale": np.inf},
    {"clip_factor": np.nan},
    {"clip_factor": 1e-45},
    {"clip_factor": 1e38, "loss_scale": 1e-38},
    {"found_inf": -0.0, "clip_factor": 0.5},
]
"""Values where arithmetic leaves the ordinary."""

FOUND = (1.0, -1.0, 1e-45, np.inf, np.nan)
"""All that means that an infinity was found: whatever is not zero."""


class Given:
    """Signals whose scalars have the values that are given; the others are absent.

    Attributes:
        scalars: An array of one element, or None, for each field of :class:`Signals`.
    """

    def __init__(self, variant: Variant, **values: float) -> None:
        dtypes: dict[str, Any] = {
            "loss_scale": np.float32,
            "clip_factor": variant.compute.type,
            "found_inf": np.float32,
        }
        self.scalars = [
            np.array([values[field]], dtypes[field]) if field in values else None for field in Signals._fields
        ]

    @property
    def signals(self) -> Signals:
        """Their addresses."""
        return Signals(*(0 if scalar is None else scalar.ctypes.data for scalar in self.scalars))
