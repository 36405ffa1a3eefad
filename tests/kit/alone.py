"""DTensors in a group of one process, beside plain tensors of the same values."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import distributed
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.tensor import Replicate, Shard, distribute_tensor

SHAPES = [(33, 65), (0, 3), (1024,), (5,), (4097,)]


@contextmanager
def group_of_one(backend: str, device: str) -> Iterator[DeviceMesh]:
    """The mesh of this process alone."""
    distributed.init_process_group(backend, store=distributed.HashStore(), rank=0, world_size=1)
    try:
        yield init_device_mesh(device, (1,))
    finally:
        distributed.destroy_process_group()


def both(mesh: DeviceMesh) -> tuple[list[torch.nn.Parameter], list[torch.nn.Parameter]]:
    """Parameters as DTensors, and the same as plain tensors."""
    generator = torch.Generator().manual_seed(0)
    values = [torch.randn(shape, generator=generator).to(mesh.device_type) for shape in SHAPES]
    placements = [Shard(0), Shard(0), Replicate(), Shard(0), Shard(0)]
    shards = [
        distribute_tensor(value.clone(), mesh, [placement]) for value, placement in zip(values, placements, strict=True)
    ]
    return [torch.nn.Parameter(shard) for shard in shards], [torch.nn.Parameter(value) for value in values]


def set_grads(shards: list[torch.nn.Parameter], plain: list[torch.nn.Parameter], seed: int, scale: float = 1.0) -> None:
    """The same gradients for both; those of shards are views into one buffer, aligned to their elements alone."""
    generator = torch.Generator().manual_seed(seed)
    sizes = [param.numel() for param in plain]
    buffer = (torch.randn(sum(sizes) + 1, generator=generator) * scale).to(plain[0].device)
    for shard, param, grad in zip(shards, plain, buffer[1:].split(sizes), strict=True):
        param.grad = grad.clone().view_as(param)
        view = grad.view_as(param)
        shard.grad = type(shard).from_local(view, shard.device_mesh, shard.placements, run_check=False)
