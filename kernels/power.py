"""Whole powers by squaring, in an order that every language repeats bit for bit."""

BITS = 24
"""Of an exponent: step counts are float32, which counts no further."""


def power(base: float, exponent: int) -> float:
    """``base ** exponent`` for ``0 <= exponent``, in float64."""
    result = 1.0
    while exponent:
        if exponent & 1:
            result *= base
        base *= base
        exponent >>= 1
    return result
