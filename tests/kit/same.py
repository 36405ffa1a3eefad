"""Demands on tensors of :mod:`gpuopt.verify`."""

from __future__ import annotations

from gpuopt.verify.compare import first_difference, written_outside
from gpuopt.verify.tensors import Tensors


def assert_guarded(tensors: Tensors) -> None:
    """Demands that nothing was written before or after any tensor."""
    outside = written_outside(tensors)
    assert outside is None, f"{tensors.variant}: {outside}"


def assert_same_bits(actual: Tensors, expected: Tensors, what: str = "") -> None:
    """Demands equal bits or NaN on both sides in every slot, and intact guard bands."""
    assert_guarded(actual)
    assert_guarded(expected)
    assert actual.numels == expected.numels
    found = first_difference(actual, expected)
    if found is not None:
        width = 2 * actual.formats[found.slot].itemsize
        raise AssertionError(
            f"{what} {actual.variant}: {found.slot} of tensor {found.tensor} differs at {found.count} of "
            f"{found.numel} elements, first at {found.index}: got 0x{found.got:0{width}x}, "
            f"expected 0x{found.expected:0{width}x}"
        )
