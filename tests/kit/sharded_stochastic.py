"""Steps of the model of :mod:`kit.sharded` in bfloat16, by gradients that are the same however it is sharded."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import distributed
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Replicate, Shard, distribute_tensor

import gpuopt
from kit.sharded import LAYOUTS, Model, batch_of, loss_of, new_model, wholes

STEPS = 3

CUT_TWICE = [Shard(1), Shard(2)]


def stepped(layout: str | None, name: str, options: dict[str, Any]) -> list[torch.Tensor]:
    """Parameters and state after some steps, whole; in one process without a layout."""
    model = new_model(torch.bfloat16)
    if layout is not None:
        LAYOUTS[layout][0](model)
    return _stepped(model, name, options)


def _stepped(model: Model, name: str, options: dict[str, Any]) -> list[torch.Tensor]:
    params = list(model.parameters())
    optimizer = getattr(gpuopt, name)(params, lr=0.01, **options)
    for step in range(STEPS):
        for index, param in enumerate(params):
            generator = torch.Generator().manual_seed(100 * step + index)
            grad = torch.randn(param.shape, generator=generator).bfloat16()
            param.grad = _replicated(grad, param) if isinstance(param, DTensor) else grad
        optimizer.step()
    states = [optimizer.state[param] for param in params]
    rest = [state[key] for state in states for key in sorted(state) if key != "step"]
    return wholes([*params, *map(optimizer.master_weight, params), *rest])


def _replicated(grad: torch.Tensor, param: DTensor) -> DTensor:
    mesh = param.device_mesh
    return DTensor.from_local(grad, mesh, [Replicate()] * mesh.ndim, run_check=False)


def stepped_where_cut_twice(dtype: torch.dtype, options: dict[str, Any]) -> str:
    """What is said where a parameter is cut along two dimensions after its first."""
    mesh = init_device_mesh("cpu", (2, distributed.get_world_size() // 2))
    param = torch.nn.Parameter(distribute_tensor(torch.ones(3, 4, 4, dtype=dtype), mesh, CUT_TWICE))
    param.grad = torch.ones_like(param)
    optimizer = gpuopt.AdamW([param], **options)
    try:
        optimizer.step()
    except ValueError as error:
        return str(error)
    return "nothing"


def checkpointed_flat(keeps_params: bool, width: Any) -> list[tuple[list[torch.Tensor], set[torch.dtype]]]:
    """Parameters and dtypes of state of FullyShardedDataParallel, of a run and of one that was saved and loaded."""
    from torch.distributed.fsdp import FullyShardedDataParallel

    results = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for stops in (False, True):
            model = new_model(torch.bfloat16)
            whole = FullyShardedDataParallel(model, device_id=torch.device("cpu"), use_orig_params=keeps_params)
            optimizer = gpuopt.AdamW(whole.parameters(), lr=0.01, master_weights=width)
            for step in range(4):
                if stops and step == 2:
                    saved = FullyShardedDataParallel.optim_state_dict(whole, optimizer)
                    loaded = FullyShardedDataParallel.optim_state_dict_to_load(whole, optimizer, saved)
                    optimizer.load_state_dict(loaded)
                optimizer.zero_grad()
                loss_of(whole, batch_of(step)).backward()
                optimizer.step()
            dtypes = {tensor.dtype for state in optimizer.state.values() for tensor in dict(state).values()}
            results.append(([param.detach().clone() for param in whole.parameters()], dtypes))
    return results
