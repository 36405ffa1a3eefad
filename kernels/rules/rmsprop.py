r"""RMSprop: plain, centered, with momentum, and both.

.. math::

    v &\leftarrow v + (g^2 - v)(1 - \alpha) \\
    a &\leftarrow a + (g - a)(1 - \alpha), \quad u = v - a^2 \quad\text{if centered, else } u = v \\
    d &= g / (\sqrt{u} + \epsilon) \\
    b &\leftarrow b \mu + d, \quad d = b \quad\text{with momentum} \\
    p &\leftarrow p - d\, s

The square root comes before epsilon, as in PyTorch; TensorFlow takes it after.

If centered, the variance :math:`u` is never negative in exact arithmetic. Where :math:`v` and :math:`a` are stored in
few bits, :math:`u` is stored in place of :math:`v = u + a^2`, since a difference of what was rounded might be anything.

Sources: Tieleman & Hinton, "Lecture 6.5, rmsprop" (Neural Networks for Machine Learning, 2012);
centered: Graves, "Generating Sequences With Recurrent Neural Networks" (2013), equations 38 to 45.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from gpuopt.kernels.rules.rule import Relation, Rule

if TYPE_CHECKING:
    from gpuopt.kernels.triton_math import div_rn, sqrt_rn


class RMSpropHyper(NamedTuple):
    """Scalars of one RMSprop step; ``momentum`` counts only with a momentum buffer."""

    step_size: float
    one_minus_alpha: float
    momentum: float
    eps: float


def hyper_at(step: int, lr: float, alpha: float, eps: float, momentum: float = 0.0) -> RMSpropHyper:
    r"""The scalars of any step, in float64: :math:`s = \eta`, the same at every ``step``."""
    return RMSpropHyper(lr, 1 - alpha, momentum, eps)


def triton_hyper(step, lr, settings):
    """See :class:`~gpuopt.kernels.rules.rule.Rule`."""
    alpha, eps, momentum = settings
    return lr, 1 - alpha, momentum, eps


def numpy_form(
    p: Any, g: Any, hyper: Any, square_avg: Any, grad_avg: Any = None, momentum_buffer: Any = None
) -> tuple[Any, ...]:
    """See :class:`~gpuopt.kernels.rules.rule.Rule`."""
    step_size, one_minus_alpha, momentum, eps = hyper
    square_avg += (g * g - square_avg) * one_minus_alpha
    variance = square_avg
    if grad_avg is not None:
        grad_avg += (g - grad_avg) * one_minus_alpha
        variance = square_avg - grad_avg * grad_avg
    direction = g / (np.sqrt(variance) + eps)
    if momentum_buffer is not None:
        momentum_buffer *= momentum
        momentum_buffer += direction
        direction = momentum_buffer
    p -= direction * step_size
    return p, square_avg, grad_avg, momentum_buffer


CUDA_FORM = """
square_avg = square_avg + (g * g - square_avg) * one_minus_alpha;
T variance = square_avg;
if constexpr (has_grad_avg) {
    grad_avg = grad_avg + (g - grad_avg) * one_minus_alpha;
    variance = square_avg - grad_avg * grad_avg;
}
T direction = g / (sqrt(variance) + eps);
if constexpr (has_momentum_buffer) {
    momentum_buffer = momentum_buffer * momentum + direction;
    direction = momentum_buffer;
}
p = p - direction * step_size;
"""


def triton_form(p, g, hyper, square_avg, grad_avg, momentum_buffer):
    """See :class:`~gpuopt.kernels.rules.rule.Rule`."""
    step_size, one_minus_alpha, momentum, eps = hyper
    square_avg = square_avg + (g * g - square_avg) * one_minus_alpha
    state = (square_avg,)
    variance = square_avg
    if grad_avg is not None:
        new_grad_avg = grad_avg + (g - grad_avg) * one_minus_alpha
        state = state + (new_grad_avg,)
        variance = square_avg - new_grad_avg * new_grad_avg
    direction = div_rn(g, sqrt_rn(variance) + eps)
    if momentum_buffer is not None:
        direction = momentum_buffer * momentum + direction
        state = state + (direction,)
    p = p - direction * step_size
    return p, state


def numpy_restore(hyper: Any, square_avg: Any, grad_avg: Any = None, momentum_buffer: Any = None) -> tuple[Any, ...]:
    """See :class:`~gpuopt.kernels.rules.rule.Relation`."""
    if grad_avg is not None:
        square_avg = square_avg + grad_avg * grad_avg
    return square_avg, grad_avg, momentum_buffer


def numpy_reduce(hyper: Any, square_avg: Any, grad_avg: Any = None, momentum_buffer: Any = None) -> tuple[Any, ...]:
    """See :class:`~gpuopt.kernels.rules.rule.Relation`."""
    if grad_avg is not None:
        square_avg = square_avg - grad_avg * grad_avg
    return square_avg, grad_avg, momentum_buffer


CUDA_RESTORE = """
if constexpr (has_grad_avg) square_avg = square_avg + grad_avg * grad_avg;
"""

CUDA_REDUCE = """
if constexpr (has_grad_avg) square_avg = square_avg - grad_avg * grad_avg;
"""


def triton_restore(hyper, square_avg, grad_avg, momentum_buffer):
    """See :class:`~gpuopt.kernels.rules.rule.Relation`."""
    state = (square_avg,)
    if grad_avg is not None:
        state = (square_avg + grad_avg * grad_avg, grad_avg)
    if momentum_buffer is not None:
        state = state + (momentum_buffer,)
    return state


def triton_reduce(hyper, square_avg, grad_avg, momentum_buffer):
    """See :class:`~gpuopt.kernels.rules.rule.Relation`."""
    state = (square_avg,)
    if grad_avg is not None:
        state = (square_avg - grad_avg * grad_avg, grad_avg)
    if momentum_buffer is not None:
        state = state + (momentum_buffer,)
    return state


RULE = Rule(
    name="rmsprop",
    hyper=RMSpropHyper,
    required=("square_avg",),
    optional=("grad_avg", "momentum_buffer"),
    kinds={"square_avg": "square", "grad_avg": "signed", "momentum_buffer": "signed"},
    settings=("alpha", "eps", "momentum"),
    hyper_at=hyper_at,
    triton_hyper=triton_hyper,
    numpy_form=numpy_form,
    cuda_form=CUDA_FORM,
    triton_form=triton_form,
    relation=Relation(numpy_restore, CUDA_RESTORE, triton_restore, numpy_reduce, CUDA_REDUCE, triton_reduce),
)
