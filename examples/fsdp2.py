"""FSDP2: a small transformer, sharded, clipped by the norm of the whole, averaged, saved, and gone on with.

Run it with ``torchrun --nproc-per-node 2 examples/fsdp2.py checkpoints``, and again with another number of processes:
it goes on from where it was. It needs ``gpuopt[torch,cpu]``.
"""

import gc
import sys
from pathlib import Path

import torch
from torch import distributed, nn
from torch.distributed import checkpoint
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict
from torch.distributed.fsdp import fully_shard

from gpuopt import AdamW

WORDS, WIDTH, STEPS = 32, 64, 60
device = "cuda" if torch.cuda.is_available() else "cpu"


class Model(nn.Module):
    """Each word tells the next."""

    def __init__(self) -> None:
        super().__init__()
        block = nn.TransformerEncoderLayer(WIDTH, 4, 4 * WIDTH, dropout=0.0, batch_first=True, norm_first=True)
        self.embedding, self.head = nn.Embedding(WORDS, WIDTH), nn.Linear(WIDTH, WORDS)
        self.encoder = nn.TransformerEncoder(block, 2, enable_nested_tensor=False)

    def forward(self, words: torch.Tensor) -> torch.Tensor:
        logits = self.head(self.encoder(self.embedding(words)))
        return nn.functional.cross_entropy(logits.flatten(0, 1), (words + 1).flatten() % WORDS)


def main(folder: Path) -> None:
    rank = distributed.get_rank()
    torch.manual_seed(0)  # all processes start from the same weights
    model = Model().to(device)
    for block in model.encoder.layers:
        fully_shard(block)
    fully_shard(model)
    optimizer = AdamW(model.parameters(), lr=1e-3, max_grad_norm=1.0, ema_decay=0.95)

    first = max((int(path.parent.name) for path in folder.glob("*/.metadata")), default=0)  # of those that are whole
    if first:
        own, its = get_state_dict(model, optimizer)
        checkpoint.load({"model": own, "optimizer": its}, checkpoint_id=folder / str(first))
        set_state_dict(model, optimizer, model_state_dict=own, optim_state_dict=its)

    torch.manual_seed(1000 * first + rank)  # and then see different data
    for step in range(first, first + STEPS + 1):
        loss = model(torch.randint(WORDS, (16, 12), device=device))
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        if rank == 0 and step % 20 == 0:
            print(f"step {step}: loss {loss.item():.4f}, norm of all gradients {optimizer.last_grad_norm.item():.3f}")

    with torch.no_grad(), optimizer.averaged_weights():
        averaged = model(torch.randint(WORDS, (64, 12), device=device))
    if rank == 0:
        print(f"averaged weights: loss {averaged.item():.4f}")
    own, its = get_state_dict(model, optimizer)
    checkpoint.save({"model": own, "optimizer": its}, checkpoint_id=folder / str(first + STEPS))


if __name__ == "__main__":
    if device == "cuda":
        torch.cuda.set_device(distributed.get_node_local_rank())
    distributed.init_process_group()
    main(Path(sys.argv[1]))
    gc.collect()  # a model that outlives its group may have gloo abort in the end
    distributed.destroy_process_group()
