"""What the launches of a step cover: checked tensors and their tables, kept between steps."""

from __future__ import annotations

from collections.abc import Container, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import numpy as np

from gpuopt.kernels.drivers import Driver
from gpuopt.kernels.rules import Rule
from gpuopt.kernels.table import Table
from gpuopt.kernels.variant import Variant
from gpuopt.memory import Memory, current_stream, full_like, memory_of, on_device_of, share_memory

PARAM, GRAD = 0, 1
"""Indices of the first two slots."""


class Tensor(NamedTuple):
    """One parameter with its gradient and state.

    Attributes:
        name: What an error message calls it, ``"'weight'"``.
        slots: An array per slot of ``("param", "grad", *rule.slots)``; None for an optional slot that is absent.
    """

    name: str
    slots: Sequence[Any]


class Plans:
    """The launches of one step over a list of tensors: one, unless their formats differ.

    Every check is made here, before anything is written.
    """

    def __init__(self, rule: Rule, tensors: Sequence[Tensor], driver: Driver) -> None:
        """Checks ``tensors`` and plans their launches by ``driver``.

        Raises:
            TypeError: A slot is not an array that gpuopt reads.
            ValueError: The slots of a tensor differ in shape, a slot that is written is read-only, arrays are of
                two libraries or devices, or two of them share memory where one is written.
        """
        self._names = [tensor.name for tensor in tensors]
        self._slot_names = ("param", "grad", *rule.slots)
        self._optional = rule.optional
        self._places = [self._place(tensor) for tensor in tensors]
        self._check_same_place()
        self._extents = np.array(
            [[memory.extent if memory else (0, 0) for memory in memories] for memories in self._places], dtype=np.int64
        ).reshape(len(tensors), len(self._slot_names), 2)
        self._check_no_overlap(self._places, self._extents, moved=range(len(self._slot_names)))
        groups: dict[tuple[Any, ...], list[int]] = {}
        for index, memories in enumerate(self._places):
            groups.setdefault(tuple(memory and memory.format for memory in memories), []).append(index)
        self._members = list(groups.values())
        self.launches = [
            Plan(
                Variant(rule, formats),
                [tensors[index].slots for index in members],
                [self._places[index] for index in members],
                driver,
            )
            for formats, members in groups.items()
        ]

    def move_grads(self, grads: Sequence[Any]) -> bool:
        """Takes gradients that were allocated anew, one per tensor.

        Returns:
            Whether they fit; if not, in dtype or layout, new plans must be made and nothing has changed here.

        Raises:
            TypeError, ValueError: As when the plans are made.
        """
        places, shifts = [], []
        for index, (grad, (param, was, *state)) in enumerate(zip(grads, self._places, strict=True)):
            memory = memory_of(grad, self._called(GRAD, index))
            if was is None or not memory.lies_like(was):
                return False
            places.append([param, memory, *state])
            shifts.append(memory.address - was.address)
        extents = self._extents.copy()
        extents[:, GRAD] += np.array(shifts, dtype=np.int64).reshape(-1, 1)
        self._check_no_overlap(places, extents, moved=(GRAD,))
        self._places, self._extents = places, extents
        for launch, members in zip(self.launches, self._members, strict=True):
            launch.move_grads([grads[index] for index in members], [places[index][GRAD] for index in members])
        return True

    def run(self, hyper: Sequence[Sequence[float]]) -> None:
        """One step, each launch on the current stream of the arrays' library.

        Args:
            hyper: Rows of :attr:`Variant.hyper_fields` in float64, as the tables refer to them.
        """
        for launch, rows in zip(self.launches, self._rounded(hyper), strict=True):
            launch.run(rows)

    def prepare(self, hyper: Sequence[Sequence[float]]) -> None:
        """Takes a step over nothing, so that what would fail before the last launch fails before the first.

        Raises:
            ValueError: A finite scalar of ``hyper`` is out of the range of a launch's compute dtype.
        """
        for launch, rows in zip(self.launches, self._rounded(hyper), strict=True):
            launch.prepare(rows)

    def _rounded(self, hyper: Sequence[Sequence[float]]) -> list[np.ndarray[Any, Any]]:
        """Hyper rows as each launch takes them."""
        return [launch.table.variant.hyper_array(hyper) for launch in self.launches]

    def _called(self, slot: int, index: int) -> str:
        return f"{self._slot_names[slot]} {self._names[index]}"

    def _place(self, tensor: Tensor) -> list[Memory | None]:
        """Where each slot of a tensor is, checked for itself."""
        names = [f"{slot} {tensor.name}" for slot in self._slot_names]
        memories = [
            None if array is None and slot in self._optional else memory_of(array, name)
            for slot, name, array in zip(self._slot_names, names, tensor.slots, strict=True)
        ]
        param = memories[PARAM]
        for slot, (name, memory) in enumerate(zip(names, memories, strict=True)):
            if memory is None or param is None:
                continue
            if memory.shape != param.shape:
                raise ValueError(f"{name} must have the shape of {names[PARAM]}, {param.shape}, but has {memory.shape}")
            if slot != GRAD and not memory.writable:
                raise ValueError(f"{name} must be writable, but is read-only")
            if slot != GRAD and memory.overlaps_itself:
                raise ValueError(f"{name} must not overlap itself, but its strides are {memory.strides}")
        return memories

    def _present(self) -> Iterator[tuple[int, int, Memory]]:
        """Tensor, slot and memory of everything that is there."""
        for index, memories in enumerate(self._places):
            for slot, memory in enumerate(memories):
                if memory is not None:
                    yield index, slot, memory

    def _check_same_place(self) -> None:
        places = {memory.place: (index, slot) for index, slot, memory in self._present()}
        if len(places) > 1:
            (place, one), (other_place, other) = list(places.items())[:2]
            raise ValueError(
                f"all arrays must be in one place, but {self._called(*one[::-1])} is in {place} "
                f"and {self._called(*other[::-1])} in {other_place}"
            )

    def _check_no_overlap(
        self, places: Sequence[Sequence[Memory | None]], extents: np.ndarray[Any, Any], moved: Container[int]
    ) -> None:
        """No slot that is written may share memory with any other; only slots in ``moved`` are in question."""
        flat = extents.reshape(-1, 2)
        order = np.argsort(flat[:, 0], kind="stable")
        starts, ends = flat[order].T
        if np.all(starts[1:] >= np.maximum.accumulate(ends)[:-1]):
            return
        slots = extents.shape[1]
        open_ones: list[int] = []
        for current, start in zip(order.tolist(), starts, strict=True):
            open_ones = [before for before in open_ones if flat[before, 1] > start]
            for before in open_ones:
                (index, slot), (other_index, other_slot) = sorted((divmod(before, slots), divmod(current, slots)))
                if slot not in moved and other_slot not in moved:
                    continue
                memory, other = places[index][slot], places[other_index][other_slot]
                if memory and other and not slot == other_slot == GRAD and share_memory(memory, other):
                    raise ValueError(
                        f"{self._called(slot, index)} and {self._called(other_slot, other_index)} must not share "
                        "memory, but they do"
                    )
            open_ones.append(current)


class Plan:
    """What one launch covers.

    A slot that is misaligned, has gaps, or is not in its parameter's order of axes is packed into a copy around
    each step. All others are used where they are, and not kept alive.

    Attributes:
        table: What the driver reads, with the variant of the launch.
    """

    def __init__(
        self,
        variant: Variant,
        arrays: Sequence[Sequence[Any]],
        places: Sequence[Sequence[Memory | None]],
        driver: Driver,
    ) -> None:
        """Lays out the table of tensors that have been checked, all of the formats of ``variant``."""
        self._driver = driver
        self._packed: dict[tuple[int, int], tuple[Any, Any]] = {}
        first = places[0][PARAM]
        assert first is not None
        self._first = first
        addresses = [
            [
                0 if memory is None else self._address(index, slot, slots, memories)
                for slot, memory in enumerate(memories)
            ]
            for index, (slots, memories) in enumerate(zip(arrays, places, strict=True))
        ]
        numels = [memory.numel for memory, *_ in places if memory is not None]
        self.table = Table(variant, driver.TILE, numels, addresses, device=first.device)

    def move_grads(self, grads: Sequence[Any], places: Sequence[Memory | None]) -> None:
        """Takes gradients at new addresses, in the same layout as before."""
        addresses = [memory.address if memory else 0 for memory in places]
        for (index, slot), (_, copy) in self._packed.items():
            if slot == GRAD:
                self._packed[index, GRAD] = grads[index], copy
                addresses[index] = memory_of(copy, "copy").address
        self.table.move("grad", addresses)

    def run(self, hyper: np.ndarray[Any, Any]) -> None:
        """One step, with hyper rows in the compute dtype."""
        self._pack()
        self._driver.run(self.table, hyper, current_stream(self._first))
        self._unpack()

    def prepare(self, hyper: np.ndarray[Any, Any]) -> None:
        """See :meth:`Plans.prepare`; a driver that compiles on the host compiles now."""
        nothing = Table(self.table.variant, self._driver.TILE, [], [], device=self._first.device)
        self._driver.run(nothing, hyper, current_stream(self._first))

    def _pack(self) -> None:
        with self._on_device():
            for array, copy in self._packed.values():
                copy[...] = array

    def _unpack(self) -> None:
        with self._on_device():
            for (_, slot), (array, copy) in self._packed.items():
                if slot != GRAD:
                    array[...] = copy

    def _on_device(self) -> AbstractContextManager[Any]:
        return next((on_device_of(array) for array, _ in self._packed.values()), nullcontext())

    def _address(self, index: int, slot: int, arrays: Sequence[Any], places: Sequence[Memory | None]) -> int:
        """Where the driver finds a slot: in place, or in the copy that it is packed into."""
        param, memory = places[PARAM], places[slot]
        assert param is not None
        assert memory is not None
        if memory.numel == 0 or (memory.dense and memory.order == param.packed_order):
            return memory.address
        copy = full_like(arrays[PARAM], 0, arrays[slot].dtype)
        self._packed[index, slot] = arrays[slot], copy
        return memory_of(copy, "copy").address
