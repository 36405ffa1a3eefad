"""The optimizers for PyTorch agree on a GPU with torch.optim there as ``test_optim_catalogue.py`` says.

They do so by each driver for GPUs, and by Triton also where all is ``capturable``, so that the device computes the
scalars of a step. torch.optim is told what is capturable in the catalogue. The errors are those of the catalogue for
a CUDA device.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from kit import catalogue

each_class = pytest.mark.parametrize("name", catalogue.CLASSES)
each_dtype = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["fp32", "fp64"])


@each_dtype
@pytest.mark.parametrize(("name", "options"), catalogue.INPUTS)
def test_options(name: str, options: dict[str, Any], dtype: torch.dtype, backend: str) -> None:
    catalogue.assert_input_agrees(name, options, dtype, backend, "cuda")


@each_dtype
@pytest.mark.parametrize(("name", "options"), catalogue.INPUTS)
def test_options_when_the_device_computes_the_scalars(name: str, options: dict[str, Any], dtype: torch.dtype) -> None:
    catalogue.assert_input_agrees(name, options, dtype, "triton", "cuda", capturable=True)


@each_dtype
@each_class
def test_groups(name: str, dtype: torch.dtype, backend: str) -> None:
    catalogue.assert_groups_agree(name, dtype, backend, "cuda")


@pytest.mark.parametrize(("name", "options"), catalogue.FLAGS)
def test_flags(name: str, options: dict[str, Any], backend: str) -> None:
    catalogue.assert_input_agrees(name, options, torch.float32, backend, "cuda")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=["bf16", "fp16"])
@each_class
def test_sixteen_bits(name: str, dtype: torch.dtype, backend: str) -> None:
    catalogue.assert_narrow_agrees(name, dtype, backend, "cuda")


@each_class
def test_errors(name: str, backend: str) -> None:
    for given in catalogue.INFOS[name].optim_error_inputs_func(device="cuda", dtype=torch.float32):
        catalogue.assert_error(name, given, backend)
