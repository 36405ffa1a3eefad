"""The Triton driver, interpreted, computes the global norm and the clip factor as ``test_gradnorm.py`` says.

Beyond that contract: more tiles than programs leave no tile out; the program that ends the norm is within ``NORM`` of
the host's ``norm_of`` for any number of sums, and the factor that it writes is the host's ``clip_factor`` of the norm
that it writes, bit for bit; both are written in float64 and, rounded once, in float32.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from kit.squares import BAD, assert_close, assert_shows, of_format
from kit.tolerances import NORM

from gpuopt.kernels.drivers import triton as driver
from gpuopt.kernels.drivers import triton_norm
from gpuopt.kernels.formats import FORMATS
from gpuopt.kernels.gradnorm import clip_factor, norm_of
from gpuopt.kernels.table import Table
from gpuopt.verify.tensors import Tensors

# The interpreter computes with NumPy, which warns where infinities and NaN arise.
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")

TILE = 256
NUMELS = [0, 1, 127, 128, 129, TILE - 1, TILE, TILE + 1, 3 * TILE + 130]

each_format = pytest.mark.parametrize("name", FORMATS)


def sum_squares(table: Table) -> np.ndarray:
    hyper = table.variant.hyper_array([[0.5] * len(table.variant.hyper_fields)])
    return driver.sum_squares(table, driver.place(table, hyper)).numpy()


@each_format
@pytest.mark.parametrize("misaligned", [False, True], ids=["aligned", "misaligned"])
def test_sums_are_nearly_exact(name: str, misaligned: bool) -> None:
    assert_close(sum_squares, name, TILE, NUMELS, misaligned)


@pytest.mark.parametrize("numels", [[], [0], [0, 0, 0]], ids=str)
def test_nothing_has_the_sum_zero(numels: list[int]) -> None:
    assert sum_squares(Tensors(of_format("bf16"), numels).table(TILE)).sum() == 0


@each_format
@pytest.mark.parametrize("bad", BAD.values(), ids=BAD)
def test_what_is_not_finite_shows(name: str, bad: float) -> None:
    assert_shows(sum_squares, name, TILE, [0, 1, TILE, TILE + 129], bad)


@pytest.mark.parametrize("programs", [1, 2, 3, 5, 8])
def test_programs_share_all_tiles(programs: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(triton_norm, "PROGRAMS", programs)
    assert_close(sum_squares, "fp32", 128, [128, 5, 300, 128, 1], misaligned=False)
    tensors = Tensors(of_format("fp32"), [7 * 128], ordinary_share=1.0)
    assert len(sum_squares(tensors.table(128))) <= programs


def clip(sums: np.ndarray, loss_scale: float, max_norm: float) -> np.ndarray:
    """Norm and factor in float64, once they are known to be the same in float32."""
    wide, narrow = torch.full((2,), -1.0, dtype=torch.float64), torch.full((2,), -1.0)
    triton_norm.clip(
        torch.from_numpy(sums), torch.tensor([max_norm], dtype=torch.float64), torch.tensor([loss_scale]), wide, narrow
    )
    assert np.array_equal(narrow.numpy(), wide.numpy().astype(np.float32), equal_nan=True)
    return wide.numpy()


@pytest.mark.parametrize("count", [0, 1, 5, 1023, 1024, 1025, 3000])
@pytest.mark.parametrize(("loss_scale", "max_norm"), [(1.0, 1.0), (3.0, 0.01), (65536.0, 1e9)])
def test_the_end_of_the_norm(count: int, loss_scale: float, max_norm: float) -> None:
    sums = np.random.default_rng(count).random(count) * 3
    norm, factor = clip(sums, loss_scale, max_norm)
    wanted = norm_of([sums], loss_scale)
    assert abs(norm - wanted) <= NORM * wanted
    assert factor == clip_factor(norm, max_norm)


@pytest.mark.parametrize("bad", [np.inf, np.nan])
def test_the_end_of_a_norm_that_is_not_finite(bad: float) -> None:
    sums = np.ones(1500)
    sums[1200] = bad
    norm, factor = clip(sums, 2.0, 1.0)
    assert np.array_equal([norm, factor], [bad, clip_factor(bad, 1.0)], equal_nan=True)


def test_a_norm_of_zero_is_not_clipped() -> None:
    assert clip(np.zeros(3), 1.0, 1.0).tolist() == [0.0, 1.0]
