"""Trainings of the model of :mod:`kit.sharded` in the processes of a world, and by one process with torch.optim."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import distributed
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Partial, Replicate, Shard, distribute_tensor
from torch.nn.utils import clip_grad_norm_

import gpuopt
from kit.sharded import CLIPPED, LAYOUTS, RULES, backward, batch_of, loss_of, new_model, whole, wholes

CLIPPING = [CLIPPED, None] * 5
"""The norm to clip to, in each of ten steps."""


def train(layout: str, rule: str, clipping: list[float | None], backend: str) -> dict[str, Any]:
    """Parameters and norms after steps of a sharded model, as one process has them."""
    model = new_model()
    shares = LAYOUTS[layout][0](model)
    optimizer = RULES[rule](model.parameters(), backend=backend)
    norms = []
    for step, optimizer.max_grad_norm in enumerate(clipping):
        optimizer.zero_grad()
        backward(model, shares, step)
        optimizer.step()
        norms.append(optimizer.last_grad_norm)
    return {"params": wholes(model.parameters()), "norms": norms}


@cache
def trained_alone(rule: str) -> dict[str, Any]:
    """What one process comes to, in the steps of ``CLIPPING``."""
    model = new_model()
    params = list(model.parameters())
    optimizer = {
        "AdamW": lambda: torch.optim.AdamW(params, lr=0.01),
        "RMSprop": lambda: torch.optim.RMSprop(params, lr=0.01),
        "SGD": lambda: torch.optim.SGD(params, lr=0.05, momentum=0.9),
    }[rule]()
    norms: list[Any] = []
    for step, max_norm in enumerate(CLIPPING):
        optimizer.zero_grad()
        loss_of(model, batch_of(step)).backward()
        norms.append(clip_grad_norm_(params, max_norm) if max_norm else norms[-1])
        optimizer.step()
    return {"params": [param.detach() for param in params], "norms": norms}


def step_with_gradients_placed_otherwise(zero_grads: bool) -> tuple[list[torch.Tensor], list[torch.Tensor], bool]:
    """Parameters after a step, what they are to be, and whether gradients are placed as those are."""
    mesh = init_device_mesh("cpu", (distributed.get_world_size(),))
    values = torch.arange(35.0).reshape(5, 7)
    params, plain = [], []
    for place in (Shard(0), Shard(1), Replicate()):
        for given in (Partial(), Replicate(), Shard(0), Shard(1)):
            param = torch.nn.Parameter(distribute_tensor(values.clone(), mesh, [place]))
            grad = values.sin()
            if given.is_partial():
                param.grad = DTensor.from_local(grad / mesh.size(), mesh, [given])
            else:
                param.grad = distribute_tensor(grad.clone(), mesh, [given])
            params.append(param)
            plain.append(torch.nn.Parameter(values.clone()))
            plain[-1].grad = grad
    for each, made in ((params, True), (plain, False)):
        gpuopt.AdamW(each, max_grad_norm=1e9, zero_grads=zero_grads and made).step()
    placed = all(param.grad.placements == param.placements for param in params)
    if zero_grads:
        placed &= not any(whole(param.grad).any() for param in params)
    return wholes(params), wholes(plain), placed
