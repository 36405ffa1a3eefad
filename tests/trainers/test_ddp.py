"""Two processes that train under ``DistributedDataParallel`` over gloo, with gpuopt in each.

1. Both have the same bits at the end, and within tolerance what one process with torch.optim has that sees whole
   batches: as they are, with one norm of the gradients in all, and with each stepping its share, under
   ``ZeroRedundancyOptimizer``.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from kit.parallel import EXTRAS, train_all
from kit.tolerances import TORCH
from kit.training import loss_of, new_loader, new_model
from torch.nn.utils import clip_grad_norm_


@pytest.mark.parametrize("how", ["ddp", "zero"])
def test_both_processes_come_to_what_one_comes_to(how: str, tmp_path: Path) -> None:
    model = new_model()
    optimizer = torch.optim.AdamW(model.parameters(), lr=EXTRAS["lr"])
    for batch in new_loader():
        optimizer.zero_grad()
        loss_of(model, batch).backward()
        norm = clip_grad_norm_(model.parameters(), 0.1 if how == "ddp" else float("inf"))
        optimizer.step()
    first, second = train_all(how, tmp_path)
    assert first["kind"] == second["kind"] == "AdamW"
    assert all(map(torch.equal, first["params"], second["params"]))
    rtol, atol = TORCH["float32"]
    torch.testing.assert_close(first["params"], [p.detach() for p in model.parameters()], rtol=rtol, atol=atol)
    if how == "ddp":
        assert torch.equal(first["norm"], second["norm"])
        torch.testing.assert_close(first["norm"], norm, rtol=rtol, atol=atol)
    else:
        assert first["owned"] + second["owned"] == len(first["params"])
        assert min(first["owned"], second["owned"]) > 0
