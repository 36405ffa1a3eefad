r"""Adam, AdamW and AMSGrad.

.. math::

    m &\leftarrow m + (g - m)(1 - \beta_1) \\
    v &\leftarrow v + (g^2 - v)(1 - \beta_2) \\
    \hat v &\leftarrow \max(\hat v, v) \quad\text{with AMSGrad, else } \hat v = v \\
    p &\leftarrow p - \frac{m}{\sqrt{\hat v} / r + \epsilon}\, s

with step size :math:`s` and root of the second bias correction :math:`r` from :func:`hyper_at`.
Decoupled weight decay (AdamW) and coupled decay belong to :mod:`gpuopt.kernels.prologue`.

Sources: Kingma & Ba, "Adam: A Method for Stochastic Optimization" (ICLR 2015), algorithm 1 and section 2;
Loshchilov & Hutter, "Decoupled Weight Decay Regularization" (ICLR 2019), algorithm 2;
Reddi, Kale & Kumar, "On the Convergence of Adam and Beyond" (ICLR 2018), algorithm 2.
"""

from __future__ import annotations

from math import sqrt
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from gpuopt.kernels.power import power
from gpuopt.kernels.rules.rule import Rule
from gpuopt.kernels.select import select

if TYPE_CHECKING:
    import triton.language as tl

    from gpuopt.kernels.triton_math import div_rn, power_rn, sqrt_rn


class AdamHyper(NamedTuple):
    """Scalars of one Adam step."""

    step_size: float
    one_minus_beta1: float
    one_minus_beta2: float
    root_bias2: float
    eps: float


def hyper_at(step: int, lr: float, beta1: float, beta2: float, eps: float, epsilon_hat: bool = False) -> AdamHyper:
    r"""The scalars of step ``step`` (the first is 1), in float64.

    Algorithm 1 of Kingma & Ba, which PyTorch follows, adds epsilon to the corrected root:
    :math:`s = \eta / (1 - \beta_1^t)` and :math:`r = \sqrt{1 - \beta_2^t}`.
    With ``epsilon_hat`` it is the form at the end of their section 2, which TensorFlow and Keras follow:
    :math:`s = \eta \sqrt{1 - \beta_2^t} / (1 - \beta_1^t)` and :math:`r = 1`.
    """
    bias1 = 1 - power(beta1, step)
    root_bias2 = sqrt(1 - power(beta2, step))
    if epsilon_hat:
        return AdamHyper(lr * root_bias2 / bias1, 1 - beta1, 1 - beta2, 1.0, eps)
    return AdamHyper(lr / bias1, 1 - beta1, 1 - beta2, root_bias2, eps)


def triton_hyper(step, lr, settings):
    """See :class:`~gpuopt.kernels.rules.rule.Rule`."""
    beta1, beta2, eps, epsilon_hat = settings
    bias1 = 1 - power_rn(beta1, step)
    root_bias2 = sqrt_rn(1 - power_rn(beta2, step))
    step_size = tl.where(epsilon_hat != 0, lr * root_bias2, lr) / bias1
    return step_size, 1 - beta1, 1 - beta2, tl.where(epsilon_hat != 0, 1.0, root_bias2), eps


def numpy_form(
    p: Any, g: Any, hyper: Any, exp_avg: Any, exp_avg_sq: Any, max_exp_avg_sq: Any = None
) -> tuple[Any, ...]:
    """See :class:`~gpuopt.kernels.rules.rule.Rule`."""
    step_size, one_minus_beta1, one_minus_beta2, root_bias2, eps = hyper
    exp_avg += (g - exp_avg) * one_minus_beta1
    exp_avg_sq += (g * g - exp_avg_sq) * one_minus_beta2
    largest = exp_avg_sq
    if max_exp_avg_sq is not None:
        # Not np.maximum: its choice between zeros of two signs differs between machines.
        greater_or_nan = (exp_avg_sq > max_exp_avg_sq) | (exp_avg_sq != exp_avg_sq)
        max_exp_avg_sq = select(greater_or_nan, exp_avg_sq, max_exp_avg_sq)
        largest = max_exp_avg_sq
    p -= exp_avg / (np.sqrt(largest) / root_bias2 + eps) * step_size
    return p, exp_avg, exp_avg_sq, max_exp_avg_sq


CUDA_FORM = """
exp_avg = exp_avg + (g - exp_avg) * one_minus_beta1;
exp_avg_sq = exp_avg_sq + (g * g - exp_avg_sq) * one_minus_beta2;
T largest = exp_avg_sq;
if constexpr (has_max_exp_avg_sq) {
    const bool greater_or_nan = exp_avg_sq > max_exp_avg_sq || exp_avg_sq != exp_avg_sq;
    max_exp_avg_sq = greater_or_nan ? exp_avg_sq : max_exp_avg_sq;
    largest = max_exp_avg_sq;
}
p = p - exp_avg / (sqrt(largest) / root_bias2 + eps) * step_size;
"""


def triton_form(p, g, hyper, exp_avg, exp_avg_sq, max_exp_avg_sq):
    """See :class:`~gpuopt.kernels.rules.rule.Rule`."""
    step_size, one_minus_beta1, one_minus_beta2, root_bias2, eps = hyper
    exp_avg = exp_avg + (g - exp_avg) * one_minus_beta1
    exp_avg_sq = exp_avg_sq + (g * g - exp_avg_sq) * one_minus_beta2
    state = (exp_avg, exp_avg_sq)
    largest = exp_avg_sq
    if max_exp_avg_sq is not None:
        greater_or_nan = (exp_avg_sq > max_exp_avg_sq) | (exp_avg_sq != exp_avg_sq)
        largest = tl.where(greater_or_nan, exp_avg_sq, max_exp_avg_sq)
        state = state + (largest,)
    p = p - div_rn(exp_avg, div_rn(sqrt_rn(largest), root_bias2) + eps) * step_size
    return p, state


RULE = Rule(
    name="adam",
    hyper=AdamHyper,
    required=("exp_avg", "exp_avg_sq"),
    optional=("max_exp_avg_sq",),
    kinds={"exp_avg": "signed", "exp_avg_sq": "square", "max_exp_avg_sq": "square"},
    settings=("beta1", "beta2", "eps", "epsilon_hat"),
    hyper_at=hyper_at,
    triton_hyper=triton_hyper,
    numpy_form=numpy_form,
    cuda_form=CUDA_FORM,
    triton_form=triton_form,
)
