"""Hugging Face's Trainer with gpuopt: the optimizer clips, and keeps an average of the weights for evaluation.

Run it with ``python examples/huggingface_trainer.py``; it needs ``gpuopt[torch,cpu,trainers]``.
"""

from tempfile import TemporaryDirectory

import torch
from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainingArguments

import gpuopt

torch.manual_seed(0)
rows = [(torch.arange(32) * step + start) % 64 for step in (1, 3, 5) for start in range(64)]  # sequences that count
dataset = [{"input_ids": row, "labels": row} for row in rows]
config = GPT2Config(vocab_size=64, n_positions=32, n_embd=64, n_layer=2, n_head=2, bos_token_id=0, eos_token_id=0)

with TemporaryDirectory() as folder:
    trainer = Trainer(
        model=GPT2LMHeadModel(config),
        args=TrainingArguments(
            output_dir=folder,
            max_steps=120,
            per_device_train_batch_size=16,
            logging_steps=40,
            save_strategy="no",
            report_to=[],
            max_grad_norm=0.0,  # the optimizer clips
            dataloader_pin_memory=torch.cuda.is_available(),
        ),
        train_dataset=dataset,
        eval_dataset=dataset,
        optimizer_cls_and_kwargs=(gpuopt.AdamW, {"lr": 3e-3, "max_grad_norm": 1.0, "ema_decay": 0.95}),
    )
    print(f"at first: loss {trainer.evaluate()['eval_loss']:.4f}")
    trainer.train()
    optimizer = trainer.optimizer.optimizer  # Accelerate has wrapped it
    print(f"norm of the last gradients: {optimizer.last_grad_norm.item():.3f}")
    with optimizer.averaged_weights():
        print(f"averaged weights: loss {trainer.evaluate()['eval_loss']:.4f}")
