"""The optimizers for PyTorch against torch.optim on the CPU, over PyTorch's own catalogue of options and errors.

1. Each option of the catalogue, and groups that override options, give after a few steps what torch.optim gives from
   the same gradients: parameters and state within ``kit.tolerances.TORCH``, in float32 and float64, and the same keys
   of state. What is capturable in the catalogue is so here; torch.optim, which refuses that on a CPU, is not told.
2. ``foreach`` and ``fused`` are taken and change nothing.
3. A step in a dtype of 16 bits agrees, to a unit in the last place, with an implementation that computes in float32:
   that of ``fused=True`` where it is sound, else one of float32 parameters and state, rounded.
4. Each error and warning of the catalogue is raised, in the same place and with the same words.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from kit import catalogue

from gpuopt.kernels.drivers import DRIVERS

BACKENDS = [name for name, entry in DRIVERS.items() if entry.device == "cpu"]

each_backend = pytest.mark.parametrize("backend", BACKENDS)
each_class = pytest.mark.parametrize("name", catalogue.CLASSES)
each_dtype = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["fp32", "fp64"])


@each_backend
@each_dtype
@pytest.mark.parametrize(("name", "options"), catalogue.INPUTS)
def test_options(name: str, options: dict[str, Any], dtype: torch.dtype, backend: str) -> None:
    catalogue.assert_input_agrees(name, options, dtype, backend)


@each_backend
@each_dtype
@each_class
def test_groups(name: str, dtype: torch.dtype, backend: str) -> None:
    catalogue.assert_groups_agree(name, dtype, backend)


@each_backend
@pytest.mark.parametrize(("name", "options"), catalogue.FLAGS)
def test_flags(name: str, options: dict[str, Any], backend: str) -> None:
    catalogue.assert_input_agrees(name, options, torch.float32, backend)


@pytest.mark.parametrize(
    ("dtype", "backend"),
    [(torch.bfloat16, "numba"), (torch.bfloat16, "numpy"), (torch.float16, "numpy")],
    ids=["bf16-numba", "bf16-numpy", "fp16-numpy"],
)
@each_class
def test_sixteen_bits(name: str, dtype: torch.dtype, backend: str) -> None:
    catalogue.assert_narrow_agrees(name, dtype, backend)


@each_backend
@pytest.mark.parametrize(("name", "given"), catalogue.ERRORS)
def test_errors(name: str, given: Any, backend: str) -> None:
    catalogue.assert_error(name, given, backend)
