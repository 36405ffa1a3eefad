"""The optimizers for PyTorch step by Triton's compiled kernels, run on the host as in ``test_ptx_step.py``.

1. What the smoke test of a GPU tries passes, as far as it needs no GPU: drivers and front ends have the oracle's bits,
   with scalars from the host and from the device, through an overflow, and with a clipped norm.
2. A step of all groups is one launch, with one more for scalars that the device computes and two more for clipping.
3. Training under a ``GradScaler``, torch's and gpuopt's, comes to what it comes to by torch.optim, through overflows
   that only the device sees, with clipping and with every extra.
4. Training that Numba begins and Triton ends gives the bits of training by Numba alone, in every rule, with originals
   of both widths and with stochastic rounding, by scalars of the host and of the device.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import Any

import pytest
import torch
from kit import checkpoints
from kit.host_gpu import HostGpu, host_gpu
from kit.overflow import CASES, EXTRAS, MODES, OVERFLOWS, assert_as_by_torch

import gpuopt
from gpuopt.bench.gpu import smoke

TRITON = {"backend": "triton", "capturable": True}


@pytest.fixture(autouse=True)
def gpu() -> Iterator[HostGpu]:
    with host_gpu() as gpu:
        yield gpu


def test_what_the_smoke_test_tries(gpu: HostGpu) -> None:
    tried = [probe for probe in smoke.probes("cpu") if probe.name.startswith("triton")]
    assert len(tried) == 7
    for probe in tried:
        probe.check()
    names = {launched.compiled.metadata.name for launched in gpu.launches}
    assert names == {"step_kernel", "advance_kernel", "square_kernel", "clip_kernel"}


@pytest.mark.parametrize("capturable", [False, True], ids=["host", "device"])
@pytest.mark.parametrize("clips", [False, True], ids=["as they are", "clipped"])
def test_launches(capturable: bool, clips: bool, gpu: HostGpu) -> None:
    params = checkpoints.params()
    extras = {"max_grad_norm": 1.0} if clips else {}
    optimizer = gpuopt.AdamW(checkpoints.groups(params), **extras, backend="triton", capturable=capturable)
    checkpoints.train(optimizer, range(2))
    gpu.launches.clear()
    checkpoints.train(optimizer, [2])
    names = ["square_kernel", "clip_kernel"] * clips + ["advance_kernel"] * capturable + ["step_kernel"]
    assert [launched.compiled.metadata.name for launched in gpu.launches] == names


@pytest.mark.parametrize(("overflow", "mode"), list(zip(OVERFLOWS, MODES, strict=True)))
@pytest.mark.parametrize("case", CASES)
def test_overflows(case: str, overflow: str, mode: str) -> None:
    extras = EXTRAS["all"] if mode == "clip" else {}
    assert_as_by_torch(case, OVERFLOWS[overflow], MODES[mode], ["for-loop"], **TRITON, **extras)


@pytest.mark.parametrize("case", ["AdamW", "SGD-dampening"])
def test_the_scaler_of_gpuopt(case: str) -> None:
    assert_as_by_torch(case, OVERFLOWS["middle"], MODES["clip"], ["for-loop"], gpuopt.GradScaler, **TRITON)


@pytest.mark.parametrize("case", checkpoints.OPTIONS)
def test_training_goes_on_with_the_same_bits(case: str) -> None:
    runs = []
    for backend in ("numba", "triton"):
        optimizer = checkpoints.new(gpuopt, case, checkpoints.params(), backend="numba")
        checkpoints.train(optimizer, range(2))
        optimizer.backend = backend
        checkpoints.train(optimizer, range(2, 5))
        runs.append(checkpoints.checkpoint(optimizer))
    checkpoints.assert_same(*runs)


KEPT: dict[str, dict[str, Any]] = {
    "32 bits": {"master_weights": True, "ema_decay": 0.9},
    "24 bits": {"master_weights": "24bit", "state_dtype": torch.bfloat16, "seed": 1},
    "stochastic": {"stochastic_rounding": True, "seed": 2**32 - 1},
    "8 bits": {"state_dtype": "8bit", "master_weights": "24bit", "max_grad_norm": 0.5, "seed": 5},
}


@pytest.mark.parametrize("capturable", [False, True], ids=["host", "device"])
@pytest.mark.parametrize(
    ("case", "kept"),
    [each for each in product(["AdamW", "RMSprop-both", "SGD", "Adagrad"], KEPT) if each != ("Adagrad", "8 bits")],
)
def test_formats(case: str, kept: str, capturable: bool) -> None:
    runs = []
    for backend in ("numba", "triton"):
        params = checkpoints.params(torch.bfloat16)
        optimizer = checkpoints.new(gpuopt, case, params, backend="numba", **KEPT[kept])
        checkpoints.train(optimizer, range(2))
        optimizer.backend = backend
        for group in optimizer.param_groups:
            group["capturable"] = capturable
        checkpoints.train(optimizer, range(2, 5))
        runs.append(checkpoints.checkpoint(optimizer))
    checkpoints.assert_same(*runs)
