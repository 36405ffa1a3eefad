"""What holds for any list of tensors, whatever their number, sizes, alignment and hyper rows.

- A table of many tensors gives the bits of its tensors one by one, and of any other tile.
- Nothing is written outside the written elements of the table: not beside them, and not the gradients.
- Moving a slot or assigning other hyper rows gives what a new table would give.
- Tiles cover every element of every tensor exactly once.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kit import host_cuda
from kit.same import assert_guarded, assert_same_bits

from gpuopt.kernels.drivers import numba as numba_driver
from gpuopt.kernels.drivers import numpy as numpy_driver
from gpuopt.kernels.formats import FORMATS
from gpuopt.kernels.rules import RULES
from gpuopt.kernels.table import ALIGNMENT, FAST_NUMEL, FIRST_TILE, NUMEL, POINTERS
from gpuopt.kernels.variant import Variant
from gpuopt.verify.drawing import bits
from gpuopt.verify.tensors import Tensors
from gpuopt.verify.variants import hyper_rows, with_epilogue

RUNS = {
    "numpy": numpy_driver.run,
    "numba": numba_driver.run,
    "cuda table": host_cuda.run_table,
    "cuda array": host_cuda.run_array,
}

VARIANTS = [
    Variant(RULES["adam"], (*(FORMATS[name] for name in ("fp32", "bf16", "fp32", "bf16")), None)),
    Variant(RULES["rmsprop"], tuple(FORMATS[name] for name in ("fp16", "fp64", "fp32", "bf16", "fp64"))),
    Variant(RULES["sgd"], (FORMATS["bf16"], FORMATS["bf16"], None)),
    with_epilogue(RULES["adagrad"], "fp32", "fp16", "fp32", "fp32", "bf16", zero_grads=False),
]
"""Few, so that few are compiled: unlike formats, an absent slot, every number of slots, average and copy."""

TILES = {"cuda table": [32], "cuda array": [32]}
"""Each tile is a compilation of its own in C++."""

shapes = st.lists(st.integers(0, 9), min_size=0, max_size=3)
lists = st.lists(shapes.map(math.prod) | st.sampled_from([31, 32, 33, 64, 200]), min_size=0, max_size=8)


@st.composite
def cases(draw: st.DrawFn) -> tuple[Tensors, list[int]]:
    """Tensors of any variant and the hyper row of each."""
    numels = draw(lists)
    tensors = Tensors(
        draw(st.sampled_from(VARIANTS)),
        numels,
        seed=draw(st.integers(0, 1 << 32)),
        misaligned=draw(st.sampled_from([False, True, "grad"])),
    )
    return tensors, draw(st.lists(st.integers(0, 1), min_size=len(numels), max_size=len(numels)))


each_driver = pytest.mark.parametrize("driver", RUNS)
examples = settings(max_examples=60, deadline=None, derandomize=True, database=None)


@each_driver
@examples
@given(case=cases(), data=st.data())
def test_a_table_is_its_tensors_one_by_one(driver: str, case: tuple[Tensors, list[int]], data: st.DataObject) -> None:
    tensors, rows = case
    one_by_one = tensors.copy()
    hyper = tensors.variant.hyper_array(hyper_rows(tensors.variant, 1))
    tiles = st.sampled_from(TILES.get(driver, [8, 24, 32, 1 << 15]))
    RUNS[driver](tensors.table(data.draw(tiles), rows), hyper)
    for table in one_by_one.single_tables(data.draw(tiles), rows):
        RUNS[driver](table, hyper)
    assert_same_bits(tensors, one_by_one, driver)


@each_driver
@examples
@given(case=cases())
def test_nothing_else_is_written(driver: str, case: tuple[Tensors, list[int]]) -> None:
    tensors, rows = case
    before = tensors.copy()
    table = tensors.table(32, rows)
    numbers = table.rows.copy(), table.tile_tensor.copy()
    hyper = tensors.variant.hyper_array(hyper_rows(tensors.variant, 1))
    scalars = hyper.copy()
    RUNS[driver](table, hyper)
    assert_guarded(tensors)
    for tensor in range(len(tensors.numels)):
        # Bit for bit, NaN payloads too: a gradient is not even written back.
        assert np.array_equal(bits(tensors.stored(tensor, "grad")), bits(before.stored(tensor, "grad")))
    assert np.array_equal(hyper, scalars)
    assert all(map(np.array_equal, numbers, (table.rows, table.tile_tensor)))


@each_driver
@examples
@given(case=cases(), seed=st.integers(0, 99), slot=st.sampled_from(["param", "grad"]))
def test_a_changed_table_is_a_new_one(driver: str, case: tuple[Tensors, list[int]], seed: int, slot: str) -> None:
    tensors, rows = case
    other = Tensors(tensors.variant, tensors.numels, seed)
    hyper = tensors.variant.hyper_array(hyper_rows(tensors.variant, 1))
    table = tensors.table(32)
    RUNS[driver](table, hyper)
    expected, expected_other = tensors.copy(), other.copy()
    column = tensors.variant.slots.index(slot)

    table.move(slot, [addresses[column] for addresses in other.addresses()])
    table.assign_hyper_rows(rows)
    RUNS[driver](table, hyper)

    mixed = expected.copy()
    mixed.buffers = [
        {**mine, slot: theirs[slot]} for mine, theirs in zip(expected.buffers, expected_other.buffers, strict=True)
    ]
    mixed.fronts = [{**mine, slot: theirs[slot]} for mine, theirs in zip(expected.fronts, other.fronts, strict=True)]
    new = mixed.table(32, rows)
    assert np.array_equal(table.rows[:, :POINTERS], new.rows[:, :POINTERS])
    RUNS[driver](new, hyper)
    assert_same_bits(tensors, expected, driver)
    assert_same_bits(other, expected_other, driver)


@examples
@given(numels=lists, tile=st.sampled_from([1, 8, 32, 1000]))
def test_tiles_cover_each_element_once(numels: list[int], tile: int) -> None:
    tensors = Tensors(VARIANTS[-1], numels)
    table = tensors.table(tile)
    seen = [np.zeros(numel, int) for numel in numels]
    for index, tensor in enumerate(table.tile_tensor):
        start = (index - table.rows[tensor, FIRST_TILE]) * tile
        assert 0 <= start < table.rows[tensor, NUMEL]
        seen[tensor][start : start + tile] += 1
    assert all((counts == 1).all() for counts in seen)


@examples
@given(case=cases())
def test_wide_accesses_are_allowed_where_every_slot_but_the_gradient_is_aligned(
    case: tuple[Tensors, list[int]],
) -> None:
    tensors, _ = case
    grad = tensors.variant.slots.index("grad")
    for row, addresses in zip(tensors.table(32).rows, tensors.addresses(), strict=True):
        aligned = all(address % ALIGNMENT == 0 for address in np.delete(addresses, grad))
        assert row[FAST_NUMEL] == (row[NUMEL] if aligned else 0)
