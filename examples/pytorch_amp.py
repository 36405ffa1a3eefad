"""Mixed precision in plain PyTorch: unscaling, clipping, AdamW and a weight average in one pass over memory.

Run it with ``python examples/pytorch_amp.py``; it needs ``gpuopt[torch,cpu]``.
"""

import torch
from torch import nn

from gpuopt import AdamW, GradScaler

device = "cuda" if torch.cuda.is_available() else "cpu"
torch.manual_seed(0)

inputs = torch.rand(4096, 2, device=device) * 2 - 1
targets = (inputs.norm(dim=1) < 0.7).long()  # inside a circle or not
model = nn.Sequential(nn.Linear(2, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 2)).to(device)

optimizer = AdamW(model.parameters(), lr=3e-3, max_grad_norm=1.0, ema_decay=0.98, zero_grads=True)
scaler = GradScaler(device)


def loss_of(batch: torch.Tensor) -> torch.Tensor:
    with torch.autocast(device, torch.float16):
        outputs = model(inputs[batch])
    return nn.functional.cross_entropy(outputs.float(), targets[batch])


for step in range(301):
    loss = loss_of(torch.randint(len(inputs), (256,), device=device))
    scaler.scale(loss).backward()
    scaler.step(optimizer)  # gradients are unscaled, clipped and zeroed on the way, and an overflow skips the step
    scaler.update()
    if step % 100 == 0:
        norm = float("nan") if optimizer.last_grad_norm is None else optimizer.last_grad_norm.item()
        print(f"step {step}: loss {loss.item():.4f}, norm of gradients {norm:.3f}, scale {scaler.get_scale():.0f}")

with torch.no_grad(), optimizer.averaged_weights():
    print(f"averaged weights: loss {loss_of(torch.arange(len(inputs), device=device)).item():.4f}")
