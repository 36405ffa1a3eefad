"""Where two results differ."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gpuopt.kernels.formats import Format
from gpuopt.verify.drawing import Array, bits
from gpuopt.verify.tensors import GUARD_BYTE, Tensors


@dataclass(frozen=True)
class Difference:
    """The first element of one slot of one tensor that differs, and how many do.

    Attributes:
        slot: Its name.
        tensor: Which of the tensors.
        index: Which of its elements.
        count: Elements of this slot of this tensor that differ.
        numel: Elements of this tensor.
        got: The stored bits.
        expected: The oracle's.
    """

    slot: str
    tensor: int
    index: int
    count: int
    numel: int
    got: int
    expected: int


def different(format: Format, a: Array, b: Array) -> Array:
    """Where two arrays of stored elements neither have the same bits nor are both NaN."""
    with np.errstate(all="ignore"):
        both_nan = np.isnan(format.load(a)) & np.isnan(format.load(b))
    unlike: Array = (bits(a) != bits(b)) & ~both_nan
    return unlike


def first_difference(actual: Tensors, expected: Tensors) -> Difference | None:
    """The first element that neither has the same bits in both nor is NaN in both; None where there is none."""
    for tensor, numel in enumerate(expected.numels):
        for slot, format in expected.formats.items():
            got, wanted = actual.stored(tensor, slot), expected.stored(tensor, slot)
            differ = different(format, got, wanted)
            if differ.any():
                index = int(differ.argmax())
                found = int(bits(got)[index]), int(bits(wanted)[index])
                return Difference(slot, tensor, index, int(differ.sum()), numel, *found)
    return None


def written_outside(tensors: Tensors) -> str | None:
    """Says which byte before or after a tensor was written; None where none was."""
    for tensor, slots in enumerate(tensors.buffers):
        for slot, buffer in slots.items():
            outside = buffer.copy()
            front = tensors.fronts[tensor][slot]
            outside[front : front + tensors.stored(tensor, slot).nbytes] = GUARD_BYTE
            if (outside != GUARD_BYTE).any():
                at = int((outside != GUARD_BYTE).argmax()) - front
                return (
                    f"byte {at} of {slot} of tensor {tensor} was written, which has {tensors.numels[tensor]} elements "
                    f"of {tensors.formats[slot].itemsize} bytes"
                )
    return None
