"""Random bits are those of an element's place in the model, its slot and the step, and look random.

1. They are what the equation in :mod:`gpuopt.kernels.random` says, written out here in whole numbers.
2. Rounding by them is without bias: means over 2^20 draws are within two standard errors of the value, but for what
   chance takes farther.
3. Draws of neighbours, of following steps, of slots, of seeds and of parameters are not correlated, beyond 0.02, nor
   are their bits one by one.
4. A tensor that is cut into pieces, in rows or in columns, has the bits of the whole, by every driver of the host, also
   where places pass a multiple of 2^32; so do blocks that a driver cuts it into.
5. A finite value never becomes infinite.
"""

from __future__ import annotations

import numpy as np
import pytest

from gpuopt.kernels.drivers import numba, numpy
from gpuopt.kernels.formats import FORMATS
from gpuopt.kernels.random import key_at, random_bits, slot_key
from gpuopt.kernels.rules import RULES
from gpuopt.kernels.table import Table, Whereabouts
from gpuopt.kernels.variant import Variant
from gpuopt.verify.drawing import Array

DRAWS = 1 << 20
MASK = 0xFFFFFFFF

ROUNDED = Variant(RULES["sgd"], (FORMATS["stochastic_bf16"], FORMATS["fp32"], FORMATS["stochastic_bf16"]))


def draws(step: int = 1, seed: int = 0, slot: int = 0, first: int = 0, count: int = DRAWS) -> Array:
    index = np.arange(first, first + count)
    low, high = (np.array([half], np.uint32) for half in key_at(step, seed))
    return random_bits(slot)(index.astype(np.uint32), (index >> 32).astype(np.uint32), slot_key(low, high, slot))


def mix(x: int) -> int:
    x ^= x >> 16
    x = x * 0x7FEB352D & MASK
    x ^= x >> 15
    x = x * 0x846CA68B & MASK
    return x ^ x >> 16


@pytest.mark.parametrize(
    ("step", "seed", "slot", "index"),
    [(1, 0, 0, 0), (2, 7, 3, 12345), (1 << 24, MASK, 6, MASK), (1000, 1, 2, 5 << 32), (3, 3, 1, (77 << 40) + 9)],
)
def test_the_equation(step: int, seed: int, slot: int, index: int) -> None:
    key = mix(mix((step * 0x9E3779B9 + seed) & MASK) ^ slot // 2)
    hashed = mix((index & MASK) ^ ((key + (index >> 32) * 0x9E3779B9) & MASK))
    assert draws(step, seed, slot, index, 1).tolist() == [hashed & 0xFFFF if slot % 2 else hashed >> 16]


def test_a_known_draw() -> None:
    """So that a change, after which no run goes on as before, is seen."""
    assert draws(count=3).tolist() == [2488251732 >> 16, 3002921059 >> 16, 4258319090 >> 16]


@pytest.mark.parametrize("value", [1.0 + 2.0**-10, -3.14159, 1e-40, 6.02e23, 1.0 + 3 * 2.0**-9, 1 / 3])
def test_the_mean_is_the_value(value: float) -> None:
    format = FORMATS["stochastic_bf16"]
    values = np.full(DRAWS, value, np.float32)
    exact = np.float64(values[0])
    off = []  # in standard errors
    for step in range(1, 17):
        stored = format.load(*format.store(values, draws(step))).astype(np.float64)
        below, above = np.unique(stored)
        assert below < exact < above
        share = (exact - below) / (above - below)
        off.append((stored.mean() - exact) / (above - below) / np.sqrt(share * (1 - share) / DRAWS))
    assert np.mean(np.abs(off) < 2) > 0.85
    assert abs(np.sum(off)) / 4 < 3
    assert 0.6 < np.std(off) < 1.4


PAIRS = {
    "neighbours": ({}, {"first": 1}),
    "rows": ({}, {"first": 4096}),
    "steps": ({}, {"step": 2}),
    "later steps": ({"step": 999}, {"step": 1000}),
    "slots": ({}, {"slot": 2}),
    "halves of a hash": ({"slot": 2}, {"slot": 3}),
    "state": ({"slot": 3}, {"slot": 4}),
    "seeds": ({}, {"seed": 1}),
    "parameters": ({}, {"first": 1 << 40}),
    "halves of an index": ({}, {"first": 1 << 32}),
}


@pytest.mark.parametrize("pair", PAIRS)
def test_draws_are_not_correlated(pair: str) -> None:
    one, other = (draws(**arguments) for arguments in PAIRS[pair])
    assert abs(np.corrcoef(one.astype(np.float64), other.astype(np.float64))[0, 1]) < 0.02
    for bit in range(16):
        same = ((one ^ other) >> np.uint32(bit)) & np.uint32(1)
        assert abs(same.mean() - 0.5) < 0.01


def test_a_finite_value_stays_finite() -> None:
    format = FORMATS["stochastic_bf16"]
    bits = np.concatenate([np.arange(0x7F7F0000, 0x7F800000, dtype=np.uint32), np.arange(1 << 16, dtype=np.uint32)])
    values = np.concatenate([bits, bits | np.uint32(1 << 31)]).view(np.float32)
    for random in (0, 0x8000, 0xFFFF):
        (stored,) = format.store(values, np.full(values.size, random, np.uint32))
        assert np.isfinite(format.load(stored)).all()
        special = np.array([np.inf, -np.inf, np.nan], np.float32)
        (stored,) = format.store(special, np.full(3, random, np.uint32))
        np.testing.assert_array_equal(format.load(stored), special)


ORIGINS = [0, 2**32 - 777, (5 << 40) + 2**32 - 100_000]


@pytest.mark.parametrize("origin", ORIGINS)
@pytest.mark.parametrize("driver", [numpy, numba])
def test_pieces_have_the_bits_of_the_whole(driver, origin: int) -> None:
    rows, columns = 300, 500
    rng = np.random.default_rng(0)
    whole = [rng.standard_normal((rows, columns), np.float32) for _ in range(3)]
    hyper = ROUNDED.hyper_array([[1, 0, 0, 0.01, 0.9, 1, 1, 0, 0, *key_at(3, 5)]])

    def run(pieces: list[tuple[list[Array], Whereabouts]]) -> None:
        slots = [
            [each.ctypes.data if each is not None else 0 for each in (*arrays, None, None)] for arrays, _ in pieces
        ]
        numels = [arrays[0].size for arrays, _ in pieces]
        table = Table(ROUNDED, driver.TILE, numels, slots, [0] * len(pieces), whereabouts=[at for _, at in pieces])
        driver.run(table, hyper)

    def stored() -> list[Array]:
        p, g, m = whole
        halves = [FORMATS["bf16"].store(each, None)[0] for each in (p, m)]
        return [halves[0], g, halves[1]]

    expected = stored()
    run([(expected, Whereabouts(origin))])
    for cut in ("rows", "columns", "both"):
        made = stored()
        top, left = (97 if cut != "columns" else rows), (201 if cut != "rows" else columns)
        blocks = [
            (slice(*across), slice(*along))
            for across in ((0, top), (top, rows))
            for along in ((0, left), (left, columns))
            if across[0] < across[1] and along[0] < along[1]
        ]
        pieces = []
        for across, along in blocks:
            arrays = [np.ascontiguousarray(each[across, along]) for each in made]
            begin = origin + across.start * columns + along.start
            pieces.append((arrays, Whereabouts(begin, arrays[0].shape[1], columns)))
        run(pieces)
        for (across, along), (arrays, _) in zip(blocks, pieces, strict=True):
            assert arrays[0].tobytes() == expected[0][across, along].tobytes()
            assert arrays[2].tobytes() == expected[2][across, along].tobytes()
