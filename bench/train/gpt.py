"""A small GPT (Radford et al., 2019) in plain PyTorch."""

from __future__ import annotations

from math import sqrt
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional


class Size(NamedTuple):
    """How large the model is.

    Attributes:
        context: Most tokens that it looks at.
        width: Of a token's vector; a multiple of ``heads``.
        layers: Blocks of attention and perceptron.
        heads: Of attention.
    """

    context: int
    width: int
    layers: int
    heads: int


class GPT(nn.Module):
    """Predicts each next token from those before it.

    No biases, and the head shares the embedding's weights.
    """

    def __init__(self, vocabulary: int, size: Size) -> None:
        super().__init__()
        self.token = nn.Embedding(vocabulary, size.width)
        self.position = nn.Embedding(size.context, size.width)
        self.blocks = nn.Sequential(*(Block(size) for _ in range(size.layers)))
        self.norm = nn.LayerNorm(size.width, bias=False)
        self.head = nn.Linear(size.width, vocabulary, bias=False)
        self.head.weight = self.token.weight
        for name, weight in self.named_parameters():
            if weight.ndim == 2:  # those that end a branch smaller, so that the sum of branches keeps its scale
                ends_branch = name.endswith(("out.weight", "down.weight"))
                nn.init.normal_(weight, std=0.02 / sqrt(2 * size.layers) if ends_branch else 0.02)

    def forward(self, tokens: Tensor) -> Tensor:
        """Logits of the tokens that follow: (batch, length) of int64 to (batch, length, vocabulary)."""
        x = self.token(tokens) + self.position.weight[: tokens.shape[1]]
        logits: Tensor = self.head(self.norm(self.blocks(x)))
        return logits


class Block(nn.Module):
    """Attention, then a perceptron, each beside a short cut: (batch, length, width) to the same."""

    future: Tensor

    def __init__(self, size: Size) -> None:
        super().__init__()
        width = size.width
        self.heads = size.heads
        self.attention_norm = nn.LayerNorm(width, bias=False)
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)
        self.perceptron_norm = nn.LayerNorm(width, bias=False)
        self.up = nn.Linear(width, 4 * width, bias=False)
        self.down = nn.Linear(4 * width, width, bias=False)
        future = torch.ones(size.context, size.context, dtype=torch.bool).triu(1)
        self.register_buffer("future", future, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Both, one after the other."""
        x = x + self.out(self._attend(self.attention_norm(x)))
        shifted: Tensor = x + self.down(functional.gelu(self.up(self.perceptron_norm(x))))
        return shifted

    def _attend(self, x: Tensor) -> Tensor:
        """Written out, since it is the one form whose backward pass gives the same bits each time on every device."""
        length = x.shape[1]
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        scores = q @ k.transpose(-2, -1) / sqrt(q.shape[-1])
        weights = scores.masked_fill(self.future[:length, :length], -torch.inf).softmax(dim=-1)
        mixed: Tensor = (weights @ v).transpose(1, 2).flatten(2)
        return mixed
