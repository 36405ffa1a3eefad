"""Wrappers under which a process sees a part of the gradients alone: what would take its norm for the whole is refused.

1. Flat parameters of ``FullyShardedDataParallel``, or what they were made of, are refused with ``max_grad_norm``,
   before or after the optimizer was made, and taken with other extras, but not evaluated by their averages.
2. So is ``max_grad_norm`` that is handed through ``ZeroRedundancyOptimizer``, which steps as ever with other extras.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator

import pytest
import torch
from kit.pairs import drawn, set_grads
from torch import distributed, nn
from torch.distributed.fsdp import FullyShardedDataParallel

import gpuopt

with warnings.catch_warnings():  # it scripts functions, which PyTorch advises against
    warnings.simplefilter("ignore", DeprecationWarning)
    from torch.distributed.optim import ZeroRedundancyOptimizer


def parameters() -> list[nn.Parameter]:
    return [nn.Parameter(drawn(torch.empty(shape), 5)) for shape in [(3, 4), (), (5, 7)]]


@pytest.fixture
def alone() -> Iterator[None]:
    """A process group of this process alone."""
    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    yield
    distributed.destroy_process_group()


@pytest.mark.usefixtures("alone")
@pytest.mark.filterwarnings("ignore:FSDP is switching to use `NO_SHARD`")
@pytest.mark.parametrize("keeps_params", [False, True])
def test_flat_parameters_are_not_clipped_by_their_own_norm(keeps_params: bool) -> None:
    model = nn.Linear(3, 3)
    early = gpuopt.AdamW(model.parameters(), max_grad_norm=1.0)
    wrapped = FullyShardedDataParallel(model, device_id=torch.device("cpu"), use_orig_params=keeps_params)
    message = "max_grad_norm must be None for parameters that FullyShardedDataParallel has flattened, .*clip_grad_norm_"
    with pytest.raises(ValueError, match=message):
        gpuopt.AdamW(wrapped.parameters(), max_grad_norm=1.0)
    optimizer = gpuopt.AdamW(wrapped.parameters(), ema_decay=0.5)
    wrapped(torch.ones(2, 3)).sum().backward()
    if keeps_params:
        with pytest.raises(ValueError, match=message):
            early.step()
    optimizer.step()
    with pytest.raises(RuntimeError, match="averaged_weights must not be called"), optimizer.averaged_weights():
        pass
    optimizer.max_grad_norm = 1.0
    with pytest.raises(ValueError, match=message):
        optimizer.step()


@pytest.mark.usefixtures("alone")
def test_zero_redundancy_optimizer() -> None:
    params, others = parameters(), parameters()
    with pytest.raises(ValueError, match=r"max_grad_norm must be .* ZeroRedundancyOptimizer.*functools\.partial"):
        ZeroRedundancyOptimizer(params, gpuopt.AdamW, max_grad_norm=1.0)
    wrapped = ZeroRedundancyOptimizer(params, gpuopt.AdamW, lr=0.1, ema_decay=0.5, max_grad_norm=None)
    expected = gpuopt.AdamW(others, lr=0.1, ema_decay=0.5)
    for seed in range(2):
        set_grads(params, seed)
        set_grads(others, seed)
        wrapped.step()
        expected.step()
    assert all(map(torch.equal, params, others))
