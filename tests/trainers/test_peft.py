"""With PEFT's LoRA the adapters alone are stepped, as by torch.optim, and the frozen weights keep their bits."""

from __future__ import annotations

import pytest
import torch
from kit.tolerances import TORCH
from kit.training import loss_of, new_loader, new_model
from torch import nn

import gpuopt

peft = pytest.importorskip("peft", reason="needs peft")


def adapted() -> nn.Module:
    torch.manual_seed(2)
    model: nn.Module = peft.get_peft_model(new_model(), peft.LoraConfig(r=2, target_modules=["0", "2"]))
    return model


def test_adapters_are_stepped_alone() -> None:
    model, twin = adapted(), adapted()
    frozen = {name: param.detach().clone() for name, param in model.named_parameters() if not param.requires_grad}
    adapters = [name for name, param in model.named_parameters() if param.requires_grad]
    optimizer = gpuopt.AdamW(model.parameters(), lr=0.02, max_grad_norm=0.1, ema_decay=0.5)  # all of them, as users do
    expected = torch.optim.AdamW(twin.parameters(), lr=0.02)
    for batch in new_loader():
        for each in (model, twin):
            each.zero_grad()
            loss_of(each, batch).backward()
        nn.utils.clip_grad_norm_(twin.parameters(), 0.1)
        optimizer.step()
        expected.step()
    rtol, atol = TORCH["float32"]
    named = dict(model.named_parameters())
    assert adapters
    for name in adapters:
        torch.testing.assert_close(named[name], dict(twin.named_parameters())[name], rtol=rtol, atol=atol)
        assert named[name] in optimizer.state
    assert frozen
    for name, before in frozen.items():
        assert torch.equal(named[name], before)
        assert named[name] not in optimizer.state
    with optimizer.averaged_weights():
        assert all(torch.equal(named[name], optimizer.state[named[name]]["ema"]) for name in adapters)
        assert all(torch.equal(named[name], before) for name, before in frozen.items())
