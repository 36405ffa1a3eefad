"""Lightning's Trainer takes an optimizer of gpuopt from ``configure_optimizers``.

1. It trains as with torch.optim: in float32; in mixed precision with the Trainer's own clipping, which it refuses to
   optimizers that say they unscale gradients themselves; in bfloat16 alone; with averages of weights by its callback.
2. A checkpoint of the Trainer restores the optimizer, its extras with it, and training goes on with the same bits.
3. ``trainer.optimizers[0]`` is the optimizer, and so is ``self.optimizers().optimizer`` in a module, for
   ``averaged_weights`` and ``last_grad_norm``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from kit.tolerances import TORCH
from kit.training import loss_of, new_loader, new_model, total_loss

import gpuopt

lightning = pytest.importorskip("lightning", reason="needs lightning")

from lightning.pytorch.callbacks import StochasticWeightAveraging  # noqa: E402

EPOCHS = 4


class Regression(lightning.LightningModule):
    def __init__(self, kind: type[torch.optim.Optimizer], **settings: Any) -> None:
        super().__init__()
        self.model, self.kind, self.settings = new_model(), kind, settings
        self.norms: list[torch.Tensor | None] = []

    def training_step(self, batch: list[torch.Tensor]) -> torch.Tensor:
        optimizer = self.optimizers().optimizer
        assert optimizer is self.trainer.optimizers[0]
        self.norms.append(getattr(optimizer, "last_grad_norm", None))
        return loss_of(self.model, batch)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return self.kind(self.parameters(), **{"lr": 0.02, **self.settings})


def fitted(kind: type[torch.optim.Optimizer], settings: dict[str, Any], resumes: Path | None = None, **how: Any) -> Any:
    quiet = ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary")
    trainer = lightning.Trainer(**{"max_epochs": EPOCHS, "accelerator": "cpu", **dict.fromkeys(quiet, False), **how})
    module = Regression(kind, **settings)
    trainer.fit(module, new_loader(), ckpt_path=resumes)
    return trainer


WAYS: dict[str, dict[str, Any]] = {
    "fp32": {},
    "mixed, clipped": {"precision": "bf16-mixed", "gradient_clip_val": 0.1},
    "bf16": {"precision": "bf16-true"},
    "averaged": {"callbacks": lambda: [StochasticWeightAveraging(swa_lrs=0.01, swa_epoch_start=2)]},
}


@pytest.mark.parametrize("way", WAYS)
def test_training(way: str) -> None:
    ours, theirs = (
        fitted(kind, settings, **{name: v() if callable(v) else v for name, v in WAYS[way].items()})
        for kind, settings in ((gpuopt.AdamW, {"ema_decay": 0.5}), (torch.optim.AdamW, {"fused": way == "bf16"}))
    )
    assert type(ours.optimizers[0]) is gpuopt.AdamW
    assert all("ema" in ours.optimizers[0].state[param] for param in ours.model.parameters())  # by gpuopt's own step
    rtol, atol = TORCH["bfloat16" if way == "bf16" else "float32"]
    for param, wanted in zip(ours.model.parameters(), theirs.model.parameters(), strict=True):
        torch.testing.assert_close(param, wanted, rtol=rtol, atol=atol)  # torch.optim rounds bfloat16 once if fused


def test_resuming_and_the_optimizer_itself(tmp_path: Path) -> None:
    extras = {"max_grad_norm": 0.1, "ema_decay": 0.5}
    half = fitted(gpuopt.AdamW, extras, max_epochs=EPOCHS // 2)
    half.save_checkpoint(tmp_path / "half.ckpt")
    straight = fitted(gpuopt.AdamW, extras)
    resumed = fitted(gpuopt.AdamW, {}, resumes=tmp_path / "half.ckpt")
    for param, wanted in zip(resumed.model.parameters(), straight.model.parameters(), strict=True):
        assert torch.equal(param, wanted)

    optimizer = resumed.optimizers[0]
    assert (optimizer.max_grad_norm, optimizer.ema_decay) == (0.1, 0.5)
    assert torch.equal(optimizer.last_grad_norm, straight.optimizers[0].last_grad_norm)
    assert resumed.lightning_module.norms[-1] is not None
    trained = total_loss(resumed.lightning_module.model)
    with optimizer.averaged_weights():
        assert total_loss(resumed.lightning_module.model) != trained
    assert total_loss(resumed.lightning_module.model) == trained
