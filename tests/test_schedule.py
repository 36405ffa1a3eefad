"""Hyper rows of the host, and the powers in them.

1. ``power`` is within ``n * 2**-53`` of the exact n-th power, relative, or within one subnormal of it; and exact
   where every intermediate power is. It serves exponents of more than 24 bits too.
2. ``row_at`` is the prologue, the rule's hyper and the epilogue for the settings in their order.
3. Each rule names its settings as its ``hyper_at`` does.
"""

from __future__ import annotations

import inspect
from decimal import Decimal, localcontext

import pytest
from kit.schedules import SWITCHES, setting_rows

from gpuopt.kernels.power import BITS, power
from gpuopt.kernels.rules import RULES, Rule
from gpuopt.kernels.schedule import Common, row_at
from gpuopt.verify.variants import variants

each_rule = pytest.mark.parametrize("rule", RULES.values(), ids=RULES)

EXPONENTS = [0, 1, 2, 3, 7, 10, 31, 100, 1000, 4097, 123_457, (1 << 24) - 1]


@pytest.mark.parametrize("base", [0.0, 0.5, 0.8, 0.9, 0.95, 0.99, 0.999, 0.9999, 1 - 2.0**-53, 1.0])
@pytest.mark.parametrize("exponent", EXPONENTS)
def test_powers_are_nearly_exact(base: float, exponent: int) -> None:
    with localcontext() as context:
        context.prec, context.Emin = 60, -(10**9)
        exact = Decimal(base) ** exponent if exponent else Decimal(1)
        error = abs(Decimal(power(base, exponent)) - exact)
        assert error <= exact * exponent * Decimal(2) ** -53 + Decimal(2) ** -1074


def test_powers_of_two_are_exact() -> None:
    assert [power(0.5, n) for n in (0, 1, 5, 1022, 1074, 1075)] == [1.0, 0.5, 2.0**-5, 2.0**-1022, 2.0**-1074, 0.0]
    assert power(2.0, 1000) == 2.0**1000
    assert power(-1.0, 7) == -1.0


def test_an_exponent_of_more_bits_is_not_cut() -> None:
    tiny = 2.0**-30
    assert power(1 - tiny, (1 << BITS) + 1) < power(1 - tiny, 1 << BITS) < power(1 - tiny, (1 << BITS) - 1)


@each_rule
@pytest.mark.parametrize("step", [1, 2, 1000])
def test_a_row_is_prologue_hyper_and_epilogue(rule: Rule, step: int) -> None:
    fields = next(variant for variant in variants() if variant.rule is rule).hyper_fields
    for settings in setting_rows(rule):
        row = dict(zip(fields, row_at(rule, step, settings), strict=True))
        common = Common(*settings[: len(Common._fields)])
        assert row["grad_scale"] == (-1 if common.maximize else 1)
        assert row["weight_decay"] == (0 if common.decoupled else common.weight_decay)
        assert row["decoupled_decay"] == (common.lr * common.weight_decay if common.decoupled else 0)
        assert row["average_weight"] == common.average_weight
        hyper = rule.hyper_at(step, common.lr, *settings[len(Common._fields) :])
        assert [row[field] for field in rule.hyper_fields] == list(hyper)


@each_rule
def test_settings_are_the_arguments_of_hyper_at(rule: Rule) -> None:
    assert tuple(inspect.signature(rule.hyper_at).parameters) == ("step", "lr", *rule.settings)


def test_settings_cover_every_switch() -> None:
    seen = {name for rule in RULES.values() for name in (*Common._fields, *rule.settings)}
    assert set(SWITCHES) <= seen
