"""The global norm of gradients, and the factor that clips it.

1. Sums of squares of all drivers for host memory are within ``NORM`` of the exact sum, for every format, whatever the
   sizes, tile and alignment; the same gradients give the same bits again, in other memory and on any number of threads.
   Numba adds several squares at once: a pass that does not is limited by arithmetic, where memory should be the limit.
2. A table without elements has the sum 0.
3. An infinite gradient makes the sum infinite and a NaN makes it NaN, wherever it is; the largest float32 does not.
4. The sum of a part is that of its own gradients, but an infinite or undefined one of any row, even of part -1, which
   counts in none, makes the sums of the others NaN.
5. The norm is the root of all sums over the loss scale. The factor is ``min(1, max_norm / (norm + 1e-6))``: 1 for a
   norm of 0, 0 for an infinite one, NaN for NaN; and it is that of torch.nn.utils.

``interpreted/test_triton_gradnorm.py`` has the same for the Triton driver, whose kernel CuPy's driver launches too.
"""

from __future__ import annotations

import platform
import re
from math import inf, isnan, nan, sqrt

import numba
import numpy as np
import pytest
import torch
from kit.squares import BAD, assert_close, assert_parts, assert_shows, of_format

from gpuopt.kernels.drivers import DRIVERS as REGISTRY
from gpuopt.kernels.drivers import numba as numba_driver
from gpuopt.kernels.gradnorm import clip_factor, norm_of
from gpuopt.kernels.rules import RULES
from gpuopt.kernels.variant import slots_of
from gpuopt.plan import Tensor, select_all
from gpuopt.verify.tensors import Tensors
from gpuopt.verify.variants import UNIFORM

DRIVERS = {name: entry.load() for name, entry in REGISTRY.items() if entry.device == "cpu"}

TILE = 128
NUMELS = [0, 1, 7, 8, 9, 63, 64, 65, TILE - 1, TILE, TILE + 1, 5 * TILE + 3, 5000]

each_driver = pytest.mark.parametrize("driver", DRIVERS)
each_format = pytest.mark.parametrize("name", UNIFORM)


def sum_squares(driver):
    module = DRIVERS[driver]
    return lambda table, *part: module.sum_squares(table, module.place(table, np.zeros((1, 1))), *part)


@each_driver
@each_format
@pytest.mark.parametrize("misaligned", [False, True, "grad"], ids=["aligned", "misaligned", "misaligned gradients"])
def test_sums_are_nearly_exact(name: str, driver: str, misaligned: bool | str) -> None:
    for tile in (TILE, DRIVERS[driver].TILE):
        assert_close(sum_squares(driver), name, tile, NUMELS, misaligned)


@pytest.mark.skipif(platform.machine() != "x86_64", reason="reads the code for x86-64")
@each_format
@pytest.mark.parametrize("parallel", [False, True])
def test_squares_are_added_by_simd(parallel: bool, name: str) -> None:
    table = Tensors(of_format(name), [5000]).table(TILE)
    compiled = numba.njit(numba_driver._sum_squares(table.variant.formats[1]), error_model="numpy", parallel=parallel)
    compiled.compile(tuple(map(numba.typeof, (table.rows, table.tile_tensor, np.zeros(1), table.tile, 0))))
    (code,) = compiled.inspect_asm().values()
    assert len(re.findall(r"vaddpd\s.*%[yz]mm", code)) >= numba_driver.LANES // 8  # of which a serial loop has fewer


@each_driver
@pytest.mark.parametrize("numels", [[], [0], [0, 0, 0]], ids=str)
def test_nothing_has_the_sum_zero(driver: str, numels: list[int]) -> None:
    sums = sum_squares(driver)(Tensors(of_format("bf16"), numels).table(TILE))
    assert sums.sum() == 0
    assert norm_of([sums]) == 0


@each_driver
@each_format
@pytest.mark.parametrize("bad", BAD.values(), ids=BAD)
def test_what_is_not_finite_shows(name: str, driver: str, bad: float) -> None:
    assert_shows(sum_squares(driver), name, TILE, [0, 1, 9, TILE, 2 * TILE + 5], bad)


@each_driver
@each_format
def test_parts(name: str, driver: str) -> None:
    assert_parts(sum_squares(driver), name, TILE, [5, 9, TILE + 1, 2 * TILE, 3 * TILE + 5, 0, 1])


@each_driver
def test_a_plan_keeps_the_part_of_each_tensor(driver: str) -> None:
    rule = RULES["sgd"]
    grads = {1: np.full(3, 2.0), -1: np.full(3, 4.0), 0: np.full(5, 3.0)}
    tensors = [
        Tensor(f"{part}", [np.zeros_like(grad), grad, *[None] * (len(slots_of(rule)) - 2)], part)
        for part, grad in grads.items()
    ]
    selection = select_all(rule, tensors, DRIVERS[driver])
    selection.place([[0.5] * len(launch.table.variant.hyper_fields) for launch in selection.launches])
    assert [sum(sums.sum() for sums in selection.sum_squares(*part)) for part in ((), (0,), (1,), (2,))] == [
        45,
        45,
        12,
        0,
    ]


@each_driver
def test_the_largest_float32_does_not_overflow(driver: str) -> None:
    tensors = Tensors(of_format("fp32"), [1000])
    largest = np.finfo(np.float32).max
    tensors.stored(0, "grad")[:] = -largest
    total = sum_squares(driver)(tensors.table(TILE)).sum()
    assert total == pytest.approx(1000 * float(largest) ** 2, rel=1e-13)


def test_the_number_of_threads_does_not_matter() -> None:
    tensors = Tensors(of_format("fp32"), [numba_driver.NUMEL_PER_THREAD * 3 + 5], ordinary_share=1.0)
    table = tensors.table(1000)
    most = numba.get_num_threads()
    sums = []
    for threads in range(1, most + 1):
        numba.set_num_threads(threads)
        sums.append(sum_squares("numba")(table).tobytes())
    numba.set_num_threads(most)
    assert len(set(sums)) == 1


def test_norm_is_the_root_of_all_sums() -> None:
    partials = [np.array([9.0, 7.0]), np.array([]), np.array([9.0])]
    assert norm_of(partials) == 5
    assert norm_of(partials, 2.0) == 2.5
    assert norm_of([]) == 0
    assert norm_of([np.array([1.0, inf])]) == inf
    assert isnan(norm_of([np.array([1.0, nan])]))
    assert norm_of(partials, 0.0) == inf
    assert isnan(norm_of([], 0.0))
    assert norm_of([np.array([1e308, 1e308])]) == inf
    assert norm_of([np.array([2.0])]) == sqrt(2)


@pytest.mark.parametrize(
    ("norm", "max_norm", "expected"),
    [
        (0.0, 1.0, 1.0),
        (0.0, 0.0, 0.0),
        (0.5, 1.0, 1.0),
        (4.0, 1.0, 1.0 / (4.0 + 1e-6)),
        (1.0, 1.0, 1.0 / (1.0 + 1e-6)),
        (2.0, inf, 1.0),
        (inf, 1.0, 0.0),
    ],
)
def test_the_factor_is_that_of_the_formula_and_of_torch(norm: float, max_norm: float, expected: float) -> None:
    assert clip_factor(norm, max_norm) == expected
    parameter = torch.nn.Parameter(torch.zeros(1, dtype=torch.float64))
    parameter.grad = torch.tensor([min(norm, 1.0)], dtype=torch.float64)
    torch.nn.utils.clip_grads_with_norm_(parameter, max_norm, torch.tensor(norm, dtype=torch.float64))
    assert parameter.grad.item() == min(norm, 1.0) * expected


def test_an_undefined_norm_has_an_undefined_factor() -> None:
    assert isnan(clip_factor(nan, 1.0))
    assert isnan(clip_factor(inf, inf))
