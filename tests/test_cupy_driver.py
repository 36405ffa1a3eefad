"""What the CuPy driver decides on the host: which kernel a table takes, and what the kernel of single arrays is given.

What the kernels compute is the matter of ``test_bitwise.py`` and, on a GPU, of ``gpu/test_gpu_bitwise.py``.
"""

from __future__ import annotations

from typing import Any

import pytest
from kit.variants import hyper_rows

from gpuopt.kernels.drivers import cupy as driver
from gpuopt.kernels.formats import FORMATS
from gpuopt.kernels.rules import RULES
from gpuopt.kernels.table import Table
from gpuopt.kernels.variant import Variant

VARIANT = Variant(RULES["sgd"], (FORMATS["bf16"], FORMATS["fp32"], FORMATS["fp16"]))


def test_a_single_tensor_takes_its_own_hyper_row(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[Any] = []
    monkeypatch.setattr(driver, "array_kernel", lambda variant: lambda *arguments: given.extend(arguments))
    monkeypatch.setattr(driver, "_array", lambda address, numel, format: (address, numel, format.name))
    table = Table(VARIANT, driver.TILE, [7], [[0x100, 0x200, 0x300]], [1], device=0)
    hyper = VARIANT.hyper_array(hyper_rows(VARIANT, 1))
    driver.run_plain(table, hyper)
    assert given == [(0x200, 7, "fp32"), *hyper[1], (0x100, 7, "bf16"), (0x300, 7, "fp16")]


@pytest.mark.parametrize(
    ("numels", "address", "plain"),
    [
        ([driver.PLAIN_NUMEL], 0x100, True),
        ([driver.PLAIN_NUMEL + 1], 0x100, False),
        ([driver.PLAIN_NUMEL + 1], 0x104, True),
        ([5, 5], 0x100, False),
        ([5, 0], 0x104, False),
    ],
    ids=["small", "large", "large and misaligned", "two", "two and misaligned"],
)
def test_one_small_or_misaligned_array_takes_the_plain_form(numels: list[int], address: int, plain: bool) -> None:
    table = Table(VARIANT, driver.TILE, numels, [[address] * 3] * len(numels), device=0)
    assert bool(driver.takes_plain_form(table)) == plain
