"""Schedules in host memory, with settings for any rule, and the hyper rows that they stand for."""

from __future__ import annotations

from itertools import product

import numpy as np

from gpuopt.kernels.rules import Rule
from gpuopt.kernels.schedule import Common, Schedule, row_at
from gpuopt.kernels.table import Table
from gpuopt.kernels.variant import Variant
from gpuopt.verify.drawing import Array

SWITCHES = ("decoupled", "maximize", "nesterov", "epsilon_hat")
"""Settings that are on or off."""


def setting_rows(rule: Rule) -> list[list[float]]:
    """Settings of groups: every combination of switches, and values that differ from group to group."""
    known = {
        "lr": 0.011,
        "weight_decay": 0.03,
        "average_weight": 0.0021,
        "beta1": 0.9,
        "beta2": 0.999,
        "eps": 1e-8,
        "alpha": 0.99,
        "momentum": 0.87,
        "dampening": 0.13,
        "lr_decay": 0.0003,
    }
    names = (*Common._fields, *rule.settings)
    switches = [name for name in names if name in SWITCHES]
    rows = []
    for group, states in enumerate(product((0.0, 1.0), repeat=len(switches))):
        row = {name: known[name] * (1 - group / 128) for name in names if name not in switches}
        row |= dict(zip(switches, states, strict=True))
        rows.append([row[name] for name in names])
    return rows


class Scheduled:
    """A schedule whose counts and sources are in host memory.

    Attributes:
        counts: float32, the step count of each tensor.
        groups: The group of each tensor.
        settings: Those of each group, with the values of sources in their place.
    """

    def __init__(self, rule: Rule, counts: Array, seed: int, sourced: float = 0.5) -> None:
        """Draws groups, and which share of all settings comes from sources, of float32 and float64 in turn."""
        rng = np.random.default_rng(seed)
        self.rule = rule
        self.counts = np.array(counts, np.float32)
        self.settings = np.array(setting_rows(rule))
        self.groups = rng.permutation(np.arange(len(counts)) % len(self.settings))
        given = self.settings.copy()
        sources = np.zeros(given.shape, np.int64)
        self.scalars: dict[tuple[int, int], Array] = {}
        for index, (at, value) in enumerate(np.ndenumerate(given)):
            if rng.random() < sourced:
                scalar = np.array([value], np.float64 if index % 2 else np.float32)
                self.scalars[at] = scalar
                sources[at] = scalar.ctypes.data + index % 2
                self.settings[at] = scalar[0]
                given[at] = np.nan  # which nothing may read
        addresses = self.counts.ctypes.data + self.counts.itemsize * np.arange(len(counts))
        self.schedule = Schedule(addresses.astype(np.int64), self.groups.astype(np.int64), given, sources)

    def rows(self, variant: Variant) -> Array:
        """The hyper row of each tensor at its count, as the host computes it."""
        steps = self.counts.astype(int).tolist()
        rows = [
            row_at(self.rule, step, self.settings[group].tolist())
            for step, group in zip(steps, self.groups, strict=True)
        ]
        return variant.hyper_array(rows)

    def change(self, seed: int) -> None:
        """Other values in all sources, in place."""
        rng = np.random.default_rng(seed)
        for at, scalar in self.scalars.items():
            if self.settings[at] not in (0.0, 1.0):
                scalar[:] = scalar * rng.uniform(0.9, 1.0)
                self.settings[at] = scalar[0]


def rows_in_order(table: Table) -> Table:
    """The table with a hyper row for each tensor."""
    table.assign_hyper_rows(np.arange(len(table.rows)))
    return table
