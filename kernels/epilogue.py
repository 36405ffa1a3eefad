r"""What every rule does after its own arithmetic: average the weights, keep a rounded copy of them.

.. math:: a \leftarrow a + (p - a)\, w

The average :math:`a` is an exponential moving average (EMA) of the parameters with decay :math:`1 - w`, taken before
the parameter is rounded to its storage. The copy is written, never read: with master weights the parameter of the
rule is the wide master, and the copy is what the model computes with.

Sources: Polyak & Juditsky, "Acceleration of stochastic approximation by averaging" (SIAM J. Control 30, 1992);
Micikevicius et al., "Mixed Precision Training" (ICLR 2018), section 3.1. Forms as in
:class:`gpuopt.kernels.rules.Rule`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

AVERAGE, COPY = "average", "copy"

SLOTS = (AVERAGE, COPY)
"""Slots that any rule may have, after its own. Both may be absent."""


class Epilogue(NamedTuple):
    """Scalars that come after a rule's own. The defaults change nothing."""

    average_weight: float = 0.0


def numpy_form(p: Any, average: Any, epilogue: Any) -> Any:
    """The new average, or None for none. It may change ``average``, if it is an array, in place."""
    (average_weight,) = epilogue
    if average is not None:
        average += (p - average) * average_weight
    return average


CUDA_FORM = """
if constexpr (has_average) average = average + (p - average) * average_weight;
"""


def triton_form(p, average, epilogue):
    """The new average."""
    return average + (p - average) * epilogue[0]
