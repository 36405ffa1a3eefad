r"""Lion, a rule that the package does not have: what a user can bring along.

.. math::

    c &= m + (g - m)(1 - \beta_1) \\
    m &\leftarrow m + (g - m)(1 - \beta_2) \\
    p &\leftarrow p - \operatorname{sign}(c)\, \eta

The sign of zero is zero, and that of NaN is NaN.

Source: Chen et al., "Symbolic Discovery of Optimization Algorithms" (NeurIPS 2023), algorithm 2.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from gpuopt.kernels.rules import Rule
from gpuopt.kernels.select import select

if TYPE_CHECKING:
    import triton.language as tl


class LionHyper(NamedTuple):
    """Scalars of one Lion step."""

    step_size: float
    one_minus_beta1: float
    one_minus_beta2: float


def hyper_at(step: int, lr: float, beta1: float, beta2: float) -> LionHyper:
    """The scalars of step ``step``, which are those of any, in float64."""
    return LionHyper(lr, 1 - beta1, 1 - beta2)


def triton_hyper(step, lr, settings):
    """See :class:`~gpuopt.kernels.rules.rule.Rule`."""
    beta1, beta2 = settings
    return lr, 1 - beta1, 1 - beta2


def numpy_form(p: Any, g: Any, hyper: Any, exp_avg: Any) -> tuple[Any, ...]:
    """See :class:`~gpuopt.kernels.rules.rule.Rule`."""
    step_size, one_minus_beta1, one_minus_beta2 = hyper
    away = g - exp_avg
    blend = exp_avg + away * one_minus_beta1
    exp_avg += away * one_minus_beta2
    p -= select(blend > 0, step_size, select(blend < 0, -step_size, blend))
    return p, exp_avg


CUDA_FORM = """
const T away = g - exp_avg;
const T blend = exp_avg + away * one_minus_beta1;
exp_avg = exp_avg + away * one_minus_beta2;
p = p - (blend > T(0) ? step_size : blend < T(0) ? -step_size : blend);
"""


def triton_form(p, g, hyper, exp_avg):
    """See :class:`~gpuopt.kernels.rules.rule.Rule`."""
    step_size, one_minus_beta1, one_minus_beta2 = hyper
    away = g - exp_avg
    blend = exp_avg + away * one_minus_beta1
    exp_avg = exp_avg + away * one_minus_beta2
    # A product, since some versions of Triton take the unary minus for 0 - x, of which the sign of zero is lost.
    p = p - tl.where(blend > 0, step_size, tl.where(blend < 0, step_size * -1, blend))
    return p, (exp_avg,)


RULE = Rule(
    name="lion",
    hyper=LionHyper,
    required=("exp_avg",),
    optional=(),
    kinds={"exp_avg": "signed"},
    settings=("beta1", "beta2"),
    hyper_at=hyper_at,
    triton_hyper=triton_hyper,
    numpy_form=numpy_form,
    cuda_form=CUDA_FORM,
    triton_form=triton_form,
    continuous=False,
)
