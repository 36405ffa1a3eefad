"""The rules against torch.optim on the CPU.

For every rule and option that torch.optim has, 50 steps from equal starts end within the tolerance of
``kit.tolerances.TORCH``, in float32 and in float64, parameters and state alike. They are not equal to the bit,
because PyTorch rounds in another order (it fuses products into sums, and keeps moments as ``beta m + (1 - beta) g``).
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from kit.tolerances import TORCH

from gpuopt.arrays import step
from gpuopt.kernels.prologue import prologue_at
from gpuopt.kernels.rules import RULES, adagrad, adam, rmsprop, sgd

STEPS = 50


def adam_at(t, lr=1e-3, betas=(0.9, 0.999), eps=1e-8, **_):
    return adam.hyper_at(t, lr, *betas, eps)


def rmsprop_at(t, lr=1e-2, alpha=0.99, eps=1e-8, momentum=0.0, **_):
    return rmsprop.hyper_at(t, lr, alpha, eps, momentum)


def sgd_at(t, lr=1e-3, momentum=0.0, dampening=0.0, nesterov=False, **_):
    return sgd.hyper_at(t, lr, momentum, dampening, nesterov)


def adagrad_at(t, lr=1e-2, lr_decay=0.0, eps=1e-10, **_):
    return adagrad.hyper_at(t, lr, eps, lr_decay)


ADAM = [
    {},
    {"amsgrad": True},
    {"weight_decay": 0.1},
    {"weight_decay": 0.1, "amsgrad": True, "maximize": True},
    {"lr": 0.1, "betas": (0.5, 0.9), "eps": 1e-4},
]
CASES = [
    *(("adam", torch.optim.Adam, adam_at, options) for options in ADAM),
    *(("adam", torch.optim.AdamW, adam_at, {"weight_decay": 0.01, **options}) for options in ADAM),
    *(
        ("rmsprop", torch.optim.RMSprop, rmsprop_at, {"centered": centered, "momentum": momentum, **rest})
        for centered in (False, True)
        for momentum in (0.0, 0.9)
        for rest in ({}, {"weight_decay": 0.1, "maximize": True, "alpha": 0.9})
    ),
    *(
        ("sgd", torch.optim.SGD, sgd_at, {"lr": 0.01, **options})
        for options in (
            {},
            {"weight_decay": 0.1},
            {"maximize": True},
            {"momentum": 0.9},
            {"momentum": 0.9, "dampening": 0.5},
            {"momentum": 0.9, "nesterov": True, "weight_decay": 0.1},
        )
    ),
    *(
        ("adagrad", torch.optim.Adagrad, adagrad_at, options)
        for options in (
            {},
            {"lr_decay": 0.1},
            {"initial_accumulator_value": 0.5, "weight_decay": 0.1, "maximize": True},
        )
    ),
]


def slots_for(rule, options):
    wanted = {
        "max_exp_avg_sq": options.get("amsgrad"),
        "grad_avg": options.get("centered"),
        "momentum_buffer": options.get("momentum"),
    }
    return [slot for slot in RULES[rule].slots if wanted.get(slot, True)]


@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["fp32", "fp64"])
@pytest.mark.parametrize(
    ("rule", "torch_class", "hyper_at", "options"),
    CASES,
    ids=[f"{cls.__name__}-{'-'.join(f'{k}={v}' for k, v in options.items())}" for _, cls, _, options in CASES],
)
def test_agrees_with_torch(rule, torch_class, hyper_at, options, dtype):
    rng = np.random.default_rng(0)
    p = rng.standard_normal((64, 33)).astype(dtype)
    theirs = torch.from_numpy(p.copy()).requires_grad_()
    optimizer = torch_class([theirs], **options)
    initial = options.get("initial_accumulator_value", 0.0)
    state = {slot: [np.full_like(p, initial)] for slot in slots_for(rule, options)}
    lr = optimizer.param_groups[0]["lr"]
    prologue = prologue_at(
        lr,
        options.get("weight_decay", 0.0),
        decoupled=torch_class is torch.optim.AdamW,
        maximize=options.get("maximize", False),
    )
    for t in range(1, STEPS + 1):
        g = rng.standard_normal(p.shape).astype(dtype)
        theirs.grad = torch.from_numpy(g.copy())
        optimizer.step()
        step(rule, [p], [g], state, hyper_at(t, **{**options, "lr": lr}), prologue=prologue)
    rtol, atol = TORCH[np.dtype(dtype).name]
    np.testing.assert_allclose(p, theirs.detach().numpy(), rtol=rtol, atol=atol)
    for slot, (array,) in state.items():
        np.testing.assert_allclose(array, optimizer.state[theirs][slot].numpy(), rtol=rtol, atol=atol, err_msg=slot)
