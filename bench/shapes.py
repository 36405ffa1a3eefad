"""Lists of parameter shapes: single tensors, many small ones, and models after their published configurations."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from math import prod

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Shapes:
    """A named list of shapes.

    Attributes:
        name: What keys call it.
        title: What tables call it.
        shapes: Of all parameters, in the order of the model's ``parameters()``.
    """

    name: str
    title: str
    shapes: tuple[Shape, ...]

    @cached_property
    def numel(self) -> int:
        """Elements of all tensors together."""
        return sum(map(prod, self.shapes))


def resnet(blocks: tuple[int, ...], width: int = 64, classes: int = 1000) -> tuple[Shape, ...]:
    """A residual network of bottlenecks, as He et al. (2015) publish it and torchvision builds it.

    Args:
        blocks: Number of bottlenecks of each stage.
        width: Channels of the first stage's bottlenecks, which each later stage doubles.
        classes: Outputs.
    """

    def convolution(channels: int, inputs: int, kernel: int) -> list[Shape]:
        return [(channels, inputs, kernel, kernel), (channels,), (channels,)]

    shapes, inputs = convolution(width, 3, 7), width
    for stage, count in enumerate(blocks):
        narrow, wide = width << stage, 4 * width << stage
        for block in range(count):
            shapes += convolution(narrow, inputs, 1) + convolution(narrow, narrow, 3) + convolution(wide, narrow, 1)
            if block == 0:
                shapes += convolution(wide, inputs, 1)
            inputs = wide
    return (*shapes, (classes, inputs), (classes,))


def vit(hidden: int, layers: int, patch: int = 16, image: int = 224, classes: int = 1000) -> tuple[Shape, ...]:
    """A vision transformer, as Dosovitskiy et al. (2020) publish it and torchvision builds it."""
    norm, wide = [(hidden,), (hidden,)], 4 * hidden
    attention = [(3 * hidden, hidden), (3 * hidden,), (hidden, hidden), (hidden,)]
    layer = [*norm, *attention, *norm, (wide, hidden), (wide,), (hidden, wide), (hidden,)]
    positions = (image // patch) ** 2 + 1
    head = [*norm, (classes, hidden), (classes,)]
    return ((1, 1, hidden), (hidden, 3, patch, patch), (hidden,), (1, positions, hidden), *layers * layer, *head)


def gpt2(hidden: int, layers: int, vocabulary: int = 50257, context: int = 1024) -> tuple[Shape, ...]:
    """A GPT-2, as Radford et al. (2019) publish it; the output layer is the embedding."""
    norm, wide = [(hidden,), (hidden,)], 4 * hidden
    attention = [(hidden, 3 * hidden), (3 * hidden,), (hidden, hidden), (hidden,)]
    layer = [*norm, *attention, *norm, (hidden, wide), (wide,), (wide, hidden), (hidden,)]
    return ((vocabulary, hidden), (context, hidden), *layers * layer, *norm)


def llama(
    hidden: int,
    layers: int,
    intermediate: int,
    key_value_heads: int,
    head_dim: int,
    tied_embeddings: bool,
    heads: int = 32,
    vocabulary: int = 128256,
) -> tuple[Shape, ...]:
    """A Llama 3, after the configurations that Meta publishes with the weights."""
    queries, keys = (heads * head_dim, hidden), (key_value_heads * head_dim, hidden)
    wide, narrow = (intermediate, hidden), (hidden, intermediate)
    layer = [queries, keys, keys, (hidden, heads * head_dim), wide, wide, narrow, (hidden,), (hidden,)]
    embedding = (vocabulary, hidden)
    return (embedding, *layers * layer, (hidden,), *([] if tied_embeddings else [embedding]))


ONES = tuple(Shapes(f"one-{power}", f"2^{power}", ((1 << power,),)) for power in (*range(10, 27, 2), 27, 28, 30))
"""One tensor each."""

MODELS = (
    Shapes("resnet-50", "ResNet-50", resnet((3, 4, 6, 3))),
    Shapes("vit-l16", "ViT-L/16", vit(1024, 24)),
    Shapes("gpt2-124m", "GPT-2 124M", gpt2(768, 12)),
    Shapes("llama-3.2-1b", "Llama 3.2 1B", llama(2048, 16, 8192, 8, 64, tied_embeddings=True)),
    Shapes("llama-3.1-8b", "Llama 3.1 8B", llama(4096, 32, 14336, 8, 128, tied_embeddings=False)),
)

SCALED = (
    Shapes("vit-l16-width-256", "ViT-L/16 of a quarter's width", vit(256, 24)),
    Shapes("gpt2-124m-width-192", "GPT-2 124M of a quarter's width", gpt2(192, 12)),
    Shapes("llama-3.2-1b-width-256", "Llama 3.2 1B of an eighth's width", llama(256, 16, 1024, 8, 8, True)),
)
"""For CPUs: as many tensors as the model has, each narrower. Vocabularies and contexts are the model's."""

SHAPES: dict[str, Shapes] = {
    shapes.name: shapes
    for shapes in (
        *ONES,
        Shapes("one-20m", "20M", ((20_000_000,),)),
        Shapes("200x100000", "200 x 100,000", 200 * ((100_000,),)),
        Shapes("300x64", "300 x 64", 300 * ((64,),)),
        Shapes("1000x64", "1,000 x 64", 1000 * ((64,),)),
        Shapes("10000x1000", "10,000 x 1,000", 10_000 * ((1000,),)),
        Shapes("experts-64x4x256", "64 experts of 4 x 256", 64 * 4 * ((256,),)),
        *MODELS,
        *SCALED,
    )
}
