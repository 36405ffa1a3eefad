"""Sharded models on CUDA over NCCL, with one process.

1. DTensors, of which gradients are views into one buffer, come to the bits of plain tensors, with clipping, averages
   and a scaler, for both backends.
2. Once the first step has been taken, the host does not wait in a step that clips.
3. A captured step that clips, replayed, gives the bits of eager ones.
4. FSDP2 trains.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from kit.alone import both, group_of_one, set_grads
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import fully_shard

import gpuopt

OPTIONS = {"lr": 0.1, "max_grad_norm": 0.5, "ema_decay": 0.5}


@pytest.fixture
def mesh() -> Iterator[DeviceMesh]:
    if not torch.distributed.is_nccl_available():
        pytest.skip("this build of PyTorch has no NCCL")
    with group_of_one("nccl", "cuda") as made:
        yield made


def assert_same(shards: list[torch.nn.Parameter], plain: list[torch.nn.Parameter]) -> None:
    assert all(torch.equal(shard.to_local(), param) for shard, param in zip(shards, plain, strict=True))


@pytest.mark.parametrize("scaled", [False, True])
def test_the_bits_of_plain_tensors(mesh: DeviceMesh, backend: str, scaled: bool) -> None:
    shards, plain = both(mesh)
    ours, expected = (gpuopt.AdamW(params, **OPTIONS, backend=backend) for params in (shards, plain))
    scalers = [gpuopt.GradScaler("cuda", init_scale=4.0, enabled=scaled) for _ in range(2)]
    for scaler in scalers:
        scaler.scale(torch.ones((), device="cuda"))
    for step in range(4):
        set_grads(shards, plain, step, float("inf") if scaled and step == 1 else 1.0)
        for scaler, optimizer in zip(scalers, (ours, expected), strict=True):
            scaler.step(optimizer)
            scaler.update()
        assert_same(shards, plain)
    assert torch.equal(ours.last_grad_norm, expected.last_grad_norm)
    assert scalers[0].get_scale() == scalers[1].get_scale()


def test_the_host_does_not_wait(mesh: DeviceMesh, backend: str) -> None:
    shards, plain = both(mesh)
    optimizer = gpuopt.AdamW(shards, **OPTIONS, backend=backend)
    try:
        for step in range(4):
            torch.cuda.set_sync_debug_mode("default")
            set_grads(shards, plain, step)
            if step >= 2:
                torch.cuda.set_sync_debug_mode("error")
            optimizer.step()
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_captured(mesh: DeviceMesh, backend: str) -> None:
    results = []
    for captured in (False, True):
        shards, plain = both(mesh)
        optimizer = gpuopt.AdamW(shards, **OPTIONS, backend=backend, capturable=True)
        set_grads(shards, plain, 0)
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(2):
                optimizer.step()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        if captured:
            with torch.cuda.graph(graph):
                optimizer.step()
        for _ in range(3):
            if captured:
                graph.replay()
            else:
                optimizer.step()
        results.append([shard.to_local().detach().clone() for shard in shards])
    assert all(map(torch.equal, *results))


def test_fsdp2(mesh: DeviceMesh, backend: str) -> None:
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(5, 7), torch.nn.Tanh(), torch.nn.Linear(7, 3)).cuda()
    for layer in (model[0], model[2], model):
        fully_shard(layer, mesh=mesh)
    optimizer = gpuopt.AdamW(model.parameters(), **OPTIONS, backend=backend)
    inputs, losses = torch.randn(16, 5, device="cuda"), []
    for _ in range(20):
        loss = (model(inputs) - 1).square().mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 2
    with torch.no_grad(), optimizer.averaged_weights():
        assert (model(inputs) - 1).square().mean().item() < losses[0]
