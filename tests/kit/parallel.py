"""Trainings by several processes, each of which sees a share of every batch."""

from __future__ import annotations

import gc
import os
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import distributed, multiprocessing
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

import gpuopt
from kit.sharded import whole
from kit.training import BATCH, loss_of, new_loader, new_model

PROCESSES = 2
EXTRAS: dict[str, Any] = {"lr": 0.02, "ema_decay": 0.5}


def train_all(how: str, folder: Path) -> list[dict[str, Any]]:
    """Trains in processes of their own, and returns what each came to."""
    multiprocessing.start_processes(_train, (how, folder), nprocs=PROCESSES, start_method="spawn")
    return [torch.load(folder / f"{rank}.pt") for rank in range(PROCESSES)]


def _train(rank: int, how: str, folder: Path) -> None:
    torch.set_num_threads(1)
    launched = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": PROCESSES, "LOCAL_WORLD_SIZE": PROCESSES}
    os.environ.update({name: str(value) for name, value in launched.items()}, MASTER_ADDR="127.0.0.1")
    distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=PROCESSES)
    try:
        _train_in_group(rank, how, folder)
        gc.collect()  # a model that outlives its group leaves gloo's thread at work when Python ends, which aborts
    finally:
        distributed.destroy_process_group()


def _train_in_group(rank: int, how: str, folder: Path) -> None:
    model, optimizer, own = WAYS[how]()
    for inputs, targets in new_loader():
        share = slice(rank * BATCH // PROCESSES, (rank + 1) * BATCH // PROCESSES)
        optimizer.zero_grad()
        loss_of(model, [inputs[share], targets[share]]).backward()
        optimizer.step()
    params = [param for group in own.param_groups for param in group["params"]]
    if how == "accelerate":
        assert all(isinstance(param, DTensor) for param in params)
    ended = {
        "kind": type(own).__name__,
        "params": [whole(param) for param in model.parameters()],
        "norm": own.last_grad_norm,
        "owned": sum(param in own.state for param in params),
        "misaligned": sum(param.grad is not None and param.grad.data_ptr() % 16 for param in model.parameters()),
    }
    torch.save(ended, folder / f"{rank}.pt")


def _plain(**options: Any) -> tuple[torch.nn.Module, Any, Any]:
    model = DistributedDataParallel(new_model(), **options)
    optimizer = gpuopt.AdamW(model.parameters(), max_grad_norm=0.1, **EXTRAS)
    return model, optimizer, optimizer


def _zero_redundancy() -> tuple[torch.nn.Module, Any, Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from torch.distributed.optim import ZeroRedundancyOptimizer

    model = DistributedDataParallel(new_model())
    optimizer = ZeroRedundancyOptimizer(model.parameters(), gpuopt.AdamW, **EXTRAS)
    return model, optimizer, optimizer.optim


def _accelerate() -> tuple[torch.nn.Module, Any, Any]:
    """FSDP2, of which Accelerate puts the parameters into an optimizer that was made before."""
    from accelerate import Accelerator, DistributedType, FullyShardedDataParallelPlugin

    os.environ.update(ACCELERATE_USE_FSDP="true", FSDP_VERSION="2")
    plugin = FullyShardedDataParallelPlugin(
        fsdp_version=2, auto_wrap_policy="size_based_wrap", min_num_params=1, cpu_ram_efficient_loading=False
    )
    model = new_model()
    optimizer = gpuopt.AdamW(model.parameters(), max_grad_norm=0.1, **EXTRAS)
    accelerator = Accelerator(cpu=True, fsdp_plugin=plugin)
    accelerator.state.distributed_type = DistributedType.FSDP  # which it takes for one of GPUs alone
    accelerator.state.fsdp_plugin = plugin
    model, prepared = accelerator.prepare(model, optimizer)
    return model, prepared, optimizer


WAYS: dict[str, Callable[[], tuple[torch.nn.Module, Any, Any]]] = {
    "ddp": _plain,
    "ddp with views": partial(_plain, gradient_as_bucket_view=True),
    "zero": _zero_redundancy,
    "accelerate": _accelerate,
}
"""What makes model, what steps it, and the optimizer within."""
