"""PyTorch's C interface is used only where it can be, and says what Python says.

1. Where Numba may not compile, or a function is missing or answers otherwise, there is none; optimizers step as ever.
2. It tells apart what differs in address, layout, dtype, sizes or strides.
"""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
import torch

from gpuopt.optim import c_interface as module
from gpuopt.optim import look
from gpuopt.optim.c_interface import c_interface

STEP = """
import warnings, torch, gpuopt
from gpuopt.optim.c_interface import c_interface
warnings.simplefilter("ignore")  # of the slower backend
param = torch.nn.Parameter(torch.ones(3))
param.grad = torch.ones(3)
gpuopt.SGD([param], lr=0.5).step()
print(c_interface(), param.tolist())
"""


def test_numba_that_may_not_compile() -> None:
    environment = {**os.environ, "NUMBA_DISABLE_JIT": "1"}
    out = subprocess.run([sys.executable, "-c", STEP], env=environment, capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "None [0.5, 0.5, 0.5]"


def test_a_function_that_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(look, "QUESTIONS", ("aoti_torch_get_nothing", *look.QUESTIONS[1:]))
    assert c_interface.__wrapped__() is None


def test_a_function_that_answers_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(look, "QUESTIONS", ("aoti_torch_get_numel", *look.QUESTIONS[1:]))
    assert c_interface.__wrapped__() is None


def test_no_way_to_hold_tensors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch._C._aoti, "unsafe_alloc_void_ptrs_from_tensors")
    assert module.c_interface.__wrapped__() is None


@pytest.mark.parametrize(
    ("other", "same"),
    [
        (torch.zeros(2, 3), True),
        (torch.zeros(3, 2).t(), False),
        (torch.zeros(2, 3, dtype=torch.float64), False),
        (torch.zeros(6), False),
        (torch.zeros(2, 4), False),
        (torch.zeros(2, 3).to_sparse(), False),
    ],
    ids=["same", "strides", "dtype", "axes", "sizes", "layout"],
)
def test_what_is_told_apart(other: torch.Tensor, same: bool) -> None:
    c = c_interface()
    assert c is not None
    handles, addresses = c.hold([other]), np.zeros(1, dtype=np.int64)
    try:
        assert c.see(handles, c.describe([torch.zeros(2, 3)]), addresses) is same
    finally:
        c.release(handles)
    assert int(addresses[0]) == (other.data_ptr() if same else 0)
