"""Every form gives the bits of the NumPy form, in every slot, for every variant.

The NumPy driver is the oracle. Numba and the CUDA C++ of the CuPy driver, compiled for the host in both of its
forms, must equal it bit for bit over several steps with new gradients and new hyper each, two hyper rows in one
launch, tensors from no element to several tiles, aligned or not. Inputs span the whole range of each format:
subnormals, infinities and zeros of both signs count. A NaN must be a NaN on both sides; its payload is free. Nothing
outside the tensors is written. So it is for every pattern of 16 bits that a format may hold, and a million of 32.
"""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from kit import host_cuda
from kit.patterns import assert_loads, assert_stores
from kit.same import assert_equal_steps

from gpuopt.kernels.drivers import DRIVERS
from gpuopt.kernels.drivers import numba as numba_driver
from gpuopt.kernels.drivers.cuda_source import has_array_form
from gpuopt.kernels.formats import FORMATS
from gpuopt.kernels.prologue import Prologue
from gpuopt.kernels.rules import RULES
from gpuopt.kernels.variant import Variant
from gpuopt.verify.tensors import Tensors
from gpuopt.verify.variants import edge_hyper_rows, hyper_rows, variants

FORMS = {
    "numba": numba_driver.run,
    "cuda table": host_cuda.run_table,
    "cuda array": host_cuda.run_array,
}

TILE = 128
NUMELS = [0, 1, 2, 7, 8, 9, 127, TILE - 1, TILE, TILE + 1, 2 * TILE, 2 * TILE + 5, 0]

each_case = pytest.mark.parametrize(
    ("variant", "form"),
    [
        pytest.param(variant, form, id=f"{variant}-{form}")
        for variant in variants()
        for form in FORMS
        if form != "cuda array" or has_array_form(variant)
    ],
)


def assert_equal(form: str, tensors: Tensors, hypers: Sequence[Sequence[Sequence[float]]], tile: int = TILE) -> None:
    assert_equal_steps(FORMS[form], tensors, hypers, tile, form)


@each_case
@pytest.mark.parametrize("misaligned", [False, True, "grad"], ids=["aligned", "misaligned", "misaligned gradients"])
def test_steps(variant: Variant, form: str, misaligned: bool | str) -> None:
    tensors = Tensors(variant, NUMELS, seed=1, misaligned=misaligned)
    assert_equal(form, tensors, [hyper_rows(variant, step) for step in range(3)])


@each_case
def test_hyper_at_its_edges(variant: Variant, form: str) -> None:
    rows = edge_hyper_rows(variant)
    assert_equal(form, Tensors(variant, [TILE + 3] * len(rows), seed=2), [rows, rows])


@each_case
def test_a_prologue_that_changes_nothing(variant: Variant, form: str) -> None:
    """The Numba driver leaves it out, in code compiled for that."""
    bare = [[hyper_rows(variant, step)[1]] * 2 for step in range(2)]
    assert all(row[: len(Prologue._fields)] == list(Prologue()) for rows in bare for row in rows)
    assert_equal(form, Tensors(variant, NUMELS, seed=3), bare)


@each_case
def test_nothing_to_do(variant: Variant, form: str) -> None:
    for numels in ([], [0], [0, 0, 0]):
        assert_equal(form, Tensors(variant, numels), [hyper_rows(variant, 1)])


@pytest.mark.parametrize("form", ["numba", "cuda table"])
@pytest.mark.parametrize("name", FORMATS)
def test_patterns(name: str, form: str) -> None:
    for assert_forms in (assert_loads, assert_stores):
        assert_forms(FORMS[form], name, DRIVERS["numba"].load().TILE, drawn=1_000_000)


@pytest.mark.parametrize("form", [form for form in FORMS if form in DRIVERS])
@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_a_drivers_own_tile(rule, form: str) -> None:
    variant = Variant(rule, (FORMATS["fp32"],) * (2 + len(rule.slots)))
    tile = DRIVERS[form].load().TILE
    tensors = Tensors(variant, [tile - 1, tile, tile + 1, 3 * tile + 5], seed=3)
    assert_equal(form, tensors, [hyper_rows(variant, 1)], tile)
