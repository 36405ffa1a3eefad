"""Hugging Face's Trainer takes an optimizer of gpuopt by ``optimizer_cls_and_kwargs``.

1. It trains as with torch.optim and the Trainer's own clipping, in bfloat16.
2. Training that is resumed from one of its checkpoints has the bits of training that was not, extras included.
3. ``trainer.optimizer.optimizer`` is the optimizer, for ``averaged_weights`` and ``last_grad_norm``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import gpuopt

transformers = pytest.importorskip("transformers", reason="needs transformers")
pytest.importorskip("accelerate", reason="needs accelerate")

STEPS = 8
OURS = {"lr": 1e-2, "max_grad_norm": 0.5, "ema_decay": 0.9}


def trainer_of(kind: type[torch.optim.Optimizer], settings: dict[str, Any], folder: Path, **arguments: Any) -> Any:
    torch.manual_seed(0)
    shape = {"vocab_size": 32, "n_positions": 16, "n_embd": 32, "n_layer": 2, "n_head": 2}
    model = transformers.GPT2LMHeadModel(transformers.GPT2Config(**shape, bos_token_id=0, eos_token_id=0))
    rows = (torch.arange(16) + torch.arange(32).unsqueeze(1)) % 8
    given = {
        "output_dir": str(folder),
        "max_steps": STEPS,
        "per_device_train_batch_size": 8,
        "bf16": True,
        "use_cpu": True,
        "report_to": [],
        "save_steps": STEPS // 2,
        "logging_steps": 1,
        "disable_tqdm": True,
        "max_grad_norm": 0.0,  # by the optimizer
        "dataloader_pin_memory": False,
    }
    return transformers.Trainer(
        model=model,
        args=transformers.TrainingArguments(**given | arguments),
        train_dataset=[{"input_ids": row, "labels": row} for row in rows],
        eval_dataset=[{"input_ids": row, "labels": row} for row in rows[:8]],
        optimizer_cls_and_kwargs=(kind, settings),
    )


def losses(trainer: Any) -> list[float]:
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


def test_training_and_resuming(tmp_path: Path) -> None:
    straight = trainer_of(gpuopt.AdamW, OURS, tmp_path / "ours")
    straight.train()
    optimizer = straight.optimizer.optimizer
    assert type(optimizer) is gpuopt.AdamW
    assert all(optimizer.state[param]["step"] == STEPS for param in straight.model.parameters())

    expected = trainer_of(torch.optim.AdamW, {"lr": 1e-2}, tmp_path / "theirs", max_grad_norm=0.5)
    expected.train()
    assert losses(straight) == pytest.approx(losses(expected), rel=0.01)
    assert losses(straight)[-1] < losses(straight)[0] - 0.3
    norm = [entry["grad_norm"] for entry in expected.state.log_history if "grad_norm" in entry][-1]
    assert optimizer.last_grad_norm.item() == pytest.approx(norm, rel=0.02)

    resumed = trainer_of(gpuopt.AdamW, {"lr": 1e-2}, tmp_path / "resumed")
    resumed.train(resume_from_checkpoint=str(tmp_path / "ours" / f"checkpoint-{STEPS // 2}"))
    assert losses(resumed) == losses(straight)
    for param, other in zip(straight.model.parameters(), resumed.model.parameters(), strict=True):
        assert torch.equal(param, other)
        for key, value in optimizer.state[param].items():
            assert torch.equal(value, resumed.optimizer.optimizer.state[other][key])

    trained = straight.evaluate()["eval_loss"]
    with optimizer.averaged_weights():
        averaged = straight.evaluate()["eval_loss"]
    assert averaged != trained
    assert straight.evaluate()["eval_loss"] == trained
