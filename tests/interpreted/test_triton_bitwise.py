"""The Triton driver, interpreted, gives the bits of the NumPy form, in every slot, for every variant.

The contract of ``test_bitwise.py`` for the fourth form: several steps with new gradients and new hyper, two hyper
rows in one launch, tensors around the tile and around the width of the masked path, aligned or not, inputs over the
whole range of each format, and nothing written outside the tensors.
"""

from __future__ import annotations

import pytest
from kit.patterns import assert_loads, assert_stores
from kit.same import assert_equal_steps

from gpuopt.kernels.drivers import triton as driver
from gpuopt.kernels.formats import FORMATS
from gpuopt.kernels.rules import RULES
from gpuopt.kernels.variant import Variant
from gpuopt.verify.tensors import Tensors
from gpuopt.verify.variants import edge_hyper_rows, hyper_rows, variants

# The interpreter computes with NumPy, which warns where infinities and NaN arise.
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")

TILE = 256
NUMELS = [0, 1, 5, 127, 128, 129, TILE - 1, TILE, TILE + 1, 2 * TILE + 130, 0]

each_variant = pytest.mark.parametrize("variant", variants(), ids=str)


@each_variant
@pytest.mark.parametrize("misaligned", [False, True, "grad"], ids=["aligned", "misaligned", "misaligned gradients"])
def test_steps(variant: Variant, misaligned: bool | str) -> None:
    assert driver.INTERPRETED.value
    tensors = Tensors(variant, NUMELS, seed=1, misaligned=misaligned)
    assert_equal_steps(driver.run, tensors, [hyper_rows(variant, step) for step in range(2)], TILE)


@each_variant
def test_hyper_at_its_edges(variant: Variant) -> None:
    rows = edge_hyper_rows(variant)
    assert_equal_steps(driver.run, Tensors(variant, [TILE + 3] * len(rows), seed=2), [rows], TILE)


@pytest.mark.parametrize("numels", [[], [0], [0, 0, 0]], ids=str)
def test_nothing_to_do(numels: list[int]) -> None:
    variant = variants()[0]
    assert_equal_steps(driver.run, Tensors(variant, numels), [hyper_rows(variant, 1)], TILE)


@pytest.mark.parametrize("name", FORMATS)
def test_patterns(name: str) -> None:
    for assert_forms in (assert_loads, assert_stores):
        assert_forms(driver.run, name, 1 << 16, drawn=1_000_000)


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_the_drivers_own_tile(rule) -> None:
    variant = Variant(rule, (FORMATS["fp32"],) * (2 + len(rule.slots)))
    tensors = Tensors(variant, [driver.TILE - 1, driver.TILE, driver.TILE + 1, 3 * driver.TILE + 5], seed=3)
    assert_equal_steps(driver.run, tensors, [hyper_rows(variant, 1)], driver.TILE)
