"""AdaGrad for PyTorch."""

from __future__ import annotations

from typing import Any, Unpack

import torch

from gpuopt.kernels.rules import RULES
from gpuopt.optim.base import Fused, Group
from gpuopt.optim.extras import Options
from gpuopt.optim.settings import check_numbers
from gpuopt.optim.sparse import step_adagrad
from gpuopt.optim.state import STEP, Wanted, state_of


class Adagrad(Fused, torch.optim.Adagrad):
    r"""``torch.optim.Adagrad`` in one launch.

    .. math::

        h \leftarrow h + g^2, \qquad p \leftarrow p - \frac{\eta}{1 + (t - 1) \lambda} \frac{g}{\sqrt{h} + \epsilon}

    Arguments up to ``foreach``, which chooses nothing, are torch's, the others those of
    :class:`~gpuopt.optim.extras.Options`. State is made at the first step, not at construction.
    Source: :mod:`gpuopt.kernels.rules.adagrad`.
    """

    rule = RULES["adagrad"]
    _takes_sparse = True

    def __init__(
        self,
        params: Any,
        lr: float | torch.Tensor = 1e-2,
        lr_decay: float = 0,
        weight_decay: float = 0,
        initial_accumulator_value: float = 0,
        eps: float = 1e-10,
        foreach: bool | None = None,
        **options: Unpack[Options],
    ) -> None:
        initial = {"initial_accumulator_value": initial_accumulator_value}
        check_numbers(lr=lr, lr_decay=lr_decay, weight_decay=weight_decay, eps=eps, **initial)
        with self._constructing(options, capturable=False) as torchs:
            super().__init__(params, lr, lr_decay, weight_decay, initial_accumulator_value, eps, foreach, **torchs)
        self.state.clear()

    def share_memory(self) -> None:
        """Moves the sums to shared memory, making the state of every parameter if need be."""
        for param in self._params():
            wanted = Wanted(self.rule, self.rule.slots, self._initial(), self.state_dtype)
            state = state_of(param, self.state.get(param, {}), wanted)
            self.state[param] = {STEP: torch.tensor(0.0, device="cpu"), **state}
        super().share_memory()

    def _step_sparse(self, group: Group, param: torch.Tensor, state: dict[str, Any]) -> None:
        step_adagrad(group, param, state, self._initial())

    def _settings(self, group: Group) -> tuple[Any, ...]:
        return group["eps"], group["lr_decay"]

    def _initial(self) -> float:
        return float(self.defaults["initial_accumulator_value"])
