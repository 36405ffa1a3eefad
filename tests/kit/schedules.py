"""Schedules in host memory, with settings for any rule, and the hyper rows that they stand for."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product

import numpy as np

from gpuopt.kernels.drivers import numpy as oracle
from gpuopt.kernels.drivers.device_table import Placed
from gpuopt.kernels.formats import FORMATS
from gpuopt.kernels.rules import Rule
from gpuopt.kernels.schedule import Common, Schedule, row_at
from gpuopt.kernels.table import Table
from gpuopt.kernels.variant import Variant
from gpuopt.verify.drawing import Array
from gpuopt.verify.given import Given
from gpuopt.verify.tensors import Tensors
from kit.same import assert_same_bits

SWITCHES = ("decoupled", "maximize", "nesterov", "epsilon_hat")
"""Settings that are on or off."""

SEEDS = [0.0, 4294967295.0, 123456789.0]
"""Whole, of 32 bits."""


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
        row = {name: known[name] * (1 - group / 128) for name in names if name in known}
        row |= dict(zip(switches, states, strict=True))
        row["seed"] = SEEDS[group % len(SEEDS)]
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
                factor = rng.uniform(0.9, 1.0)
                scalar[:] = np.floor(scalar * factor) if scalar > 1 else scalar * factor  # seeds are whole
                self.settings[at] = scalar[0]


def rows_in_order(table: Table) -> Table:
    """The table with a hyper row for each tensor."""
    table.assign_hyper_rows(np.arange(len(table.rows)))
    return table


STEPS = [1, 2, 3, 1000, 123_457, (1 << 24) - 1]


def assert_rows_of_the_host(
    place: Callable[..., Placed], step: Callable[..., None], rule: Rule, format: str, sourced: float
) -> None:
    """Demands hyper rows of the bits of the host's, for several programs' worth of tensors, and counts that advance."""
    variant = Variant(rule, (FORMATS[format],) * (2 + len(rule.slots)))
    counts = np.repeat(np.array(STEPS) - 1, 50)
    scheduled = Scheduled(rule, counts, seed=8, sourced=sourced)
    tensors = Tensors(variant, [0] * len(counts))
    table = rows_in_order(tensors.table(256))
    placed = place(table, scheduled.schedule)
    step(table, placed)
    assert scheduled.counts.tolist() == (counts + 1).tolist()
    rows = placed.hyper.numpy()
    assert rows.dtype == variant.compute
    expected = scheduled.rows(variant)
    differ = (rows.view(f"u{rows.itemsize}") != expected.view(f"u{rows.itemsize}")).any(axis=0)
    assert not differ.any(), [field for field, bad in zip(variant.hyper_fields, differ, strict=True) if bad]


def assert_steps_by_rows_of_the_host(run: Callable[..., None], variant: Variant, tile: int, numels: list[int]) -> None:
    """Demands the bits of the NumPy form with the host's hyper rows, over steps of which one is skipped.

    Sources change from step to step; a step that is skipped advances no count, and writes nothing but zeros to
    gradients that are to be zeroed.
    """
    tensors = Tensors(variant, numels, seed=9)
    expected = tensors.copy()
    scheduled = Scheduled(variant.rule, np.array([0, 0, 7, 3, 99]), seed=10)
    table, oracle_table = (rows_in_order(each.table(size)) for each, size in ((tensors, tile), (expected, oracle.TILE)))
    for step, found in enumerate([None, 1.0, 0.0]):
        given = Given(variant, loss_scale=8.0, clip_factor=0.9, **({} if found is None else {"found_inf": found}))
        for each in (tensors, expected):
            each.draw(seed=step)
        before = scheduled.counts.copy()
        run(table, scheduled.schedule, signals=given.signals)
        assert scheduled.counts.tolist() == (before + (not found)).tolist()
        # Where an infinity was found, the oracle reads no row either: only zeroed gradients change.
        oracle.run(oracle_table, scheduled.rows(variant), signals=given.signals)
        assert_same_bits(tensors, expected, f"step {step}:")
        scheduled.change(seed=step)
