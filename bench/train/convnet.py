"""A small convolutional classifier in plain PyTorch."""

from __future__ import annotations

from torch import nn


def conv_net(channels: int) -> nn.Sequential:
    """Two convolutions and two dense layers: images (batch, 1, 8, 8) to logits (batch, 10).

    All of it is smooth: where a rectifier has its kink, a rounding can decide whether a unit learns.
    """
    return nn.Sequential(
        nn.Conv2d(1, channels, 3, padding=1),
        nn.GELU(),
        nn.AvgPool2d(2),
        nn.Conv2d(channels, 2 * channels, 3, padding=1),
        nn.GELU(),
        nn.AvgPool2d(2),
        nn.Flatten(),
        nn.Linear(8 * channels, 8 * channels),
        nn.GELU(),
        nn.Linear(8 * channels, 10),
    )
