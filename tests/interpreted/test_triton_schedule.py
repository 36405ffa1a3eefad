"""The Triton driver, interpreted, follows a schedule: its hyper rows and its step counts are those of the host.

1. For every rule, both compute dtypes and any mixture of settings that are given or come from float32 or float64
   sources, the hyper rows have the bits of ``row_at`` at the first steps and at late ones, in however many programs.
2. Each step count advances by one; by none, and nothing else is written, where an infinity was found.
3. The tensors then have the bits of the NumPy form with the hyper rows of the host, over several steps in which
   sources change and one is skipped.
4. No tensors are no error.
"""

from __future__ import annotations

import numpy as np
import pytest
from kit.same import assert_same_bits
from kit.schedules import Scheduled, rows_in_order

from gpuopt.kernels.drivers import numpy as oracle
from gpuopt.kernels.drivers import triton as driver
from gpuopt.kernels.drivers import triton_schedule
from gpuopt.kernels.formats import FORMATS
from gpuopt.kernels.rules import RULES, Rule
from gpuopt.kernels.signals import NO_SIGNALS
from gpuopt.kernels.variant import Variant
from gpuopt.verify.given import Given
from gpuopt.verify.tensors import Tensors
from gpuopt.verify.variants import EPILOGUES, with_epilogue

# The interpreter computes with NumPy, which warns where infinities and NaN arise.
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")

STEPS = [1, 2, 3, 1000, 123_457, (1 << 24) - 1]

each_rule = pytest.mark.parametrize("rule", RULES.values(), ids=RULES)


@each_rule
@pytest.mark.parametrize("format", ["fp32", "fp64"])
@pytest.mark.parametrize("sourced", [0.0, 0.5, 1.0])
def test_hyper_rows_are_those_of_the_host(rule: Rule, format: str, sourced: float) -> None:
    variant = Variant(rule, (FORMATS[format],) * (2 + len(rule.slots)))
    counts = np.repeat(np.array(STEPS) - 1, 50)
    assert len(counts) > 2 * triton_schedule.LANES
    scheduled = Scheduled(rule, counts, seed=8, sourced=sourced)
    table = rows_in_order(Tensors(variant, [0] * len(counts)).table(driver.TILE))
    placed = driver.place(table, scheduled.schedule)
    driver.step(table, placed)
    assert scheduled.counts.tolist() == (counts + 1).tolist()
    rows = placed.hyper.numpy()
    assert rows.dtype == variant.compute
    expected = scheduled.rows(variant)
    differ = (rows.view(f"u{rows.itemsize}") != expected.view(f"u{rows.itemsize}")).any(axis=0)
    assert not differ.any(), [field for field, bad in zip(variant.hyper_fields, differ, strict=True) if bad]


@each_rule
@pytest.mark.parametrize("formats", EPILOGUES, ids=str)
def test_tensors_are_stepped_by_the_rows_of_the_host(rule: Rule, formats: tuple) -> None:
    variant = with_epilogue(rule, *formats)
    numels = [1, 130, 256, 0, 300]
    tensors = Tensors(variant, numels, seed=9)
    expected = tensors.copy()
    scheduled = Scheduled(rule, np.array([0, 0, 7, 3, 99]), seed=10)
    table, oracle_table = (rows_in_order(each.table(tile)) for each, tile in ((tensors, 256), (expected, oracle.TILE)))
    for step, found in enumerate([None, 1.0, 0.0]):
        given = Given(variant, loss_scale=8.0, clip_factor=0.9, **({} if found is None else {"found_inf": found}))
        for each in (tensors, expected):
            each.draw(seed=step)
        before = scheduled.counts.copy()
        driver.run(table, scheduled.schedule, signals=given.signals)
        assert scheduled.counts.tolist() == (before + (not found)).tolist()
        # Where an infinity was found, the oracle reads no row either: only zeroed gradients change.
        oracle.run(oracle_table, scheduled.rows(variant), signals=given.signals)
        assert_same_bits(tensors, expected, f"triton, step {step}:")
        scheduled.change(seed=step)


def test_no_tensors() -> None:
    rule = RULES["adam"]
    variant = Variant(rule, (*(FORMATS["fp32"],) * 4, None))
    scheduled = Scheduled(rule, np.array([], np.float32), seed=0)
    driver.run(Tensors(variant, []).table(driver.TILE), scheduled.schedule, signals=NO_SIGNALS)
