"""Stochastic gradient descent for PyTorch."""

from __future__ import annotations

from typing import Any, Unpack

import torch

from gpuopt.kernels.rules import RULES
from gpuopt.optim.base import Fused, Group
from gpuopt.optim.extras import OptionsWithForeach, rounds_state
from gpuopt.optim.settings import check_numbers
from gpuopt.optim.sparse import step_sgd


class SGD(Fused, torch.optim.SGD):
    r"""``torch.optim.SGD`` in one launch: plain, with momentum and dampening, and Nesterov's.

    .. math:: b \leftarrow b \mu + g (1 - \tau), \qquad p \leftarrow p - \eta b

    where the first step takes :math:`b = g`. Arguments up to ``nesterov`` are torch's, the others
    :class:`~gpuopt.optim.extras.OptionsWithForeach`. The state has a ``step``, which torch's has not, where it
    is rounded stochastically, and with dampening where only the GPU knows whether it was the first. Sources and
    Nesterov's form: :mod:`gpuopt.kernels.rules.sgd`.
    """

    rule = RULES["sgd"]
    _takes_sparse = True

    def __init__(
        self,
        params: Any,
        lr: float | torch.Tensor = 1e-3,
        momentum: float = 0,
        dampening: float = 0,
        weight_decay: float | torch.Tensor = 0,
        nesterov: bool = False,
        **options: Unpack[OptionsWithForeach],
    ) -> None:
        check_numbers(lr=lr, momentum=momentum, dampening=dampening, weight_decay=weight_decay)
        with self._constructing(options, capturable=False) as torchs:
            super().__init__(params, lr, momentum, dampening, weight_decay, nesterov, **torchs)

    def _options(self, group: Group) -> tuple[str, ...]:
        return ("momentum_buffer",) * bool(group["momentum"] != 0)

    def _step_sparse(self, group: Group, param: torch.Tensor, state: dict[str, Any]) -> None:
        step_sgd(group, param, state)

    def _settings(self, group: Group) -> tuple[Any, ...]:
        return group["momentum"], group["dampening"], float(group["nesterov"])

    def _counts(self, group: Group) -> bool:
        begins_anew = self._scheduled and group["momentum"] != 0 and group["dampening"] != 0
        return bool(begins_anew or rounds_state(self.stochastic_rounding, self.state_dtype))
