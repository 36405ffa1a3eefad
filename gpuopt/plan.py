"""What the launches of a step cover: checked tensors and their tables, kept between steps."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, NamedTuple
from weakref import ref

import numpy as np

from gpuopt.kernels.drivers import Driver
from gpuopt.kernels.epilogue import SLOTS as EPILOGUE_SLOTS
from gpuopt.kernels.rules import Rule
from gpuopt.kernels.schedule import Schedule
from gpuopt.kernels.signals import NO_SIGNALS, Signals
from gpuopt.kernels.table import Table
from gpuopt.kernels.variant import Variant, slots_of
from gpuopt.memory import Memory, current_stream, full_like, memory_of, on_device_of, share_memory

PARAM, GRAD = 0, 1
"""Indices of the first two slots."""

SignalsByDtype = Mapping[np.dtype[Any], Signals]
"""The signals of a step for the launches of each compute dtype."""


class Tensor(NamedTuple):
    """One parameter with its gradient and state.

    Attributes:
        name: What an error message calls it, ``"'weight'"``.
        slots: An array per slot of :func:`slots_of` the rule; None for an optional slot that is absent.
    """

    name: str
    slots: Sequence[Any]


class Plans:
    """The launches of one step over a list of tensors: one, unless their formats differ.

    Every check is made here, before anything is written.
    """

    def __init__(self, rule: Rule, tensors: Sequence[Tensor], driver: Driver, zero_grads: bool = False) -> None:
        """Checks ``tensors`` and plans their launches by ``driver``.

        Args:
            rule: The arithmetic.
            tensors: What a step is over.
            driver: Runs the launches.
            zero_grads: Whether a step sets gradients to zero once it has read them.

        Raises:
            TypeError: A slot is not an array that gpuopt reads.
            ValueError: The slots of a tensor differ in shape, a slot that is written is read-only, arrays are of
                two libraries or devices, or two of them share memory where one is written.
        """
        self._names = [tensor.name for tensor in tensors]
        self._slot_names = slots_of(rule)
        self._optional = (*rule.optional, *EPILOGUE_SLOTS)
        self._written = [slot for slot in range(len(self._slot_names)) if slot != GRAD or zero_grads]
        self._places = [self._place(tensor) for tensor in tensors]
        self._check_same_place()
        self._extents = np.array(
            [[memory.extent if memory else (0, 0) for memory in memories] for memories in self._places], dtype=np.int64
        ).reshape(len(tensors), len(self._slot_names), 2)
        self._grad_addresses = np.array([memories[GRAD].address for memories in self._places], dtype=np.int64)  # type: ignore[union-attr]
        self._check_no_overlap(self._extents, moved=range(len(self._slot_names)))
        groups: dict[tuple[Any, ...], list[int]] = {}
        for index, memories in enumerate(self._places):
            groups.setdefault(tuple(memory and memory.format for memory in memories), []).append(index)
        self._members = list(groups.values())
        self.launches = [
            Plan(
                Variant(rule, formats, zero_grads),
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
        addresses = []
        for index, (grad, (_, was, *_)) in enumerate(zip(grads, self._places, strict=True)):
            memory = memory_of(grad, self._called(GRAD, index))
            if was is None or not memory.lies_like(was):
                return False
            addresses.append(memory.address)
        self.move_grads_to(np.array(addresses, dtype=np.int64), grads)
        return True

    def move_grads_to(self, addresses: np.ndarray[Any, Any], grads: Sequence[Any]) -> None:
        """As :meth:`move_grads`, for gradients that are known to lie like those before, at ``addresses``."""
        extents = self._extents.copy()
        extents[:, GRAD] += (addresses - self._grad_addresses).reshape(-1, 1)
        self._check_no_overlap(extents, moved=(GRAD,))
        self._grad_addresses, self._extents = addresses, extents
        for launch, members in zip(self.launches, self._members, strict=True):
            launch.move_grads([grads[index] for index in members], addresses[members])

    @property
    def packs_grads(self) -> bool:
        """Whether a gradient is packed, so that each step must be given the gradients themselves."""
        return any(slot == GRAD for launch in self.launches for _, slot in launch._packed)

    def assign_hyper_rows(self, rows: Sequence[int] | np.ndarray[Any, Any]) -> None:
        """Takes the index of the hyper row of each tensor."""
        indices = np.asarray(rows)
        for launch, members in zip(self.launches, self._members, strict=True):
            launch.table.assign_hyper_rows(indices[members])

    def run(self, hyper: Sequence[Sequence[float]] | Schedule, signals: SignalsByDtype | None = None) -> None:
        """One step: :meth:`place` and :meth:`step`."""
        self.place(hyper, signals)
        self.step()

    def place(self, hyper: Sequence[Sequence[float]] | Schedule, signals: SignalsByDtype | None = None) -> None:
        """Brings what a step reads to where the driver reads it, and writes nothing of the tensors.

        Args:
            hyper: Rows of :attr:`Variant.hyper_fields` in float64, as the tables refer to them; or the schedule of all
                tensors in their order, which makes one row for each.
            signals: By compute dtype, the scalars that earlier work leaves for this step.
        """
        for launch, own in zip(self.launches, self._own(hyper), strict=True):
            launch.place(own, signals[launch.table.variant.compute] if signals else NO_SIGNALS)

    def sum_squares(self) -> list[Any]:
        """Sums of squares of the gradients, an array per launch, once they are placed."""
        return [launch.sum_squares() for launch in self.launches]

    def step(self) -> None:
        """One step over what was placed, each launch on the current stream of the arrays' library."""
        for launch in self.launches:
            launch.step()

    def prepare(self, hyper: Sequence[Sequence[float]]) -> None:
        """Takes a step over nothing, so that what would fail before the last launch fails before the first.

        Raises:
            ValueError: A finite scalar of ``hyper`` is out of the range of a launch's compute dtype.
        """
        for launch, rows in zip(self.launches, self._own(hyper), strict=True):
            launch.prepare(rows)

    def _own(self, hyper: Sequence[Sequence[float]] | Schedule) -> list[Any]:
        """Hyper rows or schedule as each launch takes them."""
        if isinstance(hyper, Schedule):
            for launch in self.launches:
                launch.table.assign_hyper_rows(np.arange(len(launch.table.rows)))
            return [
                hyper._replace(counts=hyper.counts[members], groups=hyper.groups[members]) for members in self._members
            ]
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
            if slot in self._written and not memory.writable:
                raise ValueError(f"{name} must be writable, but is read-only")
            if slot in self._written and memory.overlaps_itself:
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

    def _check_no_overlap(self, extents: np.ndarray[Any, Any], moved: Container[int]) -> None:
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
                if slot not in self._written and other_slot not in self._written:
                    continue
                memory = self._moved(index, slot, extents)
                other = self._moved(other_index, other_slot, extents)
                if memory and other and share_memory(memory, other):
                    raise ValueError(
                        f"{self._called(slot, index)} and {self._called(other_slot, other_index)} must not share "
                        "memory, but they do"
                    )
            open_ones.append(current)

    def _moved(self, index: int, slot: int, extents: np.ndarray[Any, Any]) -> Memory | None:
        """Where a slot is if its extent is that in ``extents``."""
        memory = self._places[index][slot]
        return memory and memory._replace(address=memory.address + int(extents[index, slot, 0]) - memory.extent[0])


@dataclass
class _Packed:
    """A copy of an array, and a function that gives the array, which does not keep a gradient alive."""

    array: Callable[[], Any]
    copy: Any


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
        self._packed: dict[tuple[int, int], _Packed] = {}
        self._is_packed = False
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

    def move_grads(self, grads: Sequence[Any], addresses: np.ndarray[Any, Any]) -> None:
        """Takes gradients at new addresses, in the same layout as before."""
        for (index, slot), packed in self._packed.items():
            if slot == GRAD:
                packed.array = ref(grads[index])
                addresses[index] = memory_of(packed.copy, "copy").address
        self.table.move("grad", addresses)

    def place(self, hyper: np.ndarray[Any, Any] | Schedule, signals: Signals) -> None:
        """See :meth:`Plans.place`; hyper rows in the compute dtype."""
        self._stream = current_stream(self._first)
        self._placed = self._driver.place(self.table, hyper, self._stream, signals)

    def sum_squares(self) -> Any:
        """See :meth:`Plans.sum_squares`."""
        self._pack()
        return self._driver.sum_squares(self.table, self._placed, self._stream)

    def step(self) -> None:
        """See :meth:`Plans.step`."""
        self._pack()
        self._driver.step(self.table, self._placed, self._stream)
        self._unpack()

    def prepare(self, hyper: np.ndarray[Any, Any]) -> None:
        """See :meth:`Plans.prepare`; a driver that compiles on the host compiles now."""
        nothing = Table(self.table.variant, self._driver.TILE, [], [], device=self._first.device)
        self._driver.run(nothing, hyper, current_stream(self._first))

    def _pack(self) -> None:
        if not self._is_packed:
            with self._on_device():
                for packed in self._packed.values():
                    packed.copy[...] = packed.array()
        self._is_packed = True

    def _unpack(self) -> None:
        with self._on_device():
            for (_, slot), packed in self._packed.items():
                if slot != GRAD or self.table.variant.zero_grads:
                    packed.array()[...] = packed.copy
        self._is_packed = False

    def _on_device(self) -> AbstractContextManager[Any]:
        return next((on_device_of(packed.copy) for packed in self._packed.values()), nullcontext())

    def _address(self, index: int, slot: int, arrays: Sequence[Any], places: Sequence[Memory | None]) -> int:
        """Where the driver finds a slot: in place, or in the copy that it is packed into."""
        param, memory = places[PARAM], places[slot]
        assert param is not None
        assert memory is not None
        if memory.numel == 0 or (memory.dense and memory.order == param.packed_order):
            return memory.address
        copy = full_like(arrays[PARAM], 0, arrays[slot].dtype)
        array = arrays[slot]
        self._packed[index, slot] = _Packed(ref(array) if slot == GRAD else lambda: array, copy)
        return memory_of(copy, "copy").address
