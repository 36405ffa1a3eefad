"""After 1,000 steps in float32 every rule is close to the same steps in float64.

The NumPy form runs in both from the same parameters and gradients and a state of zeros. The float64 run takes the
scalars unrounded, those of decay included. An error is relative to the root mean square of its slot.

Of a rule that is not continuous only state is held to that. Its parameters start each step of float64 from those of
float32; the share of steps that take one elsewhere is no larger than that of sums whose sign a rounding can turn.
"""

from __future__ import annotations

import pytest
from kit.accuracy import assert_close_to_float64, of

from gpuopt.kernels.rules import RULES, Rule

OPTIONS = [(rule, present) for rule in RULES.values() for present in rule.option_sets()]


@pytest.mark.parametrize(("rule", "present"), OPTIONS, ids=[str(of(*options, "fp32")) for options in OPTIONS])
def test_float32_stays_close_to_float64(rule: Rule, present: tuple[str, ...]) -> None:
    assert_close_to_float64(rule, present)
