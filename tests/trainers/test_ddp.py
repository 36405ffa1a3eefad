"""Two processes that train over gloo, with gpuopt in each.

1. Both have the same bits at the end, and within tolerance what one process with torch.optim has that sees whole
   batches: under ``DistributedDataParallel``, with one norm of the gradients in all, also where gradients are views
   into its buckets, which are not aligned; with each stepping its share, under ``ZeroRedundancyOptimizer``; and under
   Accelerate's FSDP2, which puts other parameters into the optimizer once it has sharded them.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from kit.parallel import EXTRAS, WAYS, train_all
from kit.tolerances import TORCH
from kit.training import loss_of, new_loader, new_model
from torch.nn.utils import clip_grad_norm_


@pytest.mark.parametrize("how", WAYS)
def test_both_processes_come_to_what_one_comes_to(how: str, tmp_path: Path) -> None:
    if how == "accelerate":
        pytest.importorskip("accelerate")
    model = new_model()
    optimizer = torch.optim.AdamW(model.parameters(), lr=EXTRAS["lr"])
    for batch in new_loader():
        optimizer.zero_grad()
        loss_of(model, batch).backward()
        norm = clip_grad_norm_(model.parameters(), float("inf") if how == "zero" else 0.1)
        optimizer.step()
    first, second = train_all(how, tmp_path)
    assert first["kind"] == second["kind"] == "AdamW"
    assert all(map(torch.equal, first["params"], second["params"]))
    rtol, atol = TORCH["float32"]
    torch.testing.assert_close(first["params"], [p.detach() for p in model.parameters()], rtol=rtol, atol=atol)
    assert bool(first["misaligned"]) == (how == "ddp with views")
    if how != "zero":
        assert torch.equal(first["norm"], second["norm"])
        torch.testing.assert_close(first["norm"], norm, rtol=rtol, atol=atol)
    else:
        assert first["owned"] + second["owned"] == len(first["params"])
        assert min(first["owned"], second["owned"]) > 0
