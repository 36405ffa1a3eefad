"""A small transformer of float64, sharded in all the ways that people shard models, and trained so.

Its sizes are such that shards are uneven, and some are empty.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import distributed, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, Replicate, Shard
from torch.distributed.tensor.parallel import (
    ColwiseParallel,
    RowwiseParallel,
    SequenceParallel,
    parallelize_module,
)

import gpuopt
from gpuopt.optim.originals import as_saved

WORDS, WIDTH, LENGTH, BATCH = 11, 6, 4, 8


class Block(nn.Module):
    """Attention of one head, and two layers."""

    def __init__(self) -> None:
        super().__init__()
        self.first_norm, self.norm = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.query, self.value = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)
        self.key = nn.Linear(WIDTH, WIDTH, bias=False)  # the gradient of which would be rounding noise alone
        self.up, self.down = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.first_norm(x)
        scores = self.query(y) @ self.key(y).transpose(1, 2) / WIDTH**0.5
        x = x + scores.softmax(-1) @ self.value(y)
        return x + self.down(self.up(self.norm(x)).tanh())


class Model(nn.Module):
    """A language model, of which each position tells the next word."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(WORDS, WIDTH)
        self.blocks = nn.ModuleList(Block() for _ in range(2))
        self.head = nn.Linear(WIDTH, WORDS)
        self.scale = nn.Parameter(torch.ones(1))  # of which all processes but one hold nothing

    def forward(self, words: torch.Tensor) -> torch.Tensor:
        x = self.embedding(words)
        for block in self.blocks:
            x = block(x)
        return self.head(x) * self.scale


def new_model(dtype: torch.dtype = torch.float64) -> Model:
    """A model, the same each time."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Model().to(dtype)


def batch_of(step: int) -> torch.Tensor:
    """Sequences of words, each the successor of the one before but for one jump."""
    generator = torch.Generator().manual_seed(step)
    starts = torch.randint(WORDS, (BATCH, 1), generator=generator)
    steps = torch.randint(1, 3, (BATCH, LENGTH), generator=generator)
    return torch.cat([starts, starts + steps.cumsum(1)], 1) % WORDS


def loss_of(model: nn.Module, words: torch.Tensor) -> torch.Tensor:
    """Mean cross entropy of the next words."""
    logits = model(words[:, :-1])
    return nn.functional.cross_entropy(logits.flatten(0, 1), words[:, 1:].flatten())


def _fully_shard(model: Model, mesh: DeviceMesh, **options: Any) -> None:
    for block in model.blocks:
        fully_shard(block, mesh=mesh, **options)
    fully_shard(model, mesh=mesh, **options)


def _tensor_parallel(model: Model, mesh: DeviceMesh) -> None:
    """Two layers of each block by columns and rows, their norm along the sequence; the rest is whole."""
    plan = {
        "norm": SequenceParallel(),
        "up": ColwiseParallel(input_layouts=Shard(1)),
        "down": RowwiseParallel(output_layouts=Replicate()),
    }
    for block in model.blocks:
        parallelize_module(block, mesh, plan)
        block.norm.register_forward_pre_hook(
            lambda _, arguments: DTensor.from_local(arguments[0], mesh, [Replicate()]), prepend=True
        )
    head = {"head": ColwiseParallel(output_layouts=Replicate())}
    parallelize_module(model, mesh, head)


def fsdp2(model: Model) -> int:
    _fully_shard(model, init_device_mesh("cpu", (distributed.get_world_size(),)))
    return distributed.get_world_size()


def hsdp(model: Model) -> int:
    _fully_shard(model, init_device_mesh("cpu", (2, 2), mesh_dim_names=("replicate", "shard")))
    return distributed.get_world_size()


def tensor_parallel(model: Model) -> int:
    _tensor_parallel(model, init_device_mesh("cpu", (distributed.get_world_size(),)))
    return 1


def fsdp2_and_tensor_parallel(model: Model) -> int:
    mesh = init_device_mesh("cpu", (2, 2), mesh_dim_names=("data", "tensor"))
    _tensor_parallel(model, mesh["tensor"])
    _fully_shard(model, mesh["data"])
    return 2


def two_meshes(model: Model) -> int:
    """As experts have it: the second block on a mesh of its own; embedding and scale are plain and synchronised."""
    size = distributed.get_world_size()
    fully_shard(model.blocks[0], mesh=init_device_mesh("cpu", (size,)))
    own = init_device_mesh("cpu", (size // 2, 2), mesh_dim_names=("replicate", "shard"))
    fully_shard(model.blocks[1], mesh=own)
    return size


LAYOUTS: dict[str, tuple[Callable[[Model], int], tuple[int, ...]]] = {
    "fsdp2": (fsdp2, (2, 4)),
    "hsdp": (hsdp, (4,)),
    "tensor_parallel": (tensor_parallel, (2, 4)),
    "fsdp2_and_tensor_parallel": (fsdp2_and_tensor_parallel, (4,)),
    "two_meshes": (two_meshes, (2, 4)),
}
"""How to shard the model, which gives the number of shares of a batch, and on how many processes."""

RULES: dict[str, Callable[..., gpuopt.optim.Fused]] = {
    "AdamW": lambda params, **o: gpuopt.AdamW(params, lr=0.01, **o),
    "RMSprop": lambda params, **o: gpuopt.RMSprop(params, lr=0.01, **o),
    "SGD": lambda params, **o: gpuopt.SGD(params, lr=0.05, momentum=0.9, **o),
}

CLIPPED = 0.7
"""A norm that most steps exceed."""


def backward(model: nn.Module, shares: int, step: int) -> float:
    """Gradients of a batch, of which this process sees its share."""
    rank, size = distributed.get_rank(), distributed.get_world_size()
    share = rank // (size // shares)
    words = batch_of(step)[share * BATCH // shares : (share + 1) * BATCH // shares]
    loss = loss_of(model, words)
    loss.backward()
    for param in model.parameters():
        if shares == size and not isinstance(param, DTensor):
            distributed.all_reduce(param.grad)
            param.grad /= size
    return loss.item()


def whole(tensor: torch.Tensor) -> torch.Tensor:
    """All of a tensor; of int16, which gloo does not gather, as a checkpoint has it."""
    tensor = as_saved(tensor.detach())
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def wholes(tensors: Any) -> list[torch.Tensor]:
    return [whole(tensor).clone() for tensor in tensors]
