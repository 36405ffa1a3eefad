"""timm's factory makes an optimizer of gpuopt once it is registered, with its groups of weight and layer decay."""

from __future__ import annotations

import pytest
import torch
from kit.tolerances import TORCH
from torch import nn

import gpuopt

timm = pytest.importorskip("timm", reason="needs timm")

from timm.optim._optim_factory import OptimInfo, create_optimizer_v2, default_registry  # noqa: E402


def test_training_with_layer_decay() -> None:
    default_registry.register(OptimInfo("gpuoptadamw", gpuopt.AdamW, description="AdamW in one launch", has_betas=True))
    made = []
    for name, extras in (("gpuoptadamw", {"max_grad_norm": 0.5, "ema_decay": 0.5}), ("adamw", {})):
        torch.manual_seed(0)
        model = timm.create_model(
            "vit_tiny_patch16_224", img_size=32, depth=2, embed_dim=24, num_heads=2, num_classes=4
        )
        optimizer = create_optimizer_v2(model, opt=name, lr=1e-3, weight_decay=0.05, layer_decay=0.7, **extras)
        for _ in range(3):
            optimizer.zero_grad()
            images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
            nn.functional.cross_entropy(model(images), torch.tensor([0, 1])).backward()
            if not extras:
                nn.utils.clip_grad_norm_(model.parameters(), 0.5)
            optimizer.step()
        made.append((model, optimizer))
    (model, ours), (twin, theirs) = made
    assert type(ours) is gpuopt.AdamW
    assert len(ours.param_groups) == len(theirs.param_groups) > 2
    assert {group["weight_decay"] for group in ours.param_groups} == {0.0, 0.05}
    rtol, atol = TORCH["float32"]
    for param, wanted in zip(model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(param, wanted, rtol=rtol, atol=max(atol, 1e-6))  # a gradient that is but rounding
    assert ours.last_grad_norm is not None
    with torch.no_grad():
        trained = model(images)
        with ours.averaged_weights():
            assert not torch.equal(model(images), trained)
        assert torch.equal(model(images), trained)
