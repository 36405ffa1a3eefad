"""Steps that take signals."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from gpuopt.kernels.drivers import numpy as oracle
from gpuopt.kernels.variant import Variant
from gpuopt.verify.given import Given
from gpuopt.verify.tensors import Tensors
from gpuopt.verify.variants import hyper_rows
from kit.same import assert_same_bits


def assert_same_step(
    run: Callable[..., None], variant: Variant, tile: int, numels: list[int], values: dict[str, float]
) -> None:
    """Demands the oracle's bits of a step that takes the signals ``values``."""
    given = Given(variant, **values)
    tensors = Tensors(variant, numels, seed=4)
    expected = tensors.copy()
    rows = np.arange(len(numels)) % 2
    hyper = variant.hyper_array(hyper_rows(variant, 1))
    before = [scalar if scalar is None else scalar.copy() for scalar in given.scalars], hyper.copy()
    run(tensors.table(tile, rows), hyper, signals=given.signals)
    oracle.run(expected.table(oracle.TILE, rows), hyper, signals=given.signals)
    assert_same_bits(tensors, expected, f"{values}:")
    for was, now in zip((*before[0], before[1]), (*given.scalars, hyper), strict=True):
        assert was is None or was.tobytes() == now.tobytes()


def assert_untouched(run: Callable[..., None], variant: Variant, tile: int, numels: list[int], found: float) -> None:
    """Demands that a step for which an infinity was found leaves every byte alone, but gradients to be zeroed."""
    given = Given(variant, loss_scale=2.0, clip_factor=0.5, found_inf=found)
    tensors = Tensors(variant, numels, seed=5, ordinary_share=0.3)
    expected = tensors.copy()
    if variant.zero_grads:
        for tensor in range(len(numels)):
            expected.stored(tensor, "grad")[:] = 0
    rows = np.arange(len(numels)) % 2
    run(tensors.table(tile, rows), variant.hyper_array(hyper_rows(variant, 1)), signals=given.signals)
    assert _bytes(tensors) == _bytes(expected)


def _bytes(tensors: Tensors) -> list[dict[str, bytes]]:
    return [{slot: buffer.tobytes() for slot, buffer in slots.items()} for slots in tensors.buffers]
