"""A small regression that trainers of other libraries are given."""

from __future__ import annotations

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

ROWS, BATCH = 64, 8


def new_model() -> nn.Module:
    """A model, the same each time."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.Linear(16, 1))


def new_loader(batch: int = BATCH) -> DataLoader[tuple[torch.Tensor, ...]]:
    """Batches of a function of four numbers, the same each time and in the same order."""
    inputs = torch.randn(ROWS, 4, generator=torch.Generator().manual_seed(1))
    return DataLoader(TensorDataset(inputs, inputs.prod(1, keepdim=True).sin()), batch_size=batch)


def loss_of(model: nn.Module, batch: list[torch.Tensor]) -> torch.Tensor:
    """Mean squared error of a batch."""
    inputs, targets = batch
    return nn.functional.mse_loss(model(inputs).float(), targets)


def total_loss(model: nn.Module) -> float:
    """The loss over all rows."""
    with torch.no_grad():
        return sum(loss_of(model, batch).item() for batch in new_loader())
