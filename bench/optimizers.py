"""The optimizers that are benchmarked, under all the names that they have."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from gpuopt.kernels.rules import RULES, Rule


@dataclass(frozen=True)
class Optimizer:
    """One optimizer, with settings that mean the same to everyone.

    Attributes:
        name: The class in ``torch.optim`` and :mod:`gpuopt.optim`.
        title: What tables call it.
        rule_name: Key of :data:`gpuopt.kernels.rules.RULES`.
        state: The rule's slots that it uses.
        settings: Arguments of the class, besides ``lr``.
        arrays_name: The class in :mod:`gpuopt.arrays` and key of :data:`gpuopt.bench.contenders.naive.NAIVE`; None
            where the textbooks' conventions differ.
        arrays_settings: Arguments of that class, besides ``lr``.
        naive_settings: Arguments of the naive code, besides ``lr``.
    """

    name: str
    title: str
    rule_name: str
    state: tuple[str, ...]
    settings: dict[str, Any]
    arrays_name: str | None = None
    arrays_settings: dict[str, Any] = field(default_factory=dict)
    naive_settings: dict[str, Any] = field(default_factory=dict)

    @property
    def rule(self) -> Rule:
        """The arithmetic."""
        return RULES[self.rule_name]


_MOMENTS = ("exp_avg", "exp_avg_sq")
_AS_TORCH = {"eps": 1e-8, "epsilon_hat": False}

OPTIMIZERS = {
    optimizer.name: optimizer
    for optimizer in (
        Optimizer("Adam", "Adam", "adam", _MOMENTS, {"eps": 1e-8}, "Adam", _AS_TORCH, {"eps": 1e-8}),
        Optimizer(
            "AdamW",
            "AdamW",
            "adam",
            _MOMENTS,
            {"eps": 1e-8, "weight_decay": 0.1},
            "AdamW",
            {**_AS_TORCH, "weight_decay": 0.1},
            {"eps": 1e-8, "weight_decay": 0.1},
        ),
        Optimizer(
            "RMSprop",
            "RMSprop",
            "rmsprop",
            ("square_avg",),
            {"alpha": 0.99, "eps": 1e-8},
            "RMSProp",
            {"decay_rate": 0.99, "eps": 1e-8},
            {"decay_rate": 0.99, "eps": 1e-8},
        ),
        Optimizer("SGD", "SGD with momentum", "sgd", ("momentum_buffer",), {"momentum": 0.9}),
        Optimizer("Adagrad", "Adagrad", "adagrad", ("sum",), {"eps": 1e-10}),
    )
}
