"""RMSprop for PyTorch."""

from __future__ import annotations

from typing import Any, Unpack

import torch

from gpuopt.kernels.rules import RULES
from gpuopt.optim.base import Fused, Group
from gpuopt.optim.extras import Extras
from gpuopt.optim.settings import check_numbers


class RMSprop(Fused, torch.optim.RMSprop):
    r"""``torch.optim.RMSprop`` in one launch: plain, centered, with momentum, and both.

    .. math:: v \leftarrow v + (g^2 - v)(1 - \alpha), \qquad p \leftarrow p - \eta \frac{g}{\sqrt{v} + \epsilon}

    Arguments up to ``differentiable``, which must be False, are torch's, and ``foreach`` chooses nothing. The others
    are those of :class:`~gpuopt.optim.extras.Extras`, and ``fused`` as in :class:`~gpuopt.optim.extras.Options`.
    Sources and the other forms: :mod:`gpuopt.kernels.rules.rmsprop`.
    """

    rule = RULES["rmsprop"]

    def __init__(
        self,
        params: Any,
        lr: float | torch.Tensor = 1e-2,
        alpha: float = 0.99,
        eps: float = 1e-8,
        weight_decay: float = 0,
        momentum: float = 0,
        centered: bool = False,
        capturable: bool = False,
        foreach: bool | None = None,
        maximize: bool = False,
        differentiable: bool = False,
        *,
        fused: bool | None = None,
        **extras: Unpack[Extras],
    ) -> None:
        check_numbers(lr=lr, alpha=alpha, eps=eps, weight_decay=weight_decay, momentum=momentum)
        with self._constructing({**extras, "fused": fused}, fused=None) as torchs:
            own = (alpha, eps, weight_decay, momentum, centered, capturable, foreach, maximize, differentiable)
            super().__init__(params, lr, *own, **torchs)

    def _options(self, group: Group) -> tuple[str, ...]:
        return ("grad_avg",) * bool(group["centered"]) + ("momentum_buffer",) * bool(group["momentum"] > 0)

    def _settings(self, group: Group) -> tuple[Any, ...]:
        return group["alpha"], group["eps"], group["momentum"]
