"""DeepSpeed's ZeRO-1 steps its partitions by gpuopt as it would by torch.optim, with its own clipping.

DeepSpeed is not among the packages for development: it compiles C++ when it starts.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from kit.tolerances import TORCH
from kit.training import BATCH, loss_of, new_loader, new_model
from torch import distributed

import gpuopt

pytest.importorskip("deepspeed", reason="needs deepspeed")

CONFIG = {
    "train_micro_batch_size_per_gpu": BATCH,
    "zero_optimization": {"stage": 1},
    "gradient_clipping": 0.1,
    "zero_allow_untested_optimizer": True,
}


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A process group of this process alone, on the CPU."""
    monkeypatch.setenv("DS_ACCELERATOR", "cpu")
    for name, value in {"RANK": 0, "LOCAL_RANK": 0, "WORLD_SIZE": 1, "LOCAL_SIZE": 1}.items():
        monkeypatch.setenv(name, str(value))
    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    yield
    distributed.destroy_process_group()


@pytest.mark.usefixtures("alone")
def test_training() -> None:
    import deepspeed

    made = []
    for kind, extras in ((gpuopt.AdamW, {"ema_decay": 0.5}), (torch.optim.AdamW, {})):
        model = new_model()
        optimizer = kind(model.parameters(), lr=0.02, **extras)
        engine, *_ = deepspeed.initialize(model=model, optimizer=optimizer, config=CONFIG, dist_init_required=False)
        for batch in new_loader():
            engine.backward(loss_of(engine, batch))
            engine.step()
        assert engine.optimizer.optimizer is optimizer
        partitions = [param for group in optimizer.param_groups for param in group["params"]]
        assert all(("ema" in optimizer.state[param]) == bool(extras) for param in partitions)  # by gpuopt's own step
        made.append([param.detach() for param in model.parameters()])
    rtol, atol = TORCH["float32"]
    torch.testing.assert_close(*made, rtol=rtol, atol=atol)
