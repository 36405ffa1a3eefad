"""The optimizers for PyTorch agree by Triton, interpreted, with torch.optim as ``test_optim_catalogue.py`` says.

They do so whether the host computes the scalars of a step or, ``capturable``, the device; the options by themselves are
tried in float32 the one way and in float64 the other. The step count that SGD with
dampening has then is the one key of state that torch.optim has not. Errors are raised before Triton is asked, and are
left to the other file.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from kit import catalogue

# The interpreter computes with NumPy, which warns where infinities and NaN arise.
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")

each_class = pytest.mark.parametrize("name", catalogue.CLASSES)
half_of_the_ways = pytest.mark.parametrize(
    ("dtype", "capturable"), [(torch.float32, False), (torch.float64, True)], ids=["fp32-host", "fp64-device"]
)
each_dtype = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["fp32", "fp64"])
each_schedule = pytest.mark.parametrize("capturable", [False, True], ids=["host", "device"])


@half_of_the_ways
@pytest.mark.parametrize(("name", "options"), catalogue.INPUTS)
def test_options(name: str, options: dict[str, Any], dtype: torch.dtype, capturable: bool) -> None:
    catalogue.assert_input_agrees(name, options, dtype, "triton", capturable=capturable)


@each_schedule
@each_dtype
@each_class
def test_groups(name: str, dtype: torch.dtype, capturable: bool) -> None:
    catalogue.assert_groups_agree(name, dtype, "triton", capturable=capturable)


@each_schedule
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=["bf16", "fp16"])
@each_class
def test_sixteen_bits(name: str, dtype: torch.dtype, capturable: bool) -> None:
    catalogue.assert_narrow_agrees(name, dtype, "triton", capturable=capturable)
