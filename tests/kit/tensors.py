"""Tensors in host memory for a variant: drawn, guarded, put in a table, compared bit by bit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from gpuopt.kernels.formats import Format
from gpuopt.kernels.table import Table
from gpuopt.kernels.variant import Variant

Array = np.ndarray[Any, Any]

GUARD = 64
"""Bytes of ``GUARD_BYTE`` before and after every tensor; a multiple of 16, so that tensors stay aligned."""

GUARD_BYTE = 0xA5


def bits(stored: Array) -> Array:
    """Stored elements as unsigned integers of the same size."""
    return stored.view(f"u{stored.itemsize}")


def stored(format: Format, values: Array) -> Array:
    """``values`` as the format's oracle stores them."""
    out = np.empty(values.shape, format.storage)
    with np.errstate(all="ignore"):
        out[...] = format.store(values)
    return out


def edges(format: Format) -> Array:
    """The bits where an IEEE format changes its ways, in both signs."""
    one, infinity = (int(x) for x in bits(stored(format, np.array([1.0, np.inf]))))
    least_normal = infinity & -infinity
    positive = [0, 1, least_normal - 1, least_normal, one, one + 1, infinity - 1, infinity, infinity + 1]
    sign = 1 << (8 * format.itemsize - 1)
    return np.array([*positive, *(sign | x for x in positive)], f"u{format.itemsize}")


def whole_range(format: Format, numel: int, rng: np.random.Generator) -> Array:
    """Bits over the whole range of a format, about every fifth an edge."""
    drawn = np.frombuffer(rng.bytes(numel * format.itemsize), f"u{format.itemsize}")
    return np.where(rng.random(numel) < 0.2, rng.choice(edges(format), numel), drawn)


def ordinary(slot: str, format: Format, numel: int, rng: np.random.Generator) -> Array:
    """Bits of values as they come in training; state is not negative, since some of it goes under a root."""
    normal = rng.standard_normal(numel)
    return bits(stored(format, {"param": normal, "grad": 0.1 * normal}.get(slot, 0.01 * np.abs(normal))))


class Tensors:
    """Every slot of several tensors, in memory of their own between guard bands.

    Args:
        variant: Its formats are those of the slots.
        numels: Elements of each tensor.
        seed: Of all that is drawn.
        ordinary_share: Share of elements whose slots are all of ordinary magnitude, so that roundings show; the
            others are drawn from the whole range of their formats, NaN and infinities included.
        misaligned: Whether one slot of each tensor, another one each time, starts one element late.
        guard: Bytes of each guard band; 0 where a sanitizer guards better.
    """

    def __init__(
        self,
        variant: Variant,
        numels: Sequence[int],
        seed: int = 0,
        ordinary_share: float = 0.5,
        misaligned: bool = False,
        guard: int = GUARD,
    ) -> None:
        self.variant = variant
        self.numels = list(numels)
        self.ordinary_share = ordinary_share
        self.guard = guard
        self.formats = {
            slot: format for slot, format in zip(variant.slots, variant.formats, strict=True) if format is not None
        }
        self.fronts: list[dict[str, int]] = []
        self.buffers: list[dict[str, Array]] = []
        for tensor, numel in enumerate(self.numels):
            late = list(self.formats)[tensor % len(self.formats)] if misaligned else None
            front = {slot: guard + (format.itemsize if slot == late else 0) for slot, format in self.formats.items()}
            self.fronts.append(front)
            self.buffers.append(
                {
                    slot: np.full(front[slot] + numel * format.itemsize + guard, GUARD_BYTE, np.uint8)
                    for slot, format in self.formats.items()
                }
            )
        self.draw(seed, self.formats)

    def draw(self, seed: int, slots: Sequence[str] | dict[str, Format] = ("grad",)) -> None:
        """Draws the elements of some slots anew, in place."""
        rng = np.random.default_rng(seed)
        for tensor, numel in enumerate(self.numels):
            is_ordinary = rng.random(numel) < self.ordinary_share
            for slot in slots:
                format = self.formats[slot]
                drawn = ordinary(slot, format, numel, rng), whole_range(format, numel, rng)
                bits(self.stored(tensor, slot))[:] = np.where(is_ordinary, *drawn)

    def stored(self, tensor: int, slot: str) -> Array:
        """The stored elements of one slot of one tensor, as a view."""
        format, front = self.formats[slot], self.fronts[tensor][slot]
        return self.buffers[tensor][slot][front : front + self.numels[tensor] * format.itemsize].view(format.storage)

    def copy(self) -> Tensors:
        """The same elements and the same alignment elsewhere."""
        twin = Tensors.__new__(Tensors)
        twin.__dict__.update(self.__dict__)
        twin.buffers = [{slot: buffer.copy() for slot, buffer in slots.items()} for slots in self.buffers]
        return twin

    def addresses(self) -> list[list[int]]:
        """Per tensor the address of every slot, 0 where it is absent."""
        return [
            [buffers[slot].ctypes.data + front[slot] if slot in buffers else 0 for slot in self.variant.slots]
            for buffers, front in zip(self.buffers, self.fronts, strict=True)
        ]

    def table(self, tile: int, hyper_rows: Sequence[int] | None = None) -> Table:
        """All tensors as one table."""
        return Table(self.variant, tile, self.numels, self.addresses(), hyper_rows)

    def single_tables(self, tile: int, hyper_rows: Sequence[int] | None = None) -> list[Table]:
        """A table for each tensor."""
        rows = hyper_rows if hyper_rows is not None else [0] * len(self.numels)
        return [
            Table(self.variant, tile, [numel], [addresses], [row])
            for numel, addresses, row in zip(self.numels, self.addresses(), rows, strict=True)
        ]


def assert_guarded(tensors: Tensors) -> None:
    """Demands that nothing was written before or after any tensor."""
    for tensor, slots in enumerate(tensors.buffers):
        for slot, buffer in slots.items():
            outside = buffer.copy()
            front = tensors.fronts[tensor][slot]
            outside[front : front + tensors.stored(tensor, slot).nbytes] = GUARD_BYTE
            if (outside != GUARD_BYTE).any():
                at = int((outside != GUARD_BYTE).argmax()) - front
                raise AssertionError(
                    f"{tensors.variant}: byte {at} of {slot} of tensor {tensor} was written, which has "
                    f"{tensors.numels[tensor]} elements of {tensors.formats[slot].itemsize} bytes"
                )


def assert_same_bits(actual: Tensors, expected: Tensors, what: str = "") -> None:
    """Demands equal bits or NaN on both sides in every slot, and intact guard bands."""
    assert_guarded(actual)
    assert_guarded(expected)
    assert actual.numels == expected.numels
    for tensor in range(len(actual.numels)):
        for slot, format in actual.formats.items():
            got, wanted = actual.stored(tensor, slot), expected.stored(tensor, slot)
            differ = different(format, got, wanted)
            if differ.any():
                index = int(differ.argmax())
                width = 2 * format.itemsize
                raise AssertionError(
                    f"{what} {actual.variant}: {slot} of tensor {tensor} differs at {int(differ.sum())} of "
                    f"{len(got)} elements, first at {index}: got 0x{int(bits(got)[index]):0{width}x}, "
                    f"expected 0x{int(bits(wanted)[index]):0{width}x}"
                )


def different(format: Format, a: Array, b: Array) -> Array:
    """Where two arrays of stored elements neither have the same bits nor are both NaN."""
    with np.errstate(all="ignore"):
        both_nan = np.isnan(format.load(a)) & np.isnan(format.load(b))
    return (bits(a) != bits(b)) & ~both_nan
