"""Where two results differ."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from gpuopt.kernels import blocks
from gpuopt.kernels.formats import Format
from gpuopt.verify.drawing import Array, bits
from gpuopt.verify.tensors import GUARD_BYTE, Tensors


@dataclass(frozen=True)
class Difference:
    """The first element of one plane of one tensor that differs, and how many do.

    Attributes:
        plane: Its name, as in :attr:`~gpuopt.kernels.variant.Variant.planes`.
        tensor: Which of the tensors.
        index: Which of its elements; of a scale, the first that has it.
        count: Entries of this plane of this tensor that differ.
        numel: Elements of this tensor.
        got: The stored bits.
        expected: The oracle's.
    """

    plane: str
    tensor: int
    index: int
    count: int
    numel: int
    got: int
    expected: int


def different(format: Format, a: Sequence[Array], b: Sequence[Array]) -> list[Array]:
    """For each plane, where entries have other bits in ``a`` than in ``b``, unless what they say is NaN in both."""
    with np.errstate(all="ignore"):
        both_nan = np.isnan(blocks.load(format, a)) & np.isnan(blocks.load(format, b))
    return [
        (bits(got) != bits(wanted)) & ~(both_nan if plane.block == 1 else np.isnan(got) & np.isnan(wanted))
        for plane, got, wanted in zip(format.planes, a, b, strict=True)
    ]


def first_difference(actual: Tensors, expected: Tensors) -> Difference | None:
    """The first element that neither has the same bits in both nor is NaN in both; None where there is none."""
    for tensor, numel in enumerate(expected.numels):
        for slot, format in expected.formats.items():
            names = expected.planes_of(slot)
            both = [[tensors.stored(tensor, name) for name in names] for tensors in (actual, expected)]
            for name, got, wanted, differ in zip(names, *both, different(format, *both), strict=True):
                if differ.any():
                    entry = int(differ.argmax())
                    index = entry * expected.planes[name].block
                    found = int(bits(got)[entry]), int(bits(wanted)[entry])
                    return Difference(name, tensor, index, int(differ.sum()), numel, *found)
    return None


def written_outside(tensors: Tensors) -> str | None:
    """Says which byte before or after a tensor was written; None where none was."""
    for tensor, buffers in enumerate(tensors.buffers):
        for name, buffer in buffers.items():
            outside = buffer.copy()
            front = tensors.fronts[tensor][name]
            outside[front : front + tensors.stored(tensor, name).nbytes] = GUARD_BYTE
            if (outside != GUARD_BYTE).any():
                at = int((outside != GUARD_BYTE).argmax()) - front
                return (
                    f"byte {at} of {name} of tensor {tensor} was written, which has {tensors.numels[tensor]} elements "
                    f"of {tensors.planes[name].storage.itemsize} bytes"
                )
    return None
