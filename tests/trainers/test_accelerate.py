"""Accelerate prepares an optimizer of gpuopt as any other.

1. It trains as with torch.optim, with gradients accumulated and clipped by Accelerate, or clipped by the optimizer.
2. A state that it saved it loads again, and goes on with the same bits.
3. ``optimizer.optimizer`` is the optimizer, for ``averaged_weights`` and ``last_grad_norm``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from kit.tolerances import TORCH
from kit.training import loss_of, new_loader, new_model, total_loss

import gpuopt

accelerate = pytest.importorskip("accelerate", reason="needs accelerate")


class Run:
    """Training of a model by Accelerate."""

    def __init__(self, kind: type[torch.optim.Optimizer], clips: bool, **settings: Any) -> None:
        self.accelerator = accelerate.Accelerator(cpu=True, mixed_precision="bf16", gradient_accumulation_steps=2)
        model = new_model()
        made = kind(model.parameters(), lr=0.02, **settings)
        self.model, self.optimizer, self.loader = self.accelerator.prepare(model, made, new_loader())
        self.clips = clips

    def train(self) -> None:
        for batch in self.loader:
            with self.accelerator.accumulate(self.model):
                self.accelerator.backward(loss_of(self.model, batch))
                if self.clips and self.accelerator.sync_gradients:
                    self.accelerator.clip_grad_norm_(self.model.parameters(), 0.1)
                self.optimizer.step()
                self.optimizer.zero_grad()

    def params(self) -> list[torch.Tensor]:
        return [param.detach().clone() for param in self.model.parameters()]


def test_training_and_resuming(tmp_path: Path) -> None:
    expected = Run(torch.optim.AdamW, clips=True)
    clipped = Run(gpuopt.AdamW, clips=True)
    clipping = Run(gpuopt.AdamW, clips=False, max_grad_norm=0.1, ema_decay=0.5)
    for run in (expected, clipped, clipping):
        run.train()
    before = total_loss(clipping.model)
    clipping.accelerator.save_state(str(tmp_path), safe_serialization=False)
    for run in (expected, clipped, clipping):
        run.train()
    rtol, atol = TORCH["float32"]
    for run in (clipped, clipping):
        torch.testing.assert_close(run.params(), expected.params(), rtol=rtol, atol=atol)
    assert total_loss(clipping.model) < before

    optimizer = clipping.optimizer.optimizer
    assert type(optimizer) is gpuopt.AdamW
    assert optimizer.last_grad_norm.item() > 0
    trained = total_loss(clipping.model)
    with optimizer.averaged_weights():
        assert total_loss(clipping.model) != trained

    resumed = Run(gpuopt.AdamW, clips=False)
    resumed.accelerator.load_state(str(tmp_path))
    assert resumed.optimizer.optimizer.max_grad_norm == 0.1
    resumed.train()
    assert all(map(torch.equal, resumed.params(), clipping.params()))
    assert torch.equal(resumed.optimizer.optimizer.last_grad_norm, optimizer.last_grad_norm)
