"""Parameter shapes of published models."""

from __future__ import annotations

from math import prod

Shape = tuple[int, ...]


def llama_shapes(
    hidden: int,
    layers: int,
    intermediate: int,
    heads: int,
    key_value_heads: int,
    head_dim: int,
    vocabulary: int,
    tied_embeddings: bool,
) -> list[Shape]:
    """Shapes of all parameters of a Llama model, in the order of its ``parameters()``."""
    queries, keys = (heads * head_dim, hidden), (key_value_heads * head_dim, hidden)
    wide, narrow = (intermediate, hidden), (hidden, intermediate)
    layer = [queries, keys, keys, (hidden, heads * head_dim), wide, wide, narrow, (hidden,), (hidden,)]
    embedding = (vocabulary, hidden)
    return [embedding, *layers * layer, (hidden,), *([] if tied_embeddings else [embedding])]


LLAMA_3_2_1B = llama_shapes(
    hidden=2048,
    layers=16,
    intermediate=8192,
    heads=32,
    key_value_heads=8,
    head_dim=64,
    vocabulary=128256,
    tied_embeddings=True,
)
"""Llama 3.2 1B, after the configuration that Meta published with it: 1,235,814,400 parameters."""


def numel(shapes: list[Shape]) -> int:
    """Number of elements of all tensors together."""
    return sum(prod(shape) for shape in shapes)
