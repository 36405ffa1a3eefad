"""Division and square root that round to nearest, for the Triton forms of rules.

Triton's own ``/`` and ``tl.sqrt`` are approximate on float32 and exact on float64; its ``tl.div_rn`` and
``tl.sqrt_rn`` know float32 alone. The Triton driver binds ``tl`` and these names in a rule's module.
"""

import triton
import triton.language as tl


@triton.jit
def div_rn(a, b):
    """``a / b``, rounded to nearest."""
    if a.dtype == tl.float64:
        return a / b
    else:
        return tl.div_rn(a, b)


@triton.jit
def sqrt_rn(a):
    """Square root of ``a``, rounded to nearest."""
    if a.dtype == tl.float64:
        return tl.sqrt(a)
    else:
        return tl.sqrt_rn(a)
