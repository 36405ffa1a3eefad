r"""Adam, AdamW and AMSGrad.

.. math::

    m &\leftarrow m + (g - m)(1 - \beta_1) \\
    v &\leftarrow v + (g^2 - v)(1 - \beta_2) \\
    \hat v &\leftarrow \max(\hat v, v) \quad\text{with AMSGrad, else } \hat v = v \\
    p &\leftarrow p - \frac{m}{\sqrt{\hat v} / r + \epsilon}\, s

with step size :math:`s` and root of the second bias correction :math:`r` from :func:`hyper_at`.

In exact arithmetic :math:`m^2 k \le v` with :math:`k` from :func:`least_ratio`. Where both are stored in few bits,
:math:`v` is taken for no less than that, so that no rounding makes a larger step than gradients can.
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
from gpuopt.kernels.rules.rule import Relation, Rule
from gpuopt.kernels.select import select

if TYPE_CHECKING:
    import triton.language as tl

    from gpuopt.kernels.triton_math import div_rn, power_rn, sqrt_rn


class AdamHyper(NamedTuple):
    """Scalars of one Adam step; ``least_ratio`` counts only where state is stored in few bits."""

    step_size: float
    one_minus_beta1: float
    one_minus_beta2: float
    root_bias2: float
    eps: float
    least_ratio: float


def hyper_at(step: int, lr: float, beta1: float, beta2: float, eps: float, epsilon_hat: bool = False) -> AdamHyper:
    r"""The scalars of step ``step`` (the first is 1), in float64.

    Algorithm 1 of Kingma & Ba, which PyTorch follows, adds epsilon to the corrected root:
    :math:`s = \eta / (1 - \beta_1^t)` and :math:`r = \sqrt{1 - \beta_2^t}`.
    With ``epsilon_hat`` it is the form at the end of their section 2, which TensorFlow and Keras follow:
    :math:`s = \eta \sqrt{1 - \beta_2^t} / (1 - \beta_1^t)` and :math:`r = 1`.
    """
    bias1 = 1 - power(beta1, step)
    root_bias2 = sqrt(1 - power(beta2, step))
    ratio = least_ratio(step, beta1, beta2)
    if epsilon_hat:
        return AdamHyper(lr * root_bias2 / bias1, 1 - beta1, 1 - beta2, 1.0, eps, ratio)
    return AdamHyper(lr / bias1, 1 - beta1, 1 - beta2, root_bias2, eps, ratio)


def least_ratio(step: int, beta1: float, beta2: float) -> float:
    r"""The least that :math:`v / m^2` can be before step ``step``, where betas have always been these, in float64.

    .. math:: k = \frac{1 - \beta_2}{(1 - \beta_1)^2} \Big/ \sum_{i = 0}^{t - 2} \rho^i, \qquad
        \rho = \beta_1^2 / \beta_2

    by the inequality of Cauchy and Schwarz, for the :math:`t - 1` gradients so far, whatever they were. It is 0, which
    says nothing, where there were none, and where :math:`\rho` has no value or is 1.
    """
    if step < 2 or beta2 == 0 or beta1 * beta1 == beta2:
        return 0.0
    rho = beta1 * beta1 / beta2
    return (1 - beta2) / ((1 - beta1) * (1 - beta1)) * ((1 - rho) / (1 - power(rho, step - 1)))


def triton_hyper(step, lr, settings):
    """See :class:`~gpuopt.kernels.rules.rule.Rule`."""
    beta1, beta2, eps, epsilon_hat = settings
    bias1 = 1 - power_rn(beta1, step)
    root_bias2 = sqrt_rn(1 - power_rn(beta2, step))
    step_size = tl.where(epsilon_hat != 0, lr * root_bias2, lr) / bias1
    says_nothing = (step < 2) | (beta2 == 0) | (beta1 * beta1 == beta2)
    rho = beta1 * beta1 / tl.where(says_nothing, 1.0, beta2)
    rest = tl.where(says_nothing, 1.0, 1 - power_rn(rho, step - 1))
    ratio = (1 - beta2) / ((1 - beta1) * (1 - beta1)) * ((1 - rho) / rest)
    ratio = tl.where(says_nothing, 0.0, ratio)
    return step_size, 1 - beta1, 1 - beta2, tl.where(epsilon_hat != 0, 1.0, root_bias2), eps, ratio


def numpy_form(
    p: Any, g: Any, hyper: Any, exp_avg: Any, exp_avg_sq: Any, max_exp_avg_sq: Any = None
) -> tuple[Any, ...]:
    """See :class:`~gpuopt.kernels.rules.rule.Rule`."""
    step_size, one_minus_beta1, one_minus_beta2, root_bias2, eps, _ = hyper
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
    step_size, one_minus_beta1, one_minus_beta2, root_bias2, eps, _ = hyper
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


def numpy_restore(hyper: Any, exp_avg: Any, exp_avg_sq: Any, max_exp_avg_sq: Any = None) -> tuple[Any, ...]:
    """See :class:`~gpuopt.kernels.rules.rule.Relation`."""
    least = exp_avg * exp_avg * hyper[5]
    return exp_avg, select(exp_avg_sq < least, least, exp_avg_sq), max_exp_avg_sq


CUDA_RESTORE = """
const T least = exp_avg * exp_avg * least_ratio;
exp_avg_sq = exp_avg_sq < least ? least : exp_avg_sq;
"""


def triton_restore(hyper, exp_avg, exp_avg_sq, max_exp_avg_sq):
    """See :class:`~gpuopt.kernels.rules.rule.Relation`."""
    least = exp_avg * exp_avg * hyper[5]
    state = (exp_avg, tl.where(exp_avg_sq < least, least, exp_avg_sq))
    if max_exp_avg_sq is not None:
        state = state + (max_exp_avg_sq,)
    return state


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
    relation=Relation(numpy_restore, CUDA_RESTORE, triton_restore),
)
