"""The Triton driver, interpreted, takes signals as the oracle does.

The contract of ``test_signals.py``: the oracle's bits for each way to give or leave out three signals and for zeros,
infinities, NaN and subnormals in them; and where found_inf is not zero, no byte is written but zeros to
gradients that are to be zeroed.
"""

from __future__ import annotations

import pytest
from kit.given import assert_same_step, assert_untouched

from gpuopt.kernels.drivers import triton as driver
from gpuopt.kernels.variant import Variant
from gpuopt.verify.given import COMBINATIONS, EDGES, FOUND, SIGNALLED

# The interpreter computes with NumPy, which warns where infinities and NaN arise.
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")

TILE = 256
NUMELS = [0, 5, 129, TILE + 1]

each_variant = pytest.mark.parametrize("variant", SIGNALLED, ids=str)


@each_variant
def test_same_bits_with_signals(variant: Variant) -> None:
    for values in COMBINATIONS:
        assert_same_step(driver.run, variant, TILE, NUMELS, values)
    for values in EDGES:
        assert_same_step(driver.run, variant, TILE, [TILE, 3], values)


@each_variant
def test_where_an_infinity_was_found_nothing_is_written(variant: Variant) -> None:
    for found in FOUND:
        assert_untouched(driver.run, variant, TILE, NUMELS, found)
