"""Overflow under ``torch.amp.GradScaler`` where only the device knows of it: with ``capturable=True``.

The contract is that of ``tests/test_optim_overflow.py``: nothing changes, and training comes to what it comes to by
torch.optim. The state that the first step makes before it is skipped is as it is before the first.
"""

from __future__ import annotations

import sys

import pytest
import torch
from kit.overflow import CASES, EXTRAS, MODES, OVERFLOWS, assert_as_by_torch

import gpuopt

pytestmark = pytest.mark.filterwarnings(
    "ignore:divide by zero:RuntimeWarning"
)  # hyper rows of step 0, which are not used

TRITON = {"backend": "triton", "capturable": True}


@pytest.fixture(autouse=True)
def _not_waiting(monkeypatch):
    """Has the optimizers fail where they ask the host for what was found."""
    item = torch.Tensor.item

    def guarded(self):
        caller = sys._getframe(1).f_globals["__name__"]
        assert not caller.startswith("gpuopt.optim"), f"{caller} waits for the device"
        return item(self)

    monkeypatch.setattr(torch.Tensor, "item", guarded)


@pytest.mark.parametrize(("overflow", "mode"), list(zip(OVERFLOWS, MODES, strict=True)))
@pytest.mark.parametrize("case", CASES)
def test_nothing_changes_and_training_goes_on_as_by_torch(case, overflow, mode):
    assert_as_by_torch(case, OVERFLOWS[overflow], MODES[mode], ["for-loop"], **TRITON)


@pytest.mark.parametrize(("overflow", "mode"), [("first two", "step"), ("middle", "clip")])
@pytest.mark.parametrize("case", ["AdamW", "SGD-dampening"])
def test_the_scaler_of_gpuopt(case, overflow, mode):
    assert_as_by_torch(case, OVERFLOWS[overflow], MODES[mode], ["for-loop"], gpuopt.GradScaler, **TRITON)


@pytest.mark.parametrize(
    ("overflow", "mode"), [("first", "unscale and clip"), ("first two", "clip"), ("twice in a row", "step")]
)
@pytest.mark.parametrize("case", ["AdamW", "SGD-dampening"])
def test_extras(case, overflow, mode):
    assert_as_by_torch(case, OVERFLOWS[overflow], MODES[mode], ["for-loop"], **TRITON, **EXTRAS["all"])
