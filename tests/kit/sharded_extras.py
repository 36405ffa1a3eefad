"""What a step does beside the step, on sharded models, in the processes of a world."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from copy import deepcopy
from typing import Any
from unittest.mock import patch

import torch
from torch import distributed
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import CPUOffloadPolicy, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor
from torch.distributed.tensor.debug import CommDebugMode

import gpuopt
from gpuopt.kernels.drivers import numba as driver
from kit.sharded import CLIPPED, LAYOUTS, Model, backward, batch_of, loss_of, new_model, wholes

Counts = tuple[dict[str, int], dict[str, int]]
"""Launches by driver's function, and collectives by name."""


def sharded(layout: str, dtype: torch.dtype = torch.float64) -> tuple[Model, int]:
    model = new_model(dtype)
    return model, LAYOUTS[layout][0](model)


def evaluate_averages(layout: str) -> tuple[list[float], list[float]]:
    """Losses with averages and without, in turns, and what they are to be."""
    model, shares = sharded(layout)
    optimizer = gpuopt.AdamW(model.parameters(), lr=0.1, ema_decay=0.5)
    made, expected = [], []

    def note(tensors: list[torch.Tensor]) -> None:
        with torch.no_grad():
            made.append(loss_of(model, batch_of(100)).item())
            expected.append(loss_of(_model_of(tensors), batch_of(100)).item())

    for step in range(3):
        optimizer.zero_grad()
        backward(model, shares, step)
        optimizer.step()
        params = list(optimizer.param_groups[0]["params"])
        note(wholes(params))
        averages = wholes(optimizer.state[param]["ema"] for param in params)
        with optimizer.averaged_weights():
            note(averages)
        note(wholes(params))
        with optimizer.averaged_weights():
            note(averages)
        made.append(backward(model, 1, step))
        expected.append(loss_of(_model_of(wholes(params)), batch_of(step)).item())
    return made, expected


def _model_of(tensors: list[torch.Tensor]) -> Model:
    model = new_model()
    with torch.no_grad():
        for param, tensor in zip(model.parameters(), tensors, strict=True):
            param.copy_(tensor)
    return model


def step_with(options: dict[str, Any]) -> tuple[list[torch.Tensor], list[torch.Tensor], bool]:
    """Parameters and state after steps of FSDP2, and those of one process that is given the same gradients.

    Last, whether gradients are as they were or, where that is asked for, zero.
    """
    dtype = torch.bfloat16 if options.get("master_weights") else torch.float32
    model, shares = sharded("fsdp2", dtype)
    plain = [torch.nn.Parameter(tensor) for tensor in wholes(model.parameters())]
    params = list(model.parameters())
    ours, expected = gpuopt.AdamW(params, lr=0.1, **options), gpuopt.AdamW(plain, lr=0.1, **options)
    is_well = True
    for step in range(3):
        ours.zero_grad()
        backward(model, shares, step)
        before = wholes(param.grad for param in params)
        for param, grad in zip(plain, before, strict=True):
            param.grad = grad.clone()
        ours.step()
        expected.step()
        after = wholes(param.grad for param in params)
        if options.get("zero_grads"):
            is_well &= not any(grad.any() for grad in after)
        else:
            is_well &= all(map(torch.equal, before, after))
    return _everything(ours, params), _everything(expected, plain), is_well


def _everything(optimizer: torch.optim.Optimizer, params: list[torch.Tensor]) -> list[torch.Tensor]:
    tensors = list(params)
    for param in params:
        state = dict(optimizer.state[param])
        tensors += [state[name] for name in sorted(state)]
    return wholes(tensors)


def placements_of_state() -> list[tuple[str, Any, Any]]:
    """For each tensor of state that is not the step count: its name, and how parameter and state are placed."""
    model, shares = sharded("fsdp2", torch.bfloat16)
    options: dict[str, Any] = {"ema_decay": 0.5, "master_weights": True, "state_dtype": torch.bfloat16}
    optimizer = gpuopt.Adam(model.parameters(), amsgrad=True, **options)
    backward(model, shares, 0)
    optimizer.step()
    return [
        (name, _placed(param), _placed(tensor))
        for param in optimizer.param_groups[0]["params"]
        for name, tensor in dict(optimizer.state[param]).items()
        if name != "step"
    ]


def _placed(tensor: torch.Tensor) -> tuple[Any, ...]:
    assert isinstance(tensor, DTensor)
    return str(tensor.placements), str(tensor.device_mesh), tensor.shape, tensor.stride(), tensor.to_local().shape


def under_policies() -> tuple[list[torch.Tensor], list[torch.Tensor], list[str]]:
    """FSDP2 that computes in bfloat16 and keeps parameters on the host: parameters, those of torch.optim, devices."""
    results = []
    for library in (gpuopt, torch.optim):
        model = new_model(torch.float32)
        mesh = init_device_mesh("cpu", (distributed.get_world_size(),))
        policies: dict[str, Any] = {
            "mp_policy": MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32),
            "offload_policy": CPUOffloadPolicy(pin_memory=False),
        }
        for module in (*model.blocks, model):
            fully_shard(module, mesh=mesh, **policies)
        optimizer = library.AdamW(model.parameters(), lr=0.1)
        for step in range(3):
            optimizer.zero_grad()
            backward(model, mesh.size(), step)
            optimizer.step()
        results.append(wholes(model.parameters()))
    return results[0], results[1], [str(param.device) for param in model.parameters()]


def counts(layout: str) -> tuple[Counts, Counts, int]:
    """What a step counts without clipping and with it, and bytes in which its gradients are misaligned."""
    model, shares = sharded(layout, torch.float32)
    optimizer = gpuopt.AdamW(model.parameters())
    counted = []
    for max_norm in (None, CLIPPED):
        optimizer.max_grad_norm = max_norm
        for step in range(2):
            optimizer.zero_grad()
            backward(model, shares, step)
            counted.append(_counts_of(optimizer))
    return counted[1], counted[3], sum(map(_misalignment, model.parameters()))


def _counts_of(optimizer: torch.optim.Optimizer) -> Counts:
    """Takes a step."""
    launches: Counter[str] = Counter()

    def counting(name: str, original: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*arguments: Any) -> Any:
            launches[name] += 1
            return original(*arguments)

        return counted

    spies = {name: counting(name, getattr(driver, name)) for name in ("step", "sum_squares")}
    with patch.multiple(driver, **spies), CommDebugMode() as communication:
        optimizer.step()
    return dict(launches), {str(name): number for name, number in communication.get_comm_counts().items()}


def _misalignment(param: torch.Tensor) -> int:
    assert param.grad is not None
    grad = param.grad.to_local() if isinstance(param.grad, DTensor) else param.grad
    return grad.data_ptr() % 16


def memory() -> tuple[int, int, int]:
    """Bytes of state of torch.optim's foreach, of ours, and the most that a step of ours takes beside it."""
    sizes = []
    for library, options in ((torch.optim, {"foreach": True}), (gpuopt, {"max_grad_norm": 1.0})):
        model = torch.nn.Sequential(*(torch.nn.Linear(500, 501) for _ in range(4)))
        mesh = init_device_mesh("cpu", (distributed.get_world_size(),))
        fully_shard(model, mesh=mesh)
        optimizer = library.AdamW(model.parameters(), **options)
        for param in model.parameters():
            param.grad = torch.ones_like(param)
        optimizer.step()
        kept = {
            tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes()
            for state in deepcopy(optimizer.state_dict()["state"]).values()
            for value in state.values()
            for tensor in [value.to_local() if isinstance(value, DTensor) else value]
        }
        sizes.append(sum(kept.values()))
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        optimizer.step()
    made = sum(max(0, event.self_cpu_memory_usage) for event in profile.events())
    return sizes[0], sizes[1], made
