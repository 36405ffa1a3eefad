"""Demands on tensors of :mod:`gpuopt.verify`."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from gpuopt.kernels.drivers import numpy as oracle
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
        width = 2 * actual.planes[found.plane].storage.itemsize
        raise AssertionError(
            f"{what} {actual.variant}: {found.plane} of tensor {found.tensor} differs at {found.count} of "
            f"{found.numel} elements, first at {found.index}: got 0x{found.got:0{width}x}, "
            f"expected 0x{found.expected:0{width}x}"
        )


def assert_equal_steps(
    run: Callable[..., None], tensors: Tensors, hypers: Sequence[Sequence[Sequence[float]]], tile: int, what: str = ""
) -> None:
    """Steps ``tensors`` and, by the oracle, a copy with new gradients and one hyper each; compares after every step."""
    expected = tensors.copy()
    rows = np.arange(len(tensors.numels)) % len(hypers[0])
    table, oracle_table = tensors.table(tile, rows), expected.table(oracle.TILE, rows)
    for step, scalars in enumerate(hypers):
        for each in (tensors, expected):
            each.draw(seed=step)
        hyper = tensors.variant.hyper_array(scalars)
        run(table, hyper)
        oracle.run(oracle_table, hyper)
        assert_same_bits(tensors, expected, f"{what}, step {step}:")
