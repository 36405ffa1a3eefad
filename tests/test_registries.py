"""What is registered hangs together.

1. Every rule has from one to three state slots, the number that the drivers' kernels are written out for.
2. A variant needs every required slot of its rule, and a hyper row one number per field, all of them in range.
3. Bytes moved per element are those of the table in the design: each slot read, each but the gradient written.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from gpuopt.kernels.formats import EIGHT_BIT, FORMATS
from gpuopt.kernels.rules import RULES
from gpuopt.kernels.table import Table
from gpuopt.kernels.variant import Variant

FP32, BF16, FP64 = FORMATS["fp32"], FORMATS["bf16"], FORMATS["fp64"]


@pytest.mark.parametrize("slots", [(), ("a", "b", "c", "d")])
def test_a_rule_has_one_to_three_slots(slots):
    adam = RULES["adam"]
    with pytest.raises(ValueError, match="x must have 1 to 3 state slots, but has"):
        replace(adam, name="x", required=slots, optional=(), kinds=dict.fromkeys(slots, "signed"))


def test_a_variant_needs_required_slots():
    with pytest.raises(ValueError, match="adam needs its slot 'exp_avg_sq'"):
        Variant(RULES["adam"], (FP32, FP32, FP32, None, None))
    with pytest.raises(ValueError, match=r"adam has slots .*, but 2 formats were given"):
        Variant(RULES["adam"], (FP32, FP32))


def test_hyper_is_one_number_per_field_and_in_range():
    narrow, wide = Variant(RULES["adagrad"], (FP32,) * 3), Variant(RULES["adagrad"], (FP32, FP64, FP32))
    with pytest.raises(ValueError, match="a hyper row of adagrad is"):
        narrow.hyper_array([[1.0]])
    with pytest.raises(ValueError, match=r"eps must be within the range of float32, but is 1e\+39"):
        narrow.hyper_array([[1, 0, 0, 0.1, 1e39, 0, 0, 0]])
    assert wide.hyper_array([[1, 0, 0, 0.1, 1e39, 0, 0, 0]]).dtype == np.float64
    assert np.isinf(narrow.hyper_array([[np.inf, 0, 0, 0.1, 0, 0, 0, 0]])[0, 0])


@pytest.mark.parametrize(
    ("rule", "formats", "expected"),
    [
        ("adam", (FP32, FP32, FP32, FP32, None), 28),
        ("adam", (FP32, FP32, BF16, BF16, None), 20),
        ("adam", (BF16, BF16, BF16, BF16, None), 14),
        ("rmsprop", (FP32, FP32, FP32, None, None), 20),
        ("adagrad", (FP32, FP32, FP32), 20),
        ("sgd", (FP32, FP32, None), 12),
        ("sgd", (FP32, FP32, FP32), 20),
        ("adam", (FORMATS["split32"], BF16, FP32, FP32, None), 26),
        ("adam", (FORMATS["split24"], BF16, FP32, FP32, None), 24),
        ("adam", (FORMATS["split24"], BF16, FORMATS["stochastic_bf16"], FORMATS["stochastic_bf16"], None), 16),
        ("adam", (FP32, BF16, FP32, FP32, None, None, BF16), 28),
    ],
)
def test_bytes_per_element(rule, formats, expected):
    assert Variant(RULES[rule], formats).bytes_per_element == expected


def test_a_rule_has_a_kind_for_each_slot():
    with pytest.raises(ValueError, match=r"adam must have a kind for each of its slots \('exp_avg', .* but has \{\}"):
        replace(RULES["adam"], kinds={})


@pytest.mark.parametrize(
    ("rule", "formats", "slot"),
    [
        ("adam", (FP32, FP32, EIGHT_BIT["square"], EIGHT_BIT["square"], None), "exp_avg of adam .* square8"),
        ("adam", (EIGHT_BIT["signed"], FP32, FP32, FP32, None), "param of adam .* signed8"),
        ("sgd", (FP32, FP32, FP32, EIGHT_BIT["signed"]), "average of sgd .* signed8"),
        ("adagrad", (FP32, FP32, EIGHT_BIT["square"]), "sum of adagrad .* square8"),
    ],
)
def test_formats_in_blocks_are_for_the_slots_that_they_fit(rule, formats, slot):
    with pytest.raises(ValueError, match=rf"^{slot.replace(' .* ', ' must not be stored as ')}, which is not for it$"):
        Variant(RULES[rule], formats)


def test_bytes_in_blocks():
    variant = Variant(RULES["adam"], (FP32, FP32, EIGHT_BIT["signed"], EIGHT_BIT["square"], None))
    assert variant.bytes_per_element == 16.125
    assert [variant.bytes_moved(numel) for numel in (0, 1, 128, 129)] == [0, 32, 16.125 * 128, 16.125 * 128 + 32]


def test_a_table_has_whole_blocks_in_its_tiles():
    variant = Variant(RULES["sgd"], (FP32, FP32, EIGHT_BIT["signed"]))
    with pytest.raises(ValueError, match=r"^tile must be a multiple of 128 for sgd\(.*\), but is 64$"):
        Table(variant, 64, [0], [[0] * variant.width])
