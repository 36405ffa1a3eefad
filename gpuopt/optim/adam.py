"""Adam and AdamW for PyTorch."""

from __future__ import annotations

from typing import Any, Unpack

import torch

from gpuopt.kernels.rules import RULES
from gpuopt.optim.base import Fused, Group
from gpuopt.optim.extras import OptionsWithForeach
from gpuopt.optim.settings import check_numbers, check_pair


class Adam(Fused, torch.optim.Adam):
    r"""``torch.optim.Adam`` in one launch.

    .. math::

        m &\leftarrow m + (g - m)(1 - \beta_1), \qquad v \leftarrow v + (g^2 - v)(1 - \beta_2) \\
        p &\leftarrow p - \frac{\eta}{1 - \beta_1^t} \frac{m}{\sqrt{v} / \sqrt{1 - \beta_2^t} + \epsilon}

    Arguments up to ``decoupled_weight_decay`` are torch's, the others :class:`~gpuopt.optim.extras.OptionsWithForeach`.
    Sources: :mod:`gpuopt.kernels.rules.adam`.
    """

    rule = RULES["adam"]
    _for_sparse = "SparseAdam"

    def __init__(
        self,
        params: Any,
        lr: float | torch.Tensor = 1e-3,
        betas: tuple[float | torch.Tensor, float | torch.Tensor] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0,
        amsgrad: bool = False,
        *,
        decoupled_weight_decay: bool = False,
        **options: Unpack[OptionsWithForeach],
    ) -> None:
        check_numbers(lr=lr, eps=eps, weight_decay=weight_decay)
        check_pair(betas, "betas")
        with self._constructing(options) as torchs:
            super().__init__(
                params, lr, betas, eps, weight_decay, amsgrad, decoupled_weight_decay=decoupled_weight_decay, **torchs
            )

    def _options(self, group: Group) -> tuple[str, ...]:
        return ("max_exp_avg_sq",) * bool(group["amsgrad"])

    def _settings(self, group: Group) -> tuple[Any, ...]:
        check_pair(group["betas"], "betas")
        return (*group["betas"], group["eps"], 0.0)

    def _decoupled(self, group: Group) -> bool:
        return bool(group["decoupled_weight_decay"])


_TorchAdamW = torch.optim.AdamW  # by this name it may be ours once somebody has put that in its place


class AdamW(Adam, _TorchAdamW):
    r"""``torch.optim.AdamW`` in one launch: :math:`p \leftarrow p - p\, \eta \lambda` before the step of :class:`Adam`.

    Arguments as in :class:`Adam`, but ``weight_decay`` is 0.01 and always decoupled.
    """

    def __init__(
        self,
        params: Any,
        lr: float | torch.Tensor = 1e-3,
        betas: tuple[float | torch.Tensor, float | torch.Tensor] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        amsgrad: bool = False,
        **options: Unpack[OptionsWithForeach],
    ) -> None:
        check_numbers(lr=lr, eps=eps, weight_decay=weight_decay)
        check_pair(betas, "betas")
        with self._constructing(options) as torchs:
            _TorchAdamW.__init__(self, params, lr, betas, eps, weight_decay, amsgrad, **torchs)
