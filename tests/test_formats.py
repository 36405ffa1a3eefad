"""A format's load is exact and its store rounds as it says, in NumPy, compiled by Numba and in C++.

The references are ml_dtypes' bfloat16 and NumPy's float16. Loads are compared for every stored value of 16 bits; stores
for every value halfway between two neighbours, both neighbours of each of these in float32, every exponent, and a
large sample of random float32 bits. NaN stays NaN; its payload is free. A float64 value rounds to float32 first.

1. Formats of one plane that are not random round to nearest, ties to even.
2. A split float32 comes back to the bit; rounded to 24 bits, the nearest one does, ties to even. The high plane is the
   nearest bfloat16 of what comes back, of two as near the one away from zero. NaN has nothing in its low plane, and no
   low plane makes NaN of what is none.
3. Stochastic rounding gives one of the two neighbours, the upper one for so many of the random bits as the value lies
   above the lower one; what bfloat16 holds stays as it is, and what is finite stays finite.
4. Of any entries in any planes, also such as no store makes, all forms load the same, and all store the same of them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import ml_dtypes
import numba
import numpy as np
import pytest
from kit import host_cuda
from numba.extending import register_jitable

from gpuopt.kernels.drivers import numba as _  # noqa: F401 (it teaches Numba to compile select)
from gpuopt.kernels.formats import BY_DTYPE, FORMATS, Format
from gpuopt.verify.compare import different
from gpuopt.verify.drawing import Array, whole_range
from gpuopt.verify.variants import UNIFORM

REFERENCE = {"bf16": np.dtype(ml_dtypes.bfloat16), "fp16": np.dtype(np.float16)}
"""The narrow formats of one plane, and who knows them."""

EVERY = np.arange(1 << 16, dtype=np.uint16)


def numpy_load(format: Format, *planes: Array) -> Array:
    with np.errstate(all="ignore"):
        return format.load(*planes)


def numba_load(format: Format, *planes: Array) -> Array:
    wide = format.planes[0].dtype == "float64"
    return _compiled_load(format.compiled_load, len(planes))(np.empty(planes[0].size, "f8" if wide else "f4"), *planes)


def numpy_store(format: Format, values: Array, random: Array | None = None) -> list[Array]:
    with np.errstate(all="ignore"):
        entries = format.store(values, random)
        return [each.astype(plane.storage) for each, plane in zip(entries, format.planes, strict=True)]


def numba_store(format: Format, values: Array, random: Array | None = None) -> list[Array]:
    planes = [np.empty(values.size, plane.storage) for plane in format.planes]
    bits = np.zeros(values.size, np.uint32) if random is None else random
    _compiled_store(format.compiled_store, len(planes))(values, bits, *planes)
    return planes


def _compiled_load(function: Callable[..., Any], planes: int) -> Callable[..., Array]:
    """A load over arrays, as the Numba driver compiles it."""
    scalar = register_jitable(function)
    if planes == 2:

        @numba.njit(error_model="numpy")
        def loop_of_two(out, high, low):
            for i in range(out.size):
                out[i] = scalar(high[i], low[i])
            return out

        return loop_of_two

    @numba.njit(error_model="numpy")
    def loop(out, stored):
        for i in range(out.size):
            out[i] = scalar(stored[i])
        return out

    return loop


def _compiled_store(function: Callable[..., Any], planes: int) -> Callable[..., None]:
    scalar = register_jitable(function)
    if planes == 2:

        @numba.njit(error_model="numpy")
        def loop_of_two(values, random, high, low):
            for i in range(values.size):
                high[i], low[i] = scalar(values[i], random[i])

        return loop_of_two

    @numba.njit(error_model="numpy")
    def loop(values, random, stored):
        for i in range(values.size):
            (stored[i],) = scalar(values[i], random[i])

    return loop


each_narrow = pytest.mark.parametrize("format", [FORMATS[name] for name in REFERENCE], ids=REFERENCE)
ALONE = {name: format for name, format in FORMATS.items() if not format.in_blocks}
"""Formats that store elements one by one."""

each_format = pytest.mark.parametrize("format", ALONE.values(), ids=ALONE)
each_load = pytest.mark.parametrize("load", [numpy_load, numba_load, host_cuda.load], ids=["numpy", "numba", "cuda"])
each_store = pytest.mark.parametrize(
    "store", [numpy_store, numba_store, host_cuda.store], ids=["numpy", "numba", "cuda"]
)


def midpoints(name: str) -> Array:
    """Every float32 halfway between two neighbours of a narrow format, and past its largest value."""
    with np.errstate(invalid="ignore"):
        values = np.unique(EVERY.view(REFERENCE[name]).astype(np.float64))
    finite = values[np.isfinite(values)]
    halfway = (finite[1:] + finite[:-1]) / 2
    overflow = finite[-1] + (finite[-1] - finite[-2]) / 2
    with np.errstate(over="ignore"):
        return np.array([*halfway, overflow, -overflow], np.float32)


def sample(name: str = "bf16") -> Array:
    """float32 values that show every kind of rounding."""
    ties = midpoints(name)
    heads = np.arange(1 << 16, dtype=np.uint32) << 16
    tails = np.array([0, 1, 0x7F, 0x80, 0x81, 0x180, 0x7F7F, 0x7F80, 0x7FFF, 0x8000, 0x8001, 0xFFFF], np.uint32)
    drawn = np.random.default_rng(0).integers(0, 1 << 32, 1_000_000, np.uint32)
    bits = np.concatenate([(heads[:, None] | tails).ravel(), drawn])
    with np.errstate(over="ignore"):
        beside = [np.nextafter(ties, np.float32(side)) for side in (-np.inf, np.inf)]
    return np.concatenate([ties, *beside, bits.view(np.float32)])


def random_bits(count: int, seed: int = 5) -> Array:
    """16 of them, half at an edge."""
    rng = np.random.default_rng(seed)
    drawn = rng.integers(0, 1 << 16, count, np.uint32)
    edges = rng.choice(np.array([0, 1, 0x7FFF, 0x8000, 0xFFFF], np.uint32), count)
    return np.where(rng.random(count) < 0.5, drawn, edges)


def assert_same(format: Format, got: list[Array], expected: list[Array], given: Array) -> None:
    for plane, (differ, one, other) in enumerate(zip(different(format, got, expected), got, expected, strict=True)):
        at = int(differ.argmax())
        assert not differ.any(), (
            f"{given[at]!r}: plane {plane} is {one[at]:#x}, expected {other[at]:#x}, and {differ.sum()} in all"
        )


@each_narrow
@each_load
def test_every_load_is_exact(format: Format, load: Callable[..., Array]) -> None:
    with np.errstate(invalid="ignore"):
        expected = EVERY.view(REFERENCE[format.name]).astype(np.float32)
        got = load(format, EVERY)
    assert got.dtype == np.float32
    assert_same(FORMATS["fp32"], [got], [expected], EVERY)


@each_narrow
@each_store
def test_a_store_rounds_to_nearest_even(format: Format, store: Callable[..., list[Array]]) -> None:
    values = sample(format.name)
    with np.errstate(all="ignore"):
        expected = values.astype(REFERENCE[format.name]).view(np.uint16)
    assert_same(format, store(format, values), [expected], values)


@each_narrow
@each_store
def test_a_store_from_float64_rounds_to_float32_first(format: Format, store: Callable[..., list[Array]]) -> None:
    # Just past a tie: rounded at once these go up, by way of float32 they become the tie, which goes to even.
    past = midpoints(format.name).astype(np.float64) * (1 + 2.0**-40)
    values = np.concatenate([past, np.random.default_rng(1).integers(0, 1 << 64, 100_000, np.uint64).view(np.float64)])
    with np.errstate(all="ignore"):
        expected = values.astype(np.float32).astype(REFERENCE[format.name]).view(np.uint16)
        at_once = values.astype(REFERENCE[format.name]).view(np.uint16)
    assert_same(format, store(format, values), [expected], values)
    if format.name == "fp16":  # ml_dtypes itself goes by way of float32
        assert different(format, [expected], [at_once])[0].sum() > 10_000


@each_format
@each_store
def test_a_store_undoes_a_load(format: Format, store: Callable[..., list[Array]]) -> None:
    random = random_bits(100_000) if format.is_random else None
    with np.errstate(all="ignore"):
        given = sample()[-100_000:].astype(np.float64 if format.planes[0].dtype == "float64" else np.float32)
    planes = numpy_store(format, given, random)
    values = numpy_load(format, *planes)
    assert_same(format, store(format, values, random), planes, values)


@each_format
@each_load
@each_store
def test_forms_agree_on_any_entries(
    format: Format, load: Callable[..., Array], store: Callable[..., list[Array]]
) -> None:
    rng = np.random.default_rng(6)
    drawn = whole_range(format, 300_000, rng)
    planes = [each.view(plane.storage) for each, plane in zip(drawn, format.planes, strict=True)]
    values = numpy_load(format, *planes)
    wide = BY_DTYPE["float64" if values.dtype == np.float64 else "float32"]
    assert_same(wide, [load(format, *planes)], [values], values)
    random = random_bits(values.size) if format.is_random else None
    with np.errstate(all="ignore"):
        others = values * values.dtype.type(1.1)
    assert_same(format, store(format, others, random), numpy_store(format, others, random), others)


@each_store
@pytest.mark.parametrize("name", [name for name in ALONE if name not in UNIFORM])
def test_stores_of_all_kinds_of_values_agree(name: str, store: Callable[..., list[Array]]) -> None:
    format, values = FORMATS[name], sample()
    random = random_bits(values.size) if format.is_random else None
    assert_same(format, store(format, values, random), numpy_store(format, values, random), values)
    with np.errstate(all="ignore"):
        wide = values.astype(np.float64) * (1 + 2.0**-26)
    assert_same(format, store(format, wide, random), numpy_store(format, wide, random), wide)


def test_a_split_float32_comes_back_to_the_bit() -> None:
    format, values = FORMATS["split32"], sample()
    high, low = numpy_store(format, values)
    back = numpy_load(format, high, low)
    assert (back.view(np.uint32) == values.view(np.uint32))[~np.isnan(values)].all()
    assert np.isnan(back[np.isnan(values)]).all()
    assert (np.signbit(back) == np.signbit(values)).all()
    _assert_high_is_nearest(values, high)
    assert not low[np.isnan(values)].any()


def test_a_float32_split_into_24_bits_is_the_nearest() -> None:
    format, values = FORMATS["split24"], sample()
    high, low = numpy_store(format, values)
    back = numpy_load(format, high, low)
    bits = values.view(np.uint32).astype(np.uint64)
    below, tail = bits >> 8, bits & 0xFF
    up = (tail > 0x80) | ((tail == 0x80) & (below & 1 == 1))
    expected = ((below + up) << 8).astype(np.uint32)
    assert (back.view(np.uint32) == expected)[~np.isnan(values)].all()
    assert np.isnan(back[np.isnan(values)]).all()
    _assert_high_is_nearest(back, high)
    assert not low[np.isnan(values)].any()
    assert np.isinf(back[values == np.float32(3.4028234663852886e38)]).all()


@each_load
@pytest.mark.parametrize("name", ["split32", "split24"])
def test_what_others_write_to_the_high_plane_is_no_nan(name: str, load: Callable[..., Array]) -> None:
    format = FORMATS[name]
    low_type = format.planes[1].storage.type
    for low in (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF):
        planes = EVERY, np.full(EVERY.size, low & np.iinfo(low_type).max, low_type)
        with np.errstate(invalid="ignore"):
            high, values = numpy_load(FORMATS["bf16"], EVERY), load(format, *planes)
            assert (np.isnan(values) == np.isnan(high)).all()
            off = np.abs(values.view(np.int32).astype(np.int64) - high.view(np.int32))
        assert (off[~np.isnan(high)] <= 0x8000).all()


def _assert_high_is_nearest(values: Array, high: Array) -> None:
    """As rounding to nearest even, but for ties, which go away from zero; a NaN is quiet and keeps its sign."""
    number = ~np.isnan(values)
    bits = values.view(np.uint32)
    away = ((bits.astype(np.uint64) + 0x8000) >> 16).astype(np.uint16)
    assert (high == away)[number].all()
    (nearest,) = numpy_store(FORMATS["bf16"], values)
    is_tie = (bits & 0xFFFF) == 0x8000
    assert (high == nearest)[number & ~is_tie].all()
    assert (high != nearest)[number & is_tie].any()
    assert (high[~number] == (0x7FC0 | (bits[~number] >> 16 & 0x8000))).all()


def test_stochastic_rounding_is_to_a_neighbour_by_as_many_random_bits_as_the_value_is_above_the_lower() -> None:
    format = FORMATS["stochastic_bf16"]
    values = sample()
    random = random_bits(values.size)
    (stored,) = numpy_store(format, values, random)
    bits = values.view(np.uint32)
    up = (bits & 0xFFFF) + random > 0xFFFF
    expected = ((bits >> 16) + up).astype(np.uint16)
    largest = np.array([0x7F7F, 0xFF7F], np.uint16)[(bits >> 31).astype(int)]
    expected = np.where(np.isfinite(values) & (expected & 0x7FFF == 0x7F80), largest, expected)
    number = ~np.isnan(values)
    assert (stored == expected)[number].all()
    assert np.isfinite(numpy_load(format, stored))[np.isfinite(values)].all()
    assert np.isnan(numpy_load(format, stored))[~number].all()


@each_store
def test_fp32_rounds_float64_to_nearest_even(store: Callable[..., list[Array]]) -> None:
    format = FORMATS["fp32"]
    near = np.random.default_rng(3).standard_normal(100_000)
    whole = np.random.default_rng(4).integers(0, 1 << 64, 100_000, np.uint64).view(np.float64)
    values = np.concatenate([near, whole, [1 + 2.0**-24, 1 + 3 * 2.0**-24, 2.0**-150, 3 * 2.0**-150]])
    with np.errstate(all="ignore"):
        expected = values.astype(np.float32)
    assert expected[-4:].tolist() == [1.0, 1 + 2.0**-22, 0.0, 2.0**-148]
    assert_same(format, store(format, values), [expected], values)


def test_a_format_has_one_or_two_planes() -> None:
    format = FORMATS["split32"]
    for planes in ((), (*format.planes, format.planes[0])):
        with pytest.raises(ValueError, match=r"^x must have 1 to 2 planes, but has [03]$"):
            replace(format, name="x", planes=planes)


def test_scales_are_for_a_format_in_blocks_alone() -> None:
    alone, in_blocks = FORMATS["split32"], FORMATS["signed8"]
    for format in (
        {"planes": in_blocks.planes, "top": None},
        {"planes": in_blocks.planes[::-1], "top": 1.0},
        {"planes": in_blocks.planes[:1], "top": 1.0},
    ):
        with pytest.raises(
            ValueError, match=r"^x must have codes and scales if it has a top, and else no scales, but "
        ):
            replace(alone, name="x", **format)


def test_the_registry_is_consistent() -> None:
    for name, format in FORMATS.items():
        assert format.name == name
        assert format.itemsize == sum(np.dtype(plane.storage).itemsize / plane.block for plane in format.planes)
        for numel in (0, 1, 127, 128, 129):
            blocks = -(-numel // 128) if format.in_blocks else numel
            scales = {True: 4 * blocks, False: 0}[format.in_blocks]
            assert format.nbytes(numel) - scales == numel * (1 if format.in_blocks else format.itemsize)
        if name in REFERENCE:
            assert REFERENCE[name].name == format.planes[0].dtype
    for dtype, format in BY_DTYPE.items():
        assert [plane.dtype for plane in format.planes] == [dtype]
        assert not format.is_random
