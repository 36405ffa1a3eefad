r"""Stochastic gradient descent: plain, with momentum, and Nesterov's, in two conventions.

Without a momentum buffer :math:`p \leftarrow p - g\, s`. With one,

.. math::

    b &\leftarrow b \mu + g\, w \\
    d &= b\, c_b + g\, c_g \\
    p &\leftarrow p - d\, s

where the term with :math:`c_g` is left out when :math:`c_g = 0`. The coefficients select the convention:

=====================  =============  ===========  ===========  ===========  =============================
convention             :math:`w`      :math:`c_b`  :math:`c_g`  :math:`s`    is
=====================  =============  ===========  ===========  ===========  =============================
PyTorch momentum       1 - dampening  1            0            lr           b = mu b + w g; p -= lr b
PyTorch Nesterov       1 - dampening  mu           1            lr           p -= lr (g + mu b)
velocity momentum      -lr            1            0            -1           b = mu b - lr g; p += b
velocity Nesterov      -lr            mu           -lr          -1           p += mu b - lr g
=====================  =============  ===========  ===========  ===========  =============================

Sources: Polyak, "Some methods of speeding up the convergence of iteration methods" (1964);
Nesterov (1983), in the form of Sutskever et al., "On the importance of initialization and momentum in deep
learning" (ICML 2013), section 2; Bengio, Boulanger-Lewandowski & Pascanu, "Advances in Optimizing Recurrent
Networks" (ICASSP 2013), section 3.5, for Nesterov's step at the current point.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from gpuopt.kernels.rules.rule import Rule

if TYPE_CHECKING:
    import triton.language as tl


class SGDHyper(NamedTuple):
    """Scalars of one SGD step; all but ``step_size`` count only with a momentum buffer."""

    step_size: float
    momentum: float
    grad_weight: float
    buffer_coefficient: float
    grad_coefficient: float


def hyper_at(step: int, lr: float, momentum: float = 0.0, dampening: float = 0.0, nesterov: bool = False) -> SGDHyper:
    """The scalars of step ``step`` (the first is 1) in PyTorch's convention, in float64.

    The first step takes the gradient undampened, as PyTorch does; it expects a buffer of zeros.
    """
    grad_weight = 1.0 if step == 1 else 1 - dampening
    if nesterov:
        return SGDHyper(lr, momentum, grad_weight, momentum, 1.0)
    return SGDHyper(lr, momentum, grad_weight, 1.0, 0.0)


def velocity_hyper_at(lr: float, momentum: float, nesterov: bool = False) -> SGDHyper:
    """The scalars of any step in the velocity convention of textbooks, in float64."""
    if nesterov:
        return SGDHyper(-1.0, momentum, -lr, momentum, -lr)
    return SGDHyper(-1.0, momentum, -lr, 1.0, 0.0)


def triton_hyper(step, lr, settings):
    """See :class:`~gpuopt.kernels.rules.rule.Rule`."""
    momentum, dampening, nesterov = settings
    grad_weight = tl.where(step == 1, 1.0, 1 - dampening)
    return lr, momentum, grad_weight, tl.where(nesterov != 0, momentum, 1.0), nesterov


def numpy_form(p: Any, g: Any, hyper: Any, momentum_buffer: Any = None) -> tuple[Any, ...]:
    """See :class:`~gpuopt.kernels.rules.rule.Rule`."""
    step_size, momentum, grad_weight, buffer_coefficient, grad_coefficient = hyper
    direction = g
    if momentum_buffer is not None:
        momentum_buffer *= momentum
        momentum_buffer += g * grad_weight
        direction = momentum_buffer * buffer_coefficient
        if grad_coefficient != 0:
            direction += g * grad_coefficient
    p -= direction * step_size
    return p, momentum_buffer


CUDA_FORM = """
T direction = g;
if constexpr (has_momentum_buffer) {
    momentum_buffer = momentum_buffer * momentum + g * grad_weight;
    direction = momentum_buffer * buffer_coefficient;
    if (grad_coefficient != T(0)) direction = direction + g * grad_coefficient;
}
p = p - direction * step_size;
"""


def triton_form(p, g, hyper, momentum_buffer):
    """See :class:`~gpuopt.kernels.rules.rule.Rule`."""
    step_size, momentum, grad_weight, buffer_coefficient, grad_coefficient = hyper
    state = ()
    direction = g
    if momentum_buffer is not None:
        new_buffer = momentum_buffer * momentum + g * grad_weight
        state = (new_buffer,)
        direction = new_buffer * buffer_coefficient
        direction = tl.where(grad_coefficient != 0, direction + g * grad_coefficient, direction)
    p = p - direction * step_size
    return p, state


RULE = Rule(
    name="sgd",
    hyper=SGDHyper,
    required=(),
    optional=("momentum_buffer",),
    kinds={"momentum_buffer": "signed"},
    settings=("momentum", "dampening", "nesterov"),
    hyper_at=hyper_at,
    triton_hyper=triton_hyper,
    numpy_form=numpy_form,
    cuda_form=CUDA_FORM,
    triton_form=triton_form,
)
