r"""What every rule does before its own arithmetic: scale the gradient, decay the weights.

.. math::

    g &\leftarrow g\, c \\
    g &\leftarrow g + p\, \lambda \quad\text{if } \lambda \ne 0 \\
    p &\leftarrow p - p\, d \quad\text{if } d \ne 0

The scale :math:`c` holds the inverse loss scale, a clipping factor and, by its sign, whether to maximise.
Coupled weight decay :math:`\lambda` is the L2 penalty; decoupled decay (Loshchilov & Hutter, "Decoupled Weight
Decay Regularization", ICLR 2019) takes :math:`d = \eta \lambda` of the parameter. Written so, and not as
:math:`p (1 - d)`, because a :math:`d` of 1e-5 keeps 24 bits of its own but only 7 of them beside a 1.
Both are scalars of the step, so tensors with and without decay share one launch. Forms as in
:class:`gpuopt.kernels.rules.Rule`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import triton.language as tl


class Prologue(NamedTuple):
    """Scalars that come before a rule's own. The defaults change nothing."""

    grad_scale: float = 1.0
    weight_decay: float = 0.0
    decoupled_decay: float = 0.0


def prologue_at(
    lr: float,
    weight_decay: float = 0.0,
    decoupled: bool = False,
    maximize: bool = False,
    grad_scale: float = 1.0,
) -> Prologue:
    """The scalars of one step, in float64, from what a user sets."""
    signed = -grad_scale if maximize else grad_scale
    if decoupled:
        return Prologue(signed, 0.0, lr * weight_decay)
    return Prologue(signed, weight_decay, 0.0)


def triton_hyper(lr, weight_decay, decoupled, maximize):
    """As :func:`prologue_at`, on Triton tensors of float64; what is on or off is 1 or 0."""
    coupled = tl.where(decoupled != 0, 0.0, weight_decay)
    return tl.where(maximize != 0, -1.0, 1.0), coupled, tl.where(decoupled != 0, lr * weight_decay, 0.0)


def numpy_form(p: Any, g: Any, prologue: Any) -> tuple[Any, Any]:
    """``(p, g)`` as the rule is to see them."""
    grad_scale, weight_decay, decoupled_decay = prologue
    if grad_scale != 1:  # a product with 1 changes no bit, but in NumPy it is a pass over memory
        g = g * grad_scale
    if weight_decay != 0:
        g = g + p * weight_decay
    if decoupled_decay != 0:
        p -= p * decoupled_decay
    return p, g


CUDA_FORM = """
g = g * grad_scale;
if (weight_decay != T(0)) g = g + p * weight_decay;
if (decoupled_decay != T(0)) p = p - p * decoupled_decay;
"""


def triton_form(p, g, prologue):
    """``(p, g)`` as the rule is to see them."""
    grad_scale, weight_decay, decoupled_decay = prologue
    g = g * grad_scale
    g = tl.where(weight_decay != 0, g + p * weight_decay, g)
    p = tl.where(decoupled_decay != 0, p - p * decoupled_decay, p)
    return p, g
