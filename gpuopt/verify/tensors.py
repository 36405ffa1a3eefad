"""Tensors in host memory for a variant: drawn, guarded, put in a table."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from gpuopt.kernels.table import Table
from gpuopt.kernels.variant import Variant
from gpuopt.verify.drawing import Array, bits, ordinary, whole_range

GUARD = 64
"""Bytes of ``GUARD_BYTE`` before and after every tensor; a multiple of 16, so that tensors stay aligned."""

GUARD_BYTE = 0xA5


class Tensors:
    """Every slot of several tensors, in memory of their own between guard bands.

    Args:
        variant: Its formats are those of the slots.
        numels: Elements of each tensor.
        seed: Of all that is drawn.
        ordinary_share: Share of elements whose slots are all of ordinary magnitude, so that roundings show; the
            others are drawn from the whole range of their formats, NaN and infinities included.
        misaligned: Whether one slot of each tensor, another one each time, starts one element late; or the name of the
            slot that does in all of them.
        guard: Bytes of each guard band; 0 where a sanitizer guards better.
    """

    def __init__(
        self,
        variant: Variant,
        numels: Sequence[int],
        seed: int = 0,
        ordinary_share: float = 0.5,
        misaligned: bool | str = False,
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
            late = list(self.formats)[tensor % len(self.formats)] if misaligned is True else misaligned
            front = {slot: guard + (format.itemsize if slot == late else 0) for slot, format in self.formats.items()}
            self.fronts.append(front)
            self.buffers.append(
                {
                    slot: np.full(front[slot] + numel * format.itemsize + guard, GUARD_BYTE, np.uint8)
                    for slot, format in self.formats.items()
                }
            )
        self.draw(seed, self.formats)

    def draw(self, seed: int, slots: Iterable[str] = ("grad",)) -> None:
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

    def element(self, tensor: int, index: int) -> dict[str, int]:
        """The stored bits of one element of one tensor, by slot."""
        return {slot: int(bits(self.stored(tensor, slot))[index]) for slot in self.formats}

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

    def table(self, tile: int, hyper_rows: Sequence[int] | Array | None = None) -> Table:
        """All tensors as one table."""
        return Table(self.variant, tile, self.numels, self.addresses(), hyper_rows)

    def single_tables(self, tile: int, hyper_rows: Sequence[int] | Array | None = None) -> list[Table]:
        """A table for each tensor."""
        rows = hyper_rows if hyper_rows is not None else [0] * len(self.numels)
        return [
            Table(self.variant, tile, [numel], [addresses], [row])
            for numel, addresses, row in zip(self.numels, self.addresses(), rows, strict=True)
        ]
