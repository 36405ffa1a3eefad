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
from kit.schedules import STEPS, Scheduled, assert_rows_of_the_host, assert_steps_by_rows_of_the_host

from gpuopt.kernels.drivers import triton as driver
from gpuopt.kernels.drivers import triton_schedule
from gpuopt.kernels.formats import FORMATS
from gpuopt.kernels.rules import RULES, Rule
from gpuopt.kernels.signals import NO_SIGNALS
from gpuopt.kernels.variant import Variant
from gpuopt.verify.tensors import Tensors
from gpuopt.verify.variants import epilogue_variants

# The interpreter computes with NumPy, which warns where infinities and NaN arise.
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")

each_rule = pytest.mark.parametrize("rule", RULES.values(), ids=RULES)


@each_rule
@pytest.mark.parametrize("format", ["fp32", "fp64"])
@pytest.mark.parametrize("sourced", [0.0, 0.5, 1.0])
def test_hyper_rows_are_those_of_the_host(rule: Rule, format: str, sourced: float) -> None:
    assert len(STEPS) * 50 > 2 * triton_schedule.LANES
    assert_rows_of_the_host(driver.place, driver.step, rule, format, sourced)


@pytest.mark.parametrize("variant", epilogue_variants(), ids=str)
def test_tensors_are_stepped_by_the_rows_of_the_host(variant: Variant) -> None:
    assert_steps_by_rows_of_the_host(driver.run, variant, 256, [1, 130, 256, 0, 300])


def test_no_tensors() -> None:
    rule = RULES["adam"]
    variant = Variant(rule, (*(FORMATS["fp32"],) * 4, None))
    scheduled = Scheduled(rule, np.array([], np.float32), seed=0)
    driver.run(Tensors(variant, []).table(driver.TILE), scheduled.schedule, signals=NO_SIGNALS)
