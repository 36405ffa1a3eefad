"""What the host makes of values in 8 bits, and of these values again, is the oracle's arithmetic.

1. Values that were decoded are encoded to the very codes and scales they were decoded from, whatever the size, so that
   nothing is lost by converting to and fro; but for blocks that are not finite, which stay so, and for squares whose
   scale is so small that their codes have no values of their own.
2. Any value goes to the nearest code: within half a unit, the largest of a block to itself, and zero to zero, or to the
   least square.
3. Names, and what is missing of a slot.
"""

from __future__ import annotations

import numpy as np
import pytest

from gpuopt import eight_bit
from gpuopt.kernels.formats import BLOCK, EIGHT_BIT
from gpuopt.kernels.rules import RULES

SIZES = [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK, eight_bit._AT_ONCE - 1, eight_bit._AT_ONCE + BLOCK + 5]

each_kind = pytest.mark.parametrize("kind", EIGHT_BIT)
each_size = pytest.mark.parametrize("size", SIZES)


@each_kind
@each_size
def test_what_was_decoded_is_encoded_to_the_same_bits(kind: str, size: int) -> None:
    format, rng = EIGHT_BIT[kind], np.random.default_rng(size)
    codes = rng.integers(0, 256, size, dtype=np.uint8)
    codes[::BLOCK] = 127 if kind == "signed" else 255  # every block has its largest
    scales = np.exp(rng.uniform(-76, 88, -(-size // BLOCK))).astype(np.float32)
    values = eight_bit.decode(codes, scales, format)
    assert values.dtype == np.float32
    again = eight_bit.encode(values, format)
    assert (again[0].dtype, again[1].dtype) == (np.uint8, np.float32)
    assert again[0].tobytes() == codes.tobytes()
    assert again[1].tobytes() == scales.tobytes()


@each_kind
def test_every_code_and_many_scales(kind: str) -> None:
    format, least = EIGHT_BIT[kind], -126 if kind == "signed" else -110
    codes = np.concatenate([np.arange(128), np.arange(128, 256)]).astype(np.uint8)
    codes[[0, BLOCK]] = 127 if kind == "signed" else 255
    for scale in [*(2.0**power for power in range(least, 128)), 1.1, 3e38]:
        scales = np.full(2, scale, np.float32)
        again = eight_bit.encode(eight_bit.decode(codes, scales, format), format)
        assert again[0].tobytes() == codes.tobytes()
        assert again[1].tobytes() == scales.tobytes()


@each_kind
@each_size
def test_to_the_nearest_code(kind: str, size: int) -> None:
    format = EIGHT_BIT[kind]
    values = np.random.default_rng(size).standard_normal(size) ** (1 if kind == "signed" else 2)
    values[::7] = 0
    made = eight_bit.decode(*eight_bit.encode(values, format), format).astype(np.float64)
    wide = values.astype(np.float32).astype(np.float64)
    for start in range(0, size, BLOCK):
        block, own = wide[start : start + BLOCK], made[start : start + BLOCK]
        largest = np.abs(block).argmax()
        assert own[largest] == block[largest]
        assert (np.abs(own - block) <= np.abs(block) / 15 + 1e-6 * np.abs(block[largest])).all()
        least = 0 if kind == "signed" else np.float32(2.0**-32 * 1.125) * np.float32(block[largest])
        assert (own[block == 0] == least).all()


@each_kind
@pytest.mark.parametrize("bad", [np.inf, -np.inf, np.nan])
def test_a_block_that_is_not_finite_stays_so(kind: str, bad: float) -> None:
    values = np.ones(2 * BLOCK, np.float32)
    values[3] = bad
    for _ in range(2):
        values = eight_bit.decode(*eight_bit.encode(values, EIGHT_BIT[kind]), EIGHT_BIT[kind])
        assert np.isnan(values[:BLOCK]).all()
        assert (values[BLOCK:] == 1).all()


def test_names_and_what_is_missing() -> None:
    assert eight_bit.names_of("exp_avg") == ("exp_avg_codes", "exp_avg_scales")
    assert eight_bit.entries_of(["a", "b"]) == ["a", "a_codes", "a_scales", "b", "b_codes", "b_scales"]
    for present, missing in (
        (["a"], []),
        (["a_codes", "a_scales"], []),
        (["a_codes"], ["a_scales"]),
        (["a_scales"], ["a_codes"]),
        ([], ["a"]),
    ):
        assert eight_bit.lacking("a", present) == missing
    assert list(eight_bit.planes_of(RULES["adagrad"])) == []
    assert list(eight_bit.planes_of(RULES["sgd"])) == ["momentum_buffer_codes", "momentum_buffer_scales"]
