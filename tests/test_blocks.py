"""Elements in blocks come back as their formats say, in NumPy, compiled by Numba and in C++.

1. Of any codes and scales, of any values, random bits and factors, and of any largest magnitude, all forms give the
   same bits; NaN stays NaN, its payload is free.
2. What was stored comes back to the same codes and scales, rounded to nearest, for every exponent of a scale; the
   largest of a block comes back to the bit, and keeps its sign.
3. Blocks of zeros, of one element, with NaN or infinity, of subnormals, and of the largest finite values.
4. Rounding is without bias, to one of the two neighbours, by as many random bits as a value lies above the lower one.
5. No square comes back as zero, unless all of its block are.
6. An average decays, and follows gradients that shrink tenfold at once, in the mean of its elements within 5% of the
   exact one, and with the noise in each that the documentation tells; the root of squares never makes of a rare
   gradient a larger step than exact arithmetic does, but for noise.
"""

from __future__ import annotations

from collections.abc import Callable

import numba
import numpy as np
import pytest
from kit import host_cuda
from numba.extending import register_jitable

from gpuopt.kernels import blocks
from gpuopt.kernels.drivers import numba as driver
from gpuopt.kernels.formats import BLOCK, EIGHT_BIT, FORMATS, Format
from gpuopt.kernels.prologue import Prologue
from gpuopt.kernels.random import key_at
from gpuopt.kernels.rules import RULES, adam
from gpuopt.kernels.table import Table
from gpuopt.kernels.variant import Variant, hyper_row
from gpuopt.verify.drawing import Array

IN_BLOCKS = {name: format for name, format in FORMATS.items() if format.in_blocks}

each_format = pytest.mark.parametrize("format", IN_BLOCKS.values(), ids=IN_BLOCKS)

NEAREST = 0x8000
"""Random bits that round to nearest."""

RNG = np.random.default_rng(0)


def largest_code(format: Format) -> int:
    return 127 if format is EIGHT_BIT["signed"] else 255


def any_floats(count: int) -> Array:
    return RNG.integers(0, 1 << 32, count, np.uint32).view(np.float32)


def wild(count: int) -> Array:
    """Finite values of all magnitudes."""
    values = any_floats(count)
    return np.where(np.isfinite(values), values, np.float32(1.5))


def stored(format: Format, values: Array, random: int | Array = NEAREST) -> tuple[Array, ...]:
    with np.errstate(all="ignore"):
        return blocks.store(format, np.float32(values), np.broadcast_to(np.uint32(random), values.shape))


def loaded(format: Format, planes: tuple[Array, ...]) -> Array:
    with np.errstate(all="ignore"):
        return blocks.load(format, planes)


def through(format: Format, values: Array, random: int | Array = NEAREST) -> Array:
    return loaded(format, stored(format, values, random))


def assert_equal_or_nan(one: Array, other: Array) -> None:
    assert one.dtype == other.dtype == np.float32
    assert ((one.view(np.uint32) == other.view(np.uint32)) | (np.isnan(one) & np.isnan(other))).all()


# The forms


@each_format
def test_loads_of_any_codes_and_scales(format: Format) -> None:
    codes = np.tile(np.arange(256, dtype=np.uint8), 4000)
    scales = np.repeat(any_floats(4000), 256)
    with np.errstate(all="ignore"):
        expected = format.load(codes, scales)
    load = register_jitable(format.compiled_load)

    @numba.njit(error_model="numpy")
    def loop(codes, scales):
        out = np.empty(codes.size, np.float32)
        for i in range(codes.size):
            out[i] = load(codes[i], scales[i])
        return out

    assert_equal_or_nan(loop(codes, scales), expected)
    assert_equal_or_nan(host_cuda.load(format, codes, scales), expected)


@each_format
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_codes_of_any_values(format: Format, dtype: type) -> None:
    count = 1_000_000
    with np.errstate(invalid="ignore"):
        values = np.concatenate([any_floats(count // 2), np.float32(RNG.standard_normal(count // 2))]).astype(dtype)
    random = RNG.integers(0, 1 << 16, count, np.uint32)
    top = np.float32(format.top)
    with np.errstate(all="ignore"):
        largest = np.abs(np.float32(values)) * np.float32(RNG.choice([1, 1.0001, 3, 1e3, 1e9], count))
        scales = blocks.scale_of(blocks.magnitude_of(largest))
        factors = blocks.factor_of(scales, top)
        (expected,) = format.store(values, random, factors)
    store = register_jitable(format.compiled_store)

    @numba.njit(error_model="numpy")
    def loop(values, random, factors):
        out = np.empty(values.size, np.uint8)
        for i in range(values.size):
            (out[i],) = store(values[i], random[i], factors[i])
        return out

    number = np.isfinite(scales)  # of any other the value is NaN whatever its code
    for codes in (loop(values, random, factors), host_cuda.codes(format, values, random, factors)):
        assert (codes == expected)[number].all()


@each_format
def test_scales_and_factors(format: Format) -> None:
    edges = [0, 1, 0x7FFFFF, 0x800000, 0x800001, 0x3F800000, 0x7F7FFFFF, 0x7F800000, 0x7F800001, 0x7FC00000, 0x7FFFFFFF]
    largest = np.concatenate([np.array(edges, np.uint32), RNG.integers(0, 1 << 31, 100_000, np.uint32)])
    top = format.top
    scales = blocks.scale_of(largest)
    with np.errstate(all="ignore"):
        factors = blocks.factor_of(scales, top)
    assert scales[:4].tolist() == [0, 2.0**-126, 2.0**-126, 2.0**-126]
    assert np.isnan(scales[7:11]).all()
    assert (factors[[0, 7, 8, 9, 10]] == 0).all()
    scale_of, factor_of = register_jitable(blocks.scale_of), register_jitable(blocks.factor_of)

    @numba.njit(error_model="numpy")
    def loop(largest):
        scales, factors = np.empty(largest.size, np.float32), np.empty(largest.size, np.float32)
        for i in range(largest.size):
            scales[i] = scale_of(largest[i])
            factors[i] = factor_of(scales[i], top)
        return scales, factors

    for forms in (loop(largest), host_cuda.scales(largest, format.top)):
        assert_equal_or_nan(forms[0], scales)
        assert_equal_or_nan(forms[1], factors)


# There and back


@each_format
def test_what_was_stored_comes_back_for_every_exponent(format: Format) -> None:
    top = largest_code(format)
    least = 1 if format is EIGHT_BIT["signed"] else 34  # below, squares are too small for float32 to tell
    for exponent in range(least, 255):
        for tail in (0, 1, 0x7FFFFF, 0x400000, 0x2AAAAA, 0x123457):
            scales = np.array([exponent << 23 | tail] * 2, np.uint32).view(np.float32)
            codes = np.arange(256, dtype=np.uint8)
            codes[[0, 128]] = top
            again = stored(format, loaded(format, (codes, scales)))
            assert again[0].tolist() == codes.tolist(), hex(exponent << 23 | tail)
            assert again[1].tobytes() == scales.tobytes()


@each_format
@pytest.mark.parametrize("random", [0, NEAREST, 0xFFFF])
def test_the_largest_of_a_block_comes_back_to_the_bit(format: Format, random: int) -> None:
    values = wild(BLOCK * 4000) if format is EIGHT_BIT["signed"] else np.abs(wild(BLOCK * 4000))
    values[np.abs(values) < 2.0**-126] = 1
    back = through(format, values, random).reshape(-1, BLOCK)
    at = np.abs(values).reshape(-1, BLOCK).argmax(axis=1), np.arange(4000)
    assert (back[at[::-1]] == values.reshape(-1, BLOCK)[at[::-1]]).all()


@each_format
@pytest.mark.parametrize("count", [1, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK + 5])
def test_blocks_of_zeros_and_ends(format: Format, count: int) -> None:
    codes, scales = stored(format, np.zeros(count, np.float32))
    assert not codes.any()
    assert scales.tolist() == [0] * -(-count // BLOCK)
    assert not loaded(format, (codes, scales)).any()
    values = np.zeros(count, np.float32)
    values[-1] = 3.25
    back = through(format, values, 0xFFFF)
    assert back[-1] == 3.25
    assert (np.abs(back[:-1]) <= 2.0**-31 * 3.25).all()


def test_no_elements() -> None:
    for format in IN_BLOCKS.values():
        assert [each.size for each in stored(format, np.empty(0, np.float32))] == [0, 0]


def test_signs_of_zeros_are_kept() -> None:
    values = np.array([0.0, -0.0, 1.0, -1.0], np.float32)
    assert np.signbit(through(FORMATS["signed8"], values)).tolist() == [False, True, False, True]


@each_format
@pytest.mark.parametrize("bits", [0x7F800000, 0xFF800000, 0x7FC00000, 0x7F800001, 0x7FFFFFFF, 0xFFFFFFFF])
def test_what_is_not_finite_makes_nan_of_its_block_and_of_no_other(format: Format, bits: int) -> None:
    values = np.ones(3 * BLOCK, np.float32)
    values[BLOCK + 77 : BLOCK + 78] = np.array([bits], np.uint32).view(np.float32)
    back = values
    for _ in range(2):
        back = through(format, back)
        assert np.isnan(back[BLOCK : 2 * BLOCK]).all()
        assert (back[:BLOCK] == 1).all()
        assert (back[2 * BLOCK :] == 1).all()


@each_format
def test_subnormals(format: Format) -> None:
    values = np.array([1e-45, 1e-40, 5e-39, 1.1754942e-38], np.float32)
    codes, scales = stored(format, values)
    assert scales.tolist() == [2.0**-126]
    back = loaded(format, (codes, scales))
    assert np.isfinite(back).all()
    assert (np.abs(back - values) <= np.float32(1e-39)).all()


@each_format
def test_the_largest_finite_values(format: Format) -> None:
    most = np.finfo(np.float32).max
    values = np.array([most, most / 2, 1e38, 1e30, 1e-45, 0], np.float32)
    for random in (0, NEAREST, 0xFFFF):
        back = through(format, values, random)
        assert np.isfinite(back).all()
        assert back[0] == most
        assert (np.abs(back[1:4] - values[1:4]) <= values[1:4] / 8 + most * np.float32(2e-6)).all()


# Rounding


def neighbours(format: Format) -> Array:
    """What the codes of a block say whose scale is 1, in order."""
    codes = np.arange(largest_code(format) + 1, dtype=np.uint8)
    return loaded(format, (codes, np.ones(-(-codes.size // BLOCK), np.float32)))


@each_format
def test_rounding_is_to_a_neighbour_and_without_bias(format: Format) -> None:
    grid = neighbours(format).astype(np.float64)
    assert (np.diff(grid) > 0).all()
    assert grid[-1] == 1
    draws = 1 << 14
    for share in np.concatenate([RNG.random(40), np.exp(RNG.uniform(-19, 0, 40)), [0.9375, 0.5, 0.51, 1e-3]]):
        values = np.full((draws, BLOCK), share, np.float32)
        values[:, 0] = 1
        back = through(format, values.ravel(), RNG.integers(0, 1 << 16, values.size, np.uint32)).reshape(values.shape)
        exact = np.float64(np.float32(share))
        above = np.searchsorted(grid, exact)
        assert set(np.unique(back[:, 1:])) <= {np.float32(grid[above - 1]), np.float32(grid[above])}
        step = grid[above] - grid[above - 1]
        at = (exact - grid[above - 1]) / step
        standard_error = step * np.sqrt(max(at * (1 - at), 1e-6) / (draws * (BLOCK - 1)))
        assert abs(back[:, 1:].astype(np.float64).mean() - exact) < 5 * standard_error + step * 2.0**-16


@each_format
def test_steps_are_shares_of_large_values_and_even_near_zero(format: Format) -> None:
    grid = neighbours(format).astype(np.float64)
    steps = np.diff(grid)
    large = grid[1:] > 2.0**-12
    assert (steps[large] / grid[1:][large]).max() < 1 / 8 + 1e-3
    if format is EIGHT_BIT["signed"]:
        assert grid[0] == 0
        assert np.allclose(steps[:7], 2.0**-19, rtol=1e-3)
    else:
        assert grid[0] == 2.0**-32 * 1.125


def test_no_square_becomes_zero_unless_its_block_is() -> None:
    values = np.abs(wild(BLOCK * 1000))
    values[::3] = 0
    values[::BLOCK] = np.exp(RNG.uniform(-30, 80, 1000))
    assert (through(FORMATS["square8"], values, 0) > 0).all()
    assert (through(FORMATS["square8"], values, 0xFFFF) > 0).all()


# In use


class Training:
    """Steps of Adam on one tensor, beside float64, by the Numba driver."""

    def __init__(self, numel: int, beta1: float, beta2: float) -> None:
        self.betas, self.count = (beta1, beta2), 0
        signed, square = EIGHT_BIT["signed"], EIGHT_BIT["square"]
        self.variant = Variant(RULES["adam"], (FORMATS["fp32"], FORMATS["fp32"], signed, square, None))
        self.arrays = [
            np.zeros(numel, np.float32),
            np.zeros(numel, np.float32),
            *(np.zeros(numel, np.uint8) for _ in range(2)),
            *(np.zeros(-(-numel // BLOCK), np.float32) for _ in range(2)),
        ]
        p, g, m, v, m_scales, v_scales = (each.ctypes.data for each in self.arrays)
        addresses = [p, g, m, v, 0, 0, 0, m_scales, v_scales]
        self.table = Table(self.variant, driver.TILE, [numel], [addresses], [0])
        self.exact = [np.zeros(numel) for _ in range(2)]

    def step(self, grad: Array) -> Array:
        """The update of each element, as a multiple of the learning rate."""
        self.count += 1
        self.arrays[0][:] = 0
        self.arrays[1][:] = grad
        hyper = adam.hyper_at(self.count, 1.0, *self.betas, 1e-30)
        driver.run(self.table, self.variant.hyper_array([hyper_row(Prologue(), hyper, key=key_at(self.count, 3))]))
        self.exact[0] += (grad - self.exact[0]) * (1 - self.betas[0])
        self.exact[1] += (np.square(grad, dtype=np.float64) - self.exact[1]) * (1 - self.betas[1])
        return np.abs(self.arrays[0])

    def exact_update(self) -> Array:
        m, v = self.exact
        beta1, beta2 = self.betas
        with np.errstate(all="ignore"):
            return np.abs(m / (1 - beta1**self.count) / np.sqrt(v / (1 - beta2**self.count)))

    def squares(self) -> Array:
        return loaded(EIGHT_BIT["square"], (self.arrays[3], self.arrays[5])).astype(np.float64)


@pytest.mark.parametrize(("beta2", "noise"), [(0.999, 0.25), (0.95, 0.18)])
def test_a_mean_of_squares_follows_gradients_that_shrink_tenfold(beta2: float, noise: float) -> None:
    training = Training(1 << 14, 0.9, beta2)
    for step in range(4000):
        training.step(np.float32(RNG.standard_normal(1 << 14)) * np.float32(1.0 if step < 1500 else 0.1))
        if step in (1499, 1600, 2000, 3000, 3999):
            ratio = training.squares() / training.exact[1]
            assert abs(ratio.mean() - 1) < 0.05, step
            assert noise / 2 < ratio.std() < noise, step


@pytest.mark.parametrize("betas", [(0.9, 0.999), (0.9, 0.95), (0.5, 0.3), (0.0, 0.9), (0.99, 0.9)])
def test_no_gradients_make_a_mean_larger_than_its_squares_allow(betas: tuple[float, float]) -> None:
    """And some reach it: those that grow as the ratio of both memories does."""
    beta1, beta2 = betas
    for count in (1, 2, 3, 10, 50):
        ages = np.arange(count - 1, -1, -1.0)
        worst = (beta1 / beta2) ** ages
        for grads in (worst, *RNG.standard_normal((20, count)), *np.exp(RNG.uniform(-9, 9, (20, count)))):
            m = ((1 - beta1) * beta1**ages * grads).sum()
            v = ((1 - beta2) * beta2**ages * grads**2).sum()
            ratio = v / m**2 / adam.least_ratio(count + 1, *betas)
            assert ratio >= 1 - 1e-9
            if grads is worst:
                assert ratio <= 1 + 1e-9
    assert adam.least_ratio(1, *betas) == 0


def test_where_nothing_is_known_of_a_mean_and_its_squares() -> None:
    assert [adam.least_ratio(5, *betas) for betas in ((0.9, 0.0), (0.5, 0.25))] == [0, 0]
    assert 0 <= adam.least_ratio(1 << 24, 0.999, 0.9) < 1e-30


@pytest.mark.parametrize("beta2", [0.999, 0.95])
def test_squares_are_taken_for_no_less_than_their_mean_allows(beta2: float) -> None:
    """So that codes of whatever they say make no step beyond that."""
    training = Training(1 << 10, 0.9, beta2)
    training.count = 500
    training.arrays[2][:] = RNG.integers(0, 256, 1 << 10)
    training.arrays[3][:] = 0
    training.arrays[4][:] = 1
    training.arrays[5][:] = 1
    update = training.step(np.zeros(1 << 10, np.float32))
    ratio = adam.least_ratio(501, 0.9, beta2) * beta2 / 0.81
    bias1, bias2 = 1 - 0.9**501, 1 - beta2**501
    assert update.max() <= np.sqrt(bias2 / ratio) / bias1 * 1.001


def test_the_largest_of_noisy_squares_grows() -> None:
    """By a quarter in so many steps, as the documentation tells of AMSGrad, and not by far more."""
    numel = 1 << 12
    signed, square = EIGHT_BIT["signed"], EIGHT_BIT["square"]
    ratios = []
    for formats in ((signed, square, square), (FORMATS["fp32"],) * 3):
        variant = Variant(RULES["adam"], (FORMATS["fp32"], FORMATS["fp32"], *formats))
        arrays = {name: np.zeros(plane.entries(numel), plane.storage) for name, (_, plane) in variant.planes.items()}
        addresses = [0] * variant.width
        for name, (column, _) in variant.planes.items():
            addresses[column] = arrays[name].ctypes.data
        table = Table(variant, driver.TILE, [numel], [addresses], [0])
        rng = np.random.default_rng(1)
        for step in range(1, 3001):
            arrays["grad"][:] = rng.standard_normal(numel)
            hyper = adam.hyper_at(step, 1e-3, 0.9, 0.999, 1e-8)
            driver.run(table, variant.hyper_array([hyper_row(Prologue(), hyper, key=key_at(step, 3))]))
        planes = [arrays[name] for name in arrays if name.startswith("max_exp_avg_sq")]
        ratios.append(blocks.load(variant.formats[4], planes).astype(np.float64).mean())
    assert 1.15 < ratios[0] / ratios[1] < 1.35


ONCE: dict[str, Callable[[int], float]] = {"large": lambda _: 0.05, "small": lambda _: 1e-3, "smallest": lambda _: 1e-5}


@pytest.mark.parametrize("once", ONCE)
@pytest.mark.parametrize("beta2", [0.999, 0.95])
def test_a_rare_gradient_beside_frequent_ones_makes_no_larger_steps_than_in_exact_arithmetic(
    once: str, beta2: float
) -> None:
    """Half of each block has a gradient once, and then none: rounded to nearest, its average would never end."""
    numel, largest, exact, way, exact_way = 1 << 10, 0.0, 0.0, np.zeros(1 << 9), 0.0
    training = Training(numel, 0.9, beta2)
    rare = np.arange(numel) % BLOCK < BLOCK // 2
    for step in range(3000):
        grad = np.float32(RNG.standard_normal(numel))
        grad[rare] = ONCE[once](step) if step == 200 else 0
        update = training.step(grad)[rare]
        largest = max(largest, float(update.max()))
        way += update
        if step >= 200:
            now = float(training.exact_update()[rare].max())
            exact, exact_way = max(exact, now), exact_way + now
    assert largest <= 1.25 * exact
    assert way.mean() <= 1.25 * exact_way
