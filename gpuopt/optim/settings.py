"""What the settings of groups may be."""

from __future__ import annotations

from numbers import Real
from typing import Any

import torch

from gpuopt.kernels.rules import Rule
from gpuopt.kernels.schedule import Common

PLAIN = float, int
"""Types of numbers that need no further look, which every step takes at every setting."""


SWITCHES = frozenset(
    [
        "amsgrad",
        "capturable",
        "centered",
        "decoupled_weight_decay",
        "differentiable",
        "foreach",
        "fused",
        "maximize",
        "nesterov",
    ]
)
"""Settings of groups that are on or off, in one optimizer or another."""


def names_of(rule: Rule) -> tuple[str, ...]:
    """What :func:`gpuopt.kernels.schedule.row_at` takes for ``rule``, by name and in order."""
    return (*Common._fields, *rule.settings)


def check_numbers(**settings: Any) -> None:
    """Refuses what is no number.

    Raises:
        TypeError, ValueError: As :func:`check_number`.
    """
    for name, value in settings.items():
        check_number(value, name)


def check_number(value: Any, name: str) -> None:
    """Refuses what is neither a number nor a tensor of one element.

    Raises:
        TypeError: It is something else, as a string.
        ValueError: It is a tensor of another size.
    """
    is_tensor = isinstance(value, torch.Tensor)
    if not (is_tensor or isinstance(value, Real)):
        raise TypeError(f"{name} must be a number or a tensor of one element, but is {value!r}")
    if is_tensor and value.numel() != 1:
        raise ValueError(f"Tensor {name} must be 1-element, but has the shape {tuple(value.shape)}")


def check_switch(value: Any, name: str) -> None:
    """Refuses a string, which would be taken for True, as that of a configuration file may be.

    Raises:
        TypeError: It is one.
    """
    if isinstance(value, str):
        raise TypeError(f"{name} must be True or False, but is {value!r}")


def check_pair(values: Any, name: str) -> None:
    """Refuses what is not two numbers.

    Raises:
        TypeError: It is no sequence, or one of two has another type.
        ValueError: There are more or fewer.
    """
    if isinstance(values, str) or not hasattr(values, "__len__"):
        raise TypeError(f"{name} must be two numbers, but is {values!r}")
    if len(values) != 2:
        raise ValueError(f"{name} must be two numbers, but is {values!r}")
    for index, value in enumerate(values):
        if type(value) not in PLAIN:
            check_number(value, f"{name}[{index}]")
