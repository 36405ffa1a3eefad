"""A rule that is defined outside of the package, and not registered, is taken by every driver.

It is Lion (``kit/lion.py``), written as the files in ``kernels/rules`` are.

1. It follows the paper's algorithm, within the tolerance of ``kit.tolerances.TORCH``.
2. In fp32, in bf16, and with a slot in fp64, it has the bits of the NumPy form in every slot: compiled by Numba; as
   CUDA C++ for the host; as NVRTC compiles it for CuPy and as Triton compiles it, run from their PTX. Inputs, sizes,
   hyper at its edges and misaligned tensors are those of `gpuopt verify`.
3. Triton's kernel computes its hyper rows on the device as the host does.
4. In float32 it stays as close to float64 as a rule with a sign in it can. It would not if its sum or its state lost
   bits, or if a parameter went farther than there and back; and it would not pass for a continuous one.
5. A front end of a few lines, which no class of ``torch.optim`` stands behind, trains by the paper's algorithm on every
   backend with the same bits, with groups, extras and checkpoints as those of the package have them.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from kit import host_cuda, lion
from kit.accuracy import assert_close_to_float64
from kit.host_gpu import host_cupy, host_gpu
from kit.pairs import bits, drawn
from kit.same import assert_equal_steps
from kit.schedules import assert_rows_of_the_host
from kit.tolerances import TORCH

from gpuopt.kernels.drivers import cupy as cupy_driver
from gpuopt.kernels.drivers import numba as numba_driver
from gpuopt.kernels.drivers import triton as triton_driver
from gpuopt.kernels.formats import FORMATS
from gpuopt.kernels.rules import RULES
from gpuopt.kernels.variant import Variant
from gpuopt.optim import Fused
from gpuopt.verify.cases import cases
from gpuopt.verify.proof import prove
from gpuopt.verify.tensors import Tensors
from gpuopt.verify.variants import edge_hyper_rows, hyper_rows

FORMAT_SETS = [("fp32", "fp32", "fp32"), ("bf16", "bf16", "bf16"), ("fp32", "bf16", "fp64")]
"""Formats of parameter, gradient and state."""

VARIANTS = [Variant(lion.RULE, tuple(FORMATS[name] for name in names)) for names in FORMAT_SETS]

each_variant = pytest.mark.parametrize("variant", VARIANTS, ids=str)

TILE = 128
NUMELS = [0, 1, 7, 8, 9, TILE - 1, TILE, TILE + 1, 2 * TILE + 5]


def assert_proved(driver: str, variant: Variant, tile: int) -> None:
    """Demands the oracle's bits of the first step of every case of `verify`."""
    chosen = [replace(case, hypers=case.hypers[:1]) for case in cases(variant, tile)]
    fault = prove(driver, variant, chosen, seed=0).fault
    assert fault is None, f"{fault.case}: {fault.problem or fault.difference}"


def test_it_is_not_registered() -> None:
    assert lion.RULE.name not in RULES


def test_it_follows_the_paper() -> None:
    rng = np.random.default_rng(0)
    lr, beta1, beta2 = 0.01, 0.9, 0.99
    theta = rng.standard_normal(1000)
    p, exp_avg, m = theta.copy(), np.zeros(1000), np.zeros(1000)
    for step in range(1, 51):
        g = rng.standard_normal(1000)
        p, exp_avg = lion.RULE.numpy_form(p, g, lion.RULE.hyper_at(step, lr, beta1, beta2), exp_avg)
        theta, m = theta - lr * np.sign(beta1 * m + (1 - beta1) * g), beta2 * m + (1 - beta2) * g
    rtol, atol = TORCH["float64"]
    np.testing.assert_allclose(p, theta, rtol=rtol, atol=atol)
    np.testing.assert_allclose(exp_avg, m, rtol=rtol, atol=atol)


@each_variant
def test_numba(variant: Variant) -> None:
    assert_proved("numba", variant, numba_driver.TILE)


@each_variant
@pytest.mark.parametrize("run", [host_cuda.run_table, host_cuda.run_array], ids=["table", "array"])
@pytest.mark.parametrize("misaligned", [False, True], ids=["aligned", "misaligned"])
def test_cuda_on_the_host(variant: Variant, run, misaligned: bool) -> None:
    hypers = [hyper_rows(variant, step) for step in range(3)]
    assert_equal_steps(run, Tensors(variant, NUMELS, seed=1, misaligned=misaligned), hypers, TILE)
    edges = edge_hyper_rows(variant)
    assert_equal_steps(run, Tensors(variant, [40 * TILE + 3] * len(edges), seed=2), [edges, edges], TILE)


@each_variant
def test_cupy(variant: Variant) -> None:
    with host_cupy():
        assert_proved("cupy", variant, cupy_driver.TILE)


@each_variant
def test_triton(variant: Variant) -> None:
    with host_gpu():
        assert_proved("triton", variant, triton_driver.TILE)


@pytest.mark.parametrize("format", ["fp32", "fp64"])
def test_hyper_rows_on_the_device(format: str) -> None:
    with host_gpu():
        assert_rows_of_the_host(triton_driver.place, triton_driver.step, lion.RULE, format, sourced=0.5)


def test_accuracy() -> None:
    assert_close_to_float64(lion.RULE, lion.RULE.required)


def without_low_bits(p, g, hyper, exp_avg):
    """Lion with a sum of which float32 keeps few bits."""
    away = g - exp_avg
    blend = (exp_avg + away * hyper.one_minus_beta1 + 64) - 64
    return p - np.sign(blend) * hyper.step_size, exp_avg + away * hyper.one_minus_beta2


def with_a_state_that_drifts(p, g, hyper, exp_avg):
    p, exp_avg = lion.numpy_form(p, g, hyper, exp_avg)
    exp_avg[3] += 1e-8 if exp_avg.dtype == np.float32 else 0
    return p, exp_avg


def with_an_element_that_leaps(p, g, hyper, exp_avg):
    p, exp_avg = lion.numpy_form(p, g, hyper, exp_avg)
    p[3] += 0.1 if p.dtype == np.float32 else 0
    return p, exp_avg


@pytest.mark.parametrize("form", [without_low_bits, with_a_state_that_drifts, with_an_element_that_leaps])
def test_what_is_not_accurate_is_noticed(form) -> None:
    rule = replace(lion.RULE, numpy_form=lambda p, g, hyper, exp_avg: form(p, g, lion.LionHyper(*hyper), exp_avg))
    with pytest.raises(AssertionError):
        assert_close_to_float64(rule, rule.required)


def test_it_is_not_continuous() -> None:
    with pytest.raises(AssertionError):
        assert_close_to_float64(replace(lion.RULE, continuous=True), lion.RULE.required)


# A front end


class Lion(Fused):
    """Lion for PyTorch, as a user would write it."""

    rule = lion.RULE

    def __init__(
        self, params: Any, lr: float = 1e-4, betas: Any = (0.9, 0.99), decay: float = 0.0, **options: Any
    ) -> None:
        with self._constructing(options, capturable=False) as given:
            super().__init__(params, {"lr": lr, "betas": betas, "weight_decay": decay, "maximize": False, **given})

    def _settings(self, group: dict[str, Any]) -> Any:
        return group["betas"]

    def _decoupled(self, group: dict[str, Any]) -> bool:
        return True


EVERYTHING = {"max_grad_norm": 0.5, "ema_decay": 0.9, "zero_grads": True}


def some(dtype: torch.dtype = torch.float32) -> list[torch.nn.Parameter]:
    return [torch.nn.Parameter(drawn(torch.empty(shape, dtype=dtype), 3)) for shape in [(3, 4), (), (1029,)]]


def lion_of(params: list[torch.nn.Parameter], **options: Any) -> Lion:
    return Lion([{"params": params[:1], "lr": 0.03}, {"params": params[1:]}], lr=0.01, decay=0.1, **options)


def train(optimizer: Lion, params: list[torch.nn.Parameter], steps: range) -> None:
    for seed in steps:
        for index, param in enumerate(params):
            param.grad = drawn(param, 10 * seed + index) if (seed + index) % 4 else None
        optimizer.step()


def test_training_follows_the_paper() -> None:
    params = some(torch.float64)
    expected, m = [param.detach().clone() for param in params], [torch.zeros_like(param) for param in params]
    train(lion_of(params), params, range(8))
    for index, (theta, average) in enumerate(zip(expected, m, strict=True)):
        lr = 0.03 if index == 0 else 0.01
        for seed in range(8):
            if (seed + index) % 4:
                g = drawn(theta, 10 * seed + index)
                theta.sub_(lr * (torch.sign(0.9 * average + 0.1 * g) + 0.1 * theta))
                average.lerp_(g, 0.01)
    for param, theta in zip(params, expected, strict=True):
        torch.testing.assert_close(param.detach(), theta, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_training_has_the_same_bits_on_every_backend(dtype: torch.dtype) -> None:
    """But for clipping, since the norm is a sum in an order of each backend's own."""
    outcomes = []
    for backend in ("numpy", "numba", "triton"):
        params = some(dtype)
        with host_gpu():
            optimizer = lion_of(params, backend=backend, ema_decay=0.9, master_weights=True, zero_grads=True)
            train(optimizer, params, range(4))
        states = [{key: bits(value) for key, value in optimizer.state[param].items()} for param in params]
        outcomes.append((list(map(bits, params)), states))
    assert outcomes[0] == outcomes[1] == outcomes[2]


def test_a_checkpoint_goes_on(tmp_path) -> None:
    params, others = some(), some()
    optimizer, other = lion_of(params, **EVERYTHING), lion_of(others, **EVERYTHING)
    train(optimizer, params, range(3))
    torch.save((optimizer.state_dict(), params), tmp_path / "checkpoint")
    saved, weights = torch.load(tmp_path / "checkpoint", weights_only=False)
    other.load_state_dict(saved)
    for param, weight in zip(others, weights, strict=True):
        param.data.copy_(weight)
    for each, own in ((optimizer, params), (other, others)):
        train(each, own, range(3, 6))
    assert list(map(bits, params)) == list(map(bits, others))
    with optimizer.averaged_weights():
        assert bits(params[0]) != bits(others[0])


def test_mistakes_are_said() -> None:
    params = some()
    with pytest.raises(TypeError, match=r"Lion\(\) got an unexpected keyword argument 'momentum'"):
        Lion(params, momentum=0.5)
    with pytest.raises(ValueError, match="differentiable must be False"):
        Lion(params, differentiable=True)
    params[0].grad = torch.zeros(3, 4).to_sparse()
    with pytest.raises(RuntimeError, match="Lion does not support sparse gradients"):
        Lion(params).step()
