r"""AdaGrad, with an optional decay of the learning rate.

.. math::

    h &\leftarrow h + g^2 \\
    p &\leftarrow p - \frac{g}{\sqrt{h} + \epsilon}\, s, \qquad s = \frac{\eta}{1 + (t - 1)\lambda}

with learning-rate decay :math:`\lambda`, as in PyTorch; :math:`h` may start above zero.

Source: Duchi, Hazan & Singer, "Adaptive Subgradient Methods for Online Learning and Stochastic
Optimization" (JMLR 12, 2011), figure 1 with a diagonal matrix.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from gpuopt.kernels.rules.rule import Rule

if TYPE_CHECKING:
    from gpuopt.kernels.triton_math import div_rn, sqrt_rn


class AdagradHyper(NamedTuple):
    """Scalars of one AdaGrad step."""

    step_size: float
    eps: float


def hyper_at(step: int, lr: float, eps: float, lr_decay: float = 0.0) -> AdagradHyper:
    """The scalars of step ``step`` (the first is 1), in float64."""
    return AdagradHyper(lr / (1 + (step - 1) * lr_decay), eps)


def triton_hyper(step, lr, settings):
    """See :class:`~gpuopt.kernels.rules.rule.Rule`."""
    eps, lr_decay = settings
    return lr / (1 + (step - 1) * lr_decay), eps


def numpy_form(p: Any, g: Any, hyper: Any, sum: Any) -> tuple[Any, ...]:
    """See :class:`~gpuopt.kernels.rules.rule.Rule`."""
    step_size, eps = hyper
    sum += g * g
    p -= g / (np.sqrt(sum) + eps) * step_size
    return p, sum


CUDA_FORM = """
sum = sum + g * g;
p = p - g / (sqrt(sum) + eps) * step_size;
"""


def triton_form(p, g, hyper, sum):
    """See :class:`~gpuopt.kernels.rules.rule.Rule`."""
    step_size, eps = hyper
    sum = sum + g * g
    p = p - div_rn(g, sqrt_rn(sum) + eps) * step_size
    return p, (sum,)


RULE = Rule(
    name="adagrad",
    hyper=AdagradHyper,
    required=("sum",),
    optional=(),
    kinds={"sum": "sum"},
    settings=("eps", "lr_decay"),
    hyper_at=hyper_at,
    triton_hyper=triton_hyper,
    numpy_form=numpy_form,
    cuda_form=CUDA_FORM,
    triton_form=triton_form,
)
