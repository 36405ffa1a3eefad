"""Trainings by several processes, each of which sees a share of every batch."""

from __future__ import annotations

import gc
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import distributed, multiprocessing
from torch.nn.parallel import DistributedDataParallel

import gpuopt
from kit.training import BATCH, loss_of, new_loader, new_model

PROCESSES = 2
EXTRAS: dict[str, Any] = {"lr": 0.02, "ema_decay": 0.5}


def train_all(how: str, folder: Path) -> list[dict[str, Any]]:
    """Trains in processes of their own, and returns what each came to."""
    multiprocessing.start_processes(_train, (how, folder), nprocs=PROCESSES, start_method="spawn")
    return [torch.load(folder / f"{rank}.pt") for rank in range(PROCESSES)]


def _train(rank: int, how: str, folder: Path) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=PROCESSES)
    try:
        _train_in_group(rank, how, folder)
        gc.collect()  # a model that outlives its group leaves gloo's thread at work when Python ends, which aborts
    finally:
        distributed.destroy_process_group()


def _train_in_group(rank: int, how: str, folder: Path) -> None:
    model = DistributedDataParallel(new_model())
    optimizer = {"ddp": _plain, "zero": _zero_redundancy}[how](model)
    for inputs, targets in new_loader():
        share = slice(rank * BATCH // PROCESSES, (rank + 1) * BATCH // PROCESSES)
        optimizer.zero_grad()
        loss_of(model, [inputs[share], targets[share]]).backward()
        optimizer.step()
    own = optimizer.optim if how == "zero" else optimizer
    params = [param for group in own.param_groups for param in group["params"]]
    ended = {
        "kind": type(own).__name__,
        "params": [param.detach() for param in model.parameters()],
        "norm": own.last_grad_norm,
        "owned": sum(param in own.state for param in params),
    }
    torch.save(ended, folder / f"{rank}.pt")


def _plain(model: torch.nn.Module) -> torch.optim.Optimizer:
    return gpuopt.AdamW(model.parameters(), max_grad_norm=0.1, **EXTRAS)


def _zero_redundancy(model: torch.nn.Module) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from torch.distributed.optim import ZeroRedundancyOptimizer

    return ZeroRedundancyOptimizer(model.parameters(), gpuopt.AdamW, **EXTRAS)
