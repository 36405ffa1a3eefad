"""What the CuPy driver decides on the host: which kernel a table takes, on which stream, and what it is given.

What the kernels compute is the matter of ``test_bitwise.py`` and, on a GPU, of ``gpu/test_gpu_bitwise.py``.
"""

from __future__ import annotations

from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import pytest
from kit.variants import hyper_rows

from gpuopt.kernels.drivers import cupy as driver
from gpuopt.kernels.formats import FORMATS
from gpuopt.kernels.rules import RULES
from gpuopt.kernels.table import Table
from gpuopt.kernels.variant import Variant

VARIANT = Variant(RULES["sgd"], (FORMATS["bf16"], FORMATS["fp32"], FORMATS["fp16"]))


def table_of(*numels: int, grad_address: int = 1 << 40, hyper_rows: list[int] | None = None) -> Table:
    """Arrays that are nowhere."""
    addresses = [[1 << 41, grad_address, 1 << 42] for _ in numels]
    return Table(VARIANT, driver.TILE, numels, addresses, hyper_rows, device=0)


BIG = driver.PLAIN_NUMEL + 1

TAKES = [
    ("array", table_of(1)),
    ("array", table_of(driver.PLAIN_NUMEL)),
    ("table", table_of(BIG)),
    ("array", table_of(1, grad_address=1 << 40 | 4)),
    ("array", table_of(BIG, grad_address=1 << 40 | 4)),
    ("table", table_of(1, 1)),
    ("table", table_of(1, 0)),
    ("table", table_of(BIG, 1, grad_address=1 << 40 | 4)),
    (None, table_of(0)),
    (None, table_of()),
]


@pytest.mark.parametrize(("form", "table"), TAKES)
@pytest.mark.parametrize("stream", [0, 77])
def test_a_single_small_or_misaligned_array_takes_the_array_kernel(
    form: str | None, table: Table, stream: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    launched = []
    streams = []

    def from_external(handle: Any) -> Any:
        streams.append(handle.__cuda_stream__())
        return nullcontext()

    cuda = SimpleNamespace(Device=nullcontext, Stream=SimpleNamespace(from_external=from_external))
    monkeypatch.setattr(driver, "cupy", SimpleNamespace(cuda=cuda))
    monkeypatch.setattr(driver, "run_table", lambda table, hyper, stream: launched.append("table"))
    monkeypatch.setattr(driver, "run_plain", lambda table, hyper: launched.append("array"))
    driver.run(table, VARIANT.hyper_array([[1.0] * len(VARIANT.hyper_fields)]), stream)
    assert launched == ([] if form is None else [form])
    assert streams == ([] if form is None else [(0, stream)])


def test_a_single_tensor_takes_its_own_hyper_row(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[Any] = []
    monkeypatch.setattr(driver, "array_kernel", lambda variant: lambda *arguments: given.extend(arguments))
    monkeypatch.setattr(driver, "_array", lambda address, numel, format: (address, numel, format.name))
    hyper = VARIANT.hyper_array(hyper_rows(VARIANT, 1))
    driver.run_plain(table_of(7, hyper_rows=[1]), hyper)
    assert given == [(1 << 40, 7, "fp32"), *hyper[1], (1 << 41, 7, "bf16"), (1 << 42, 7, "fp16")]
