"""Tensors in host memory for a variant: drawn, guarded, put in a table."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np

from gpuopt.kernels import blocks
from gpuopt.kernels.formats import BLOCK
from gpuopt.kernels.table import Table, Whereabouts
from gpuopt.kernels.variant import Variant
from gpuopt.verify.drawing import Array, bits, ordinary, whole_range

GUARD = 64
"""Bytes of ``GUARD_BYTE`` before and after every tensor; a multiple of 16, so that tensors stay aligned."""

GUARD_BYTE = 0xA5

WHEREABOUTS = [
    Whereabouts(),
    Whereabouts(2**32 - 100, 5, 5),
    Whereabouts(7, 3, 1000),
    Whereabouts(3 * 2**32 - 1000, 100, 101),
]
"""Where tensors are in the whole model, in turn: at its start, and in one piece or many around multiples of 2^32."""


class Tensors:
    """Every plane of several tensors, in memory of its own between guard bands.

    Args:
        variant: Its formats are those of the slots.
        numels: Elements of each tensor.
        seed: Of all that is drawn.
        ordinary_share: Share of elements whose slots are all of ordinary magnitude, so that roundings show; the
            others are drawn from the whole range of their formats, NaN and infinities included.
        misaligned: Whether one plane of each tensor, another one each time, starts one element late; or the name of the
            plane that does in all of them.
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
        self.planes = {name: plane for name, (_, plane) in variant.planes.items()}
        self.whereabouts = [WHEREABOUTS[tensor % len(WHEREABOUTS)] for tensor in range(len(self.numels))]
        self.fronts: list[dict[str, int]] = []
        self.buffers: list[dict[str, Array]] = []
        for tensor, numel in enumerate(self.numels):
            late = list(self.planes)[tensor % len(self.planes)] if misaligned is True else misaligned
            sizes = {name: plane.storage.itemsize for name, plane in self.planes.items()}
            front = {name: guard + (size if name == late else 0) for name, size in sizes.items()}
            self.fronts.append(front)
            self.buffers.append(
                {
                    name: np.full(front[name] + plane.entries(numel) * sizes[name] + guard, GUARD_BYTE, np.uint8)
                    for name, plane in self.planes.items()
                }
            )
        self.draw(seed, self.formats)

    def planes_of(self, slot: str) -> list[str]:
        """The names of the planes of a slot."""
        return [name for name in self.planes if name.partition(".")[0] == slot]

    def draw(self, seed: int, slots: Iterable[str] = ("grad",)) -> None:
        """Draws the elements of some slots anew, in place."""
        rng = np.random.default_rng(seed)
        for tensor, numel in enumerate(self.numels):
            is_ordinary, are_ordinary = self._draw_ordinary(numel, rng)
            for slot in slots:
                format = self.formats[slot]
                drawn = ordinary(slot, format, numel, rng), whole_range(format, numel, rng)
                for name, usual, unusual in zip(self.planes_of(slot), *drawn, strict=True):
                    chosen = is_ordinary if self.planes[name].block == 1 else are_ordinary
                    bits(self.stored(tensor, name))[:] = np.where(chosen, usual, unusual)

    def _draw_ordinary(self, numel: int, rng: np.random.Generator) -> tuple[Array, Array]:
        """Which elements are ordinary, and the scales of which blocks.

        Where something is stored in blocks, whole blocks are, since a single NaN makes a block of them; of the others
        every second has an element in 64 that is not, and is finite often enough.
        """
        if not self.variant.in_blocks:
            return rng.random(numel) < self.ordinary_share, np.empty(0, bool)
        kind = rng.random(-(-numel // BLOCK))
        few = kind < (1 + self.ordinary_share) / 2
        all_of_it = kind < self.ordinary_share
        is_few, is_all = (blocks.spread(each, numel) for each in (few, all_of_it))
        return is_all | (is_few & (rng.random(numel) < 63 / 64)), few

    def stored(self, tensor: int, name: str) -> Array:
        """The entries of one plane of one tensor, as a view."""
        plane, front = self.planes[name], self.fronts[tensor][name]
        storage, size = plane.storage, plane.entries(self.numels[tensor]) * plane.storage.itemsize
        return self.buffers[tensor][name][front : front + size].view(storage)

    def element(self, tensor: int, index: int) -> dict[str, int]:
        """The stored bits of one element of one tensor, by plane."""
        return {name: int(bits(self.stored(tensor, name))[index // plane.block]) for name, plane in self.planes.items()}

    def copy(self) -> Tensors:
        """The same elements and the same alignment elsewhere."""
        twin = Tensors.__new__(Tensors)
        twin.__dict__.update(self.__dict__)
        twin.buffers = [{name: buffer.copy() for name, buffer in buffers.items()} for buffers in self.buffers]
        return twin

    def addresses(self, address_of: Callable[[int, str], int] | None = None) -> list[list[int]]:
        """Per tensor the address of every plane, 0 where a slot is absent.

        ``address_of`` says where the buffer of a plane of a tensor begins; None for where it is here.
        """
        if address_of is None:
            address_of = self._address_of
        rows = [[0] * self.variant.width for _ in self.numels]
        for tensor, row in enumerate(rows):
            for name, (column, _) in self.variant.planes.items():
                row[column] = address_of(tensor, name) + self.fronts[tensor][name]
        return rows

    def _address_of(self, tensor: int, name: str) -> int:
        return int(self.buffers[tensor][name].ctypes.data)

    def table(self, tile: int, hyper_rows: Sequence[int] | Array | None = None) -> Table:
        """All tensors as one table."""
        return Table(self.variant, tile, self.numels, self.addresses(), hyper_rows, whereabouts=self.whereabouts)

    def single_tables(self, tile: int, hyper_rows: Sequence[int] | Array | None = None) -> list[Table]:
        """A table for each tensor."""
        rows = hyper_rows if hyper_rows is not None else [0] * len(self.numels)
        each = zip(self.numels, self.addresses(), rows, self.whereabouts, strict=True)
        return [
            Table(self.variant, tile, [numel], [addresses], [row], whereabouts=[whereabouts])
            for numel, addresses, row, whereabouts in each
        ]
