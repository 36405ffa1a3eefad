"""The Triton driver, interpreted, computes the global norm and the clip factor as ``test_gradnorm.py`` says.

Beyond that contract: more tiles than programs leave no tile out; the program that ends the norm is within ``NORM`` of
the host's ``norm_of`` for any number of sums, and the factor that it writes is the host's ``clip_factor`` of the norm
that it writes, bit for bit; both are written in float64 and, rounded once, in float32.
"""

from __future__ import annotations

import numpy as np
import pytest
from kit.squares import BAD, assert_close, assert_ends, assert_parts, assert_shows, of_format

from gpuopt.kernels.drivers import triton as driver
from gpuopt.kernels.drivers import triton_norm
from gpuopt.kernels.table import Table
from gpuopt.verify.tensors import Tensors
from gpuopt.verify.variants import UNIFORM

# The interpreter computes with NumPy, which warns where infinities and NaN arise.
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")

TILE = 256
NUMELS = [0, 1, 127, 128, 129, TILE - 1, TILE, TILE + 1, 3 * TILE + 130]

each_format = pytest.mark.parametrize("name", UNIFORM)


def sum_squares(table: Table, part: int = 0) -> np.ndarray:
    hyper = table.variant.hyper_array([[0.5] * len(table.variant.hyper_fields)])
    return driver.sum_squares(table, driver.place(table, hyper), part).numpy()


@each_format
@pytest.mark.parametrize("misaligned", [False, True, "grad"], ids=["aligned", "misaligned", "misaligned gradients"])
def test_sums_are_nearly_exact(name: str, misaligned: bool | str) -> None:
    assert_close(sum_squares, name, TILE, NUMELS, misaligned)


@pytest.mark.parametrize("numels", [[], [0], [0, 0, 0]], ids=str)
def test_nothing_has_the_sum_zero(numels: list[int]) -> None:
    assert sum_squares(Tensors(of_format("bf16"), numels).table(TILE)).sum() == 0


@each_format
@pytest.mark.parametrize("bad", BAD.values(), ids=BAD)
def test_what_is_not_finite_shows(name: str, bad: float) -> None:
    assert_shows(sum_squares, name, TILE, [0, 1, TILE, TILE + 129], bad)


@each_format
def test_parts(name: str) -> None:
    assert_parts(sum_squares, name, TILE, [5, 129, TILE + 1, 2 * TILE, 3 * TILE + 5, 0, 1])


@pytest.mark.parametrize("programs", [1, 2, 3, 5, 8])
def test_programs_share_all_tiles(programs: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(triton_norm, "PROGRAMS", programs)
    assert_close(sum_squares, "fp32", 128, [128, 5, 300, 128, 1], misaligned=False)
    tensors = Tensors(of_format("fp32"), [7 * 128], ordinary_share=1.0)
    assert len(sum_squares(tensors.table(128))) <= programs


def test_the_end_of_the_norm() -> None:
    assert_ends(triton_norm.clip)
