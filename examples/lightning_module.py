"""Lightning with gpuopt: mixed precision, and clipping and an average of the weights by the optimizer.

Run it with ``python examples/lightning_module.py``; it needs ``gpuopt[torch,cpu,trainers]``.
"""

import lightning
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import gpuopt


class Curve(lightning.LightningModule):
    """A curve through noisy points."""

    def __init__(self) -> None:
        super().__init__()
        self.model = nn.Sequential(nn.Linear(1, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 1))

    def training_step(self, batch: list[torch.Tensor]) -> torch.Tensor:
        inputs, targets = (each.to(self.device) for each in batch)
        return nn.functional.mse_loss(self.model(inputs), targets)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return gpuopt.AdamW(self.parameters(), lr=5e-3, max_grad_norm=1.0, ema_decay=0.98)


lightning.seed_everything(0, verbose=False)
points = torch.linspace(-3, 3, 2048).unsqueeze(1)
data = TensorDataset(points, torch.sin(2 * points) + 0.05 * torch.randn_like(points))
curve = Curve()
print(f"at first: loss {curve.training_step(list(data.tensors)).item():.4f}")
trainer = lightning.Trainer(max_epochs=5, precision="bf16-mixed", logger=False, enable_checkpointing=False)
trainer.fit(curve, DataLoader(data, batch_size=32, shuffle=True))
optimizer = trainer.optimizers[0]  # self.optimizers().optimizer in the module
print(f"norm of the last gradients: {optimizer.last_grad_norm.item():.3f}")
with optimizer.averaged_weights(), torch.no_grad():
    print(f"averaged weights: loss {curve.training_step(list(data.tensors)).item():.4f}")
