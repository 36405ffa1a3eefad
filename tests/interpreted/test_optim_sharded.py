"""A norm that is agreed on where only the device knows of it, on DTensors of one process.

Parameters, averages and norms have the bits of plain tensors, with and without a scaler, also after an overflow.
"""

from __future__ import annotations

import pytest
import torch
from kit.alone import both, group_of_one, set_grads

import gpuopt

pytestmark = pytest.mark.filterwarnings("ignore:divide by zero:RuntimeWarning")  # hyper rows of step 0, not used


@pytest.mark.parametrize("scaled", [False, True])
def test_the_bits_of_plain_tensors(scaled: bool) -> None:
    with group_of_one("gloo", "cpu") as mesh:
        shards, plain = both(mesh)
        ours, expected = (
            gpuopt.AdamW(params, lr=0.1, max_grad_norm=0.5, ema_decay=0.5, backend="triton", capturable=True)
            for params in (shards, plain)
        )
        scalers = [gpuopt.GradScaler("cpu", init_scale=4.0, enabled=scaled) for _ in range(2)]
        for scaler in scalers:
            scaler.scale(torch.ones(()))
        for step in range(4):
            set_grads(shards, plain, step, float("inf") if scaled and step == 1 else 1.0)
            for scaler, optimizer in zip(scalers, (ours, expected), strict=True):
                scaler.step(optimizer)
                scaler.update()
            assert all(torch.equal(shard.to_local(), param) for shard, param in zip(shards, plain, strict=True))
            for shard, param in zip(shards, plain, strict=True):
                if param in expected.state:
                    assert torch.equal(ours.state[shard]["ema"].to_local(), expected.state[param]["ema"])
            if not (scaled and step == 1):
                assert torch.equal(ours.last_grad_norm, expected.last_grad_norm)
        assert scalers[0].get_scale() == scalers[1].get_scale() == (2.0 if scaled else 1.0)
