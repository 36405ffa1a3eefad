"""Lightning's Fabric sets an optimizer of gpuopt up as any other, and ``optimizer.optimizer`` is it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from kit.tolerances import TORCH
from kit.training import loss_of, new_loader, new_model, total_loss

import gpuopt

lightning = pytest.importorskip("lightning", reason="needs lightning")


def set_up(kind: type[torch.optim.Optimizer], **settings: Any) -> tuple[Any, ...]:
    fabric = lightning.Fabric(accelerator="cpu", devices=1, precision="bf16-mixed")
    model = new_model()
    return fabric, *fabric.setup(model, kind(model.parameters(), lr=0.02, **settings))


def train(fabric: Any, model: Any, optimizer: Any, clips: bool = False) -> None:
    for batch in fabric.setup_dataloaders(new_loader()):
        optimizer.zero_grad()
        fabric.backward(loss_of(model, batch))
        if clips:
            fabric.clip_gradients(model, optimizer, max_norm=0.1)
        optimizer.step()


def test_training_and_resuming(tmp_path: Path) -> None:
    ours = set_up(gpuopt.AdamW, max_grad_norm=0.1, ema_decay=0.5)
    clipped, theirs = set_up(gpuopt.AdamW), set_up(torch.optim.AdamW, fused=True)
    train(*ours)
    ours[0].save(tmp_path / "state.ckpt", {"model": ours[1], "optimizer": ours[2]})
    train(*ours)
    for run in (clipped, theirs):
        for _ in range(2):
            train(*run, clips=True)
    rtol, atol = TORCH["float32"]
    for param, other, wanted in zip(*(run[1].parameters() for run in (ours, clipped, theirs)), strict=True):
        torch.testing.assert_close(param, wanted, rtol=rtol, atol=atol)
        torch.testing.assert_close(other, wanted, rtol=rtol, atol=atol)

    resumed = set_up(gpuopt.AdamW)
    resumed[0].load(tmp_path / "state.ckpt", {"model": resumed[1], "optimizer": resumed[2]})
    train(*resumed)
    assert all(map(torch.equal, resumed[1].parameters(), ours[1].parameters()))

    optimizer = resumed[2].optimizer
    assert type(optimizer) is gpuopt.AdamW
    assert torch.equal(optimizer.last_grad_norm, ours[2].optimizer.last_grad_norm)
    trained = total_loss(resumed[1])
    with optimizer.averaged_weights():
        assert total_loss(resumed[1]) != trained
