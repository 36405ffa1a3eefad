"""What steps cover: a checked row for every tensor, made once, and selections of rows, stepped by their launches."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from gpuopt.kernels.drivers import Driver
from gpuopt.kernels.epilogue import SLOTS as EPILOGUE_SLOTS
from gpuopt.kernels.rules import Rule
from gpuopt.kernels.schedule import Schedule
from gpuopt.kernels.signals import NO_SIGNALS, Signals
from gpuopt.kernels.table import NUMEL, PART, POINTERS, Table
from gpuopt.kernels.variant import Variant, slots_of
from gpuopt.memory import Memory, current_stream, full_like, memory_of, on_device_of
from gpuopt.overlap import Sorted, sharing

PARAM, GRAD = 0, 1
"""Indices of the first two slots."""

Integers = np.ndarray[Any, np.dtype[np.int64]]

SignalsByDtype = Mapping[np.dtype[Any], Signals]
"""The signals of a step for the launches of each compute dtype."""


class Tensor(NamedTuple):
    """One parameter with its gradient and state.

    Attributes:
        name: What an error message calls it, ``"'weight'"``.
        slots: An array per slot of :func:`slots_of` the rule; None for an optional slot that is absent.
        part: The sum of squares in which its gradient counts, -1 for none; see :mod:`gpuopt.kernels.gradnorm`.
    """

    name: str
    slots: Sequence[Any]
    part: int = 0


class Packed(NamedTuple):
    """An array, None for a gradient, and the copy that a driver finds in its place."""

    array: Any
    copy: Any


class Row(NamedTuple):
    """What is known of one tensor, all of which is checked.

    A slot that is misaligned, has gaps, or is not in its parameter's order of axes is packed into a copy around each
    step. All others are used where they are, and not kept alive.

    Attributes:
        name: What an error message calls it.
        places: Where each slot is; None where it is absent.
        place: Library and device of all.
        packed: By slot, what is packed.
    """

    name: str
    places: tuple[Memory | None, ...]
    place: str
    packed: dict[int, Packed]


class Plan:
    """The rows of tensors that one driver steps by one rule.

    Attributes:
        driver: Runs the launches.
        slots: Names of the slots.
        written: Indices of those that a step writes.
        rows: The rows that are made, else None.
        numbers: int64 (rows, columns): as in :class:`~gpuopt.kernels.table.Table`, elements, parts and addresses.
        extents: int64 (rows, slots but the gradient, 2): first byte, and the one after the last.
        grad_extents: int64 (rows, 2): those of gradients, from their addresses on.
        kinds: int64 (rows,): index in ``variants``.
        variants: What launches are made for.
    """

    def __init__(self, rule: Rule, driver: Driver, size: int, zero_grads: bool = False) -> None:
        """A plan without rows.

        Args:
            rule: The arithmetic.
            driver: Runs the launches.
            size: Number of rows that there may be.
            zero_grads: Whether a step sets gradients to zero once it has read them.
        """
        self._rule, self._zero_grads, self.driver = rule, zero_grads, driver
        self.slots = slots_of(rule)
        self._optional = (*rule.optional, *EPILOGUE_SLOTS)
        self.written = tuple(slot for slot in range(len(self.slots)) if slot != GRAD or zero_grads)
        self.rows: list[Row | None] = [None] * size
        self.numbers = np.zeros((size, POINTERS + len(self.slots)), dtype=np.int64)
        self.extents = np.zeros((size, len(self.slots) - 1, 2), dtype=np.int64)
        self.grad_extents = np.zeros((size, 2), dtype=np.int64)
        self.kinds = np.zeros(size, dtype=np.int64)
        self.variants: list[Variant] = []

    def put(self, index: int, tensor: Tensor) -> None:
        """Makes the row at ``index``, or makes it anew.

        Raises:
            TypeError: A slot is not an array that gpuopt reads.
            ValueError: The slots differ in shape, one that is written is read-only, or its elements overlap, or they
                are of two libraries or devices.
        """
        places = tuple(self._places(tensor))
        formats = tuple(memory and memory.format for memory in places)
        kind = next((kind for kind, variant in enumerate(self.variants) if variant.formats == formats), None)
        if kind is None:
            kind = len(self.variants)
            self.variants.append(Variant(self._rule, formats, self._zero_grads))
        packed: dict[int, Packed] = {}
        addresses = [
            0 if memory is None else _address(slot, tensor.slots, places, packed) for slot, memory in enumerate(places)
        ]
        param, grad = places[:2]
        assert param is not None
        assert grad is not None
        self.rows[index] = Row(tensor.name, places, param.place, packed)
        self.numbers[index, NUMEL] = param.numel
        self.numbers[index, PART] = tensor.part
        self.numbers[index, POINTERS:] = addresses
        self.extents[index] = [memory.extent if memory else (0, 0) for memory in (param, *places[GRAD + 1 :])]
        self.grad_extents[index] = [byte - grad.address for byte in grad.extent]
        self.kinds[index] = kind

    def select(self, indices: Sequence[int]) -> Selection:
        """The rows at ``indices`` for a step over them.

        Raises:
            ValueError: Tensors are of two libraries or devices, or two of them share memory where one is written.
        """
        return Selection(self, indices)

    def _places(self, tensor: Tensor) -> Iterator[Memory | None]:
        """Where each slot of a tensor is, checked for itself."""
        param = memory_of(tensor.slots[PARAM], f"param {tensor.name}")
        for index, (slot, array) in enumerate(zip(self.slots, tensor.slots, strict=True)):
            if array is None and slot in self._optional:
                yield None
                continue
            name = f"{slot} {tensor.name}"
            memory = param if index == PARAM else memory_of(array, name)
            if memory.shape != param.shape:
                raise ValueError(
                    f"{name} must have the shape of param {tensor.name}, {param.shape}, but has {memory.shape}"
                )
            if memory.place != param.place:
                raise _elsewhere(f"param {tensor.name}", param.place, name, memory.place)
            if index in self.written and not memory.writable:
                raise ValueError(f"{name} must be writable, but is read-only")
            if index in self.written and memory.overlaps_itself:
                raise ValueError(f"{name} must not overlap itself, but its strides are {memory.strides}")
            yield memory


class Selection:
    """Rows that are stepped together, and their launches: one, unless formats differ.

    Attributes:
        launches: The launches.
        indices: Of the rows, in order.
    """

    def __init__(self, plan: Plan, indices: Sequence[int]) -> None:
        """See :meth:`Plan.select`."""
        self._plan = plan
        self._is_prepared = False
        self.indices: Integers = np.array(indices, dtype=np.int64)
        self._rows = [row for row in map(plan.rows.__getitem__, indices) if row is not None]
        if len({row.place for row in self._rows}) > 1:
            one, other = next((a, b) for a, b in pairwise(self._rows) if a.place != b.place)
            raise _elsewhere(f"param {one.name}", one.place, f"param {other.name}", other.place)
        self._written = Sorted(plan.extents[self.indices].reshape(-1, 2))
        if self._written.overlap:
            self._check_no_overlap(None)
        self._grad_extents = plan.grad_extents[self.indices]
        grads = [memory for row in self._rows if (memory := row.places[GRAD])]
        self._grad_sizes = np.array([memory.format.itemsize for memory in grads], dtype=np.int64)
        self._misaligned = np.array([memory.address for memory in grads], dtype=np.int64) % self._grad_sizes
        kinds = plan.kinds[self.indices]
        self._members = [np.flatnonzero(kinds == kind) for kind in dict.fromkeys(kinds.tolist())]
        self.launches = [
            Launch(
                plan.variants[kinds[members[0]]],
                [self._rows[position] for position in members],
                plan.numbers[self.indices[members]],
                plan.driver,
            )
            for members in self._members
        ]

    @property
    def packs_grads(self) -> bool:
        """Whether a gradient is packed, so that each step must be given the gradients themselves."""
        return any(launch.packs_grads for launch in self.launches)

    def take(self, grads: Sequence[Any]) -> bool:
        """Takes the gradients of a step, one for each row.

        Returns:
            Whether they lie as the rows say; if not, rows must be made anew and nothing has changed here.

        Raises:
            TypeError, ValueError: One is not an array that gpuopt reads, or shares memory with what is written.
        """
        places = [memory_of(grad, f"grad {row.name}") for grad, row in zip(grads, self._rows, strict=True)]
        return all(
            memory.lies_like(was) for memory, row in zip(places, self._rows, strict=True) if (was := row.places[GRAD])
        ) and self.move_grads([memory.address for memory in places], grads)

    def move_grads(self, addresses: Sequence[int], grads: Sequence[Any]) -> bool:
        """As :meth:`take`, for gradients at ``addresses`` that are known to lie as the rows say, but for alignment."""
        now: Integers = np.array(addresses, dtype=np.int64)
        if not np.array_equal(now % self._grad_sizes, self._misaligned):
            return False
        extents = self._grad_extents + now.reshape(-1, 1)
        if self._written.may_meet(extents) or (GRAD in self._plan.written and Sorted(extents).overlap):
            self._check_no_overlap(addresses)
        for launch, members in zip(self.launches, self._members, strict=True):
            launch.move_grads([grads[index] for index in members.tolist()] if launch.packs_grads else (), now[members])
        return True

    def assign_hyper_rows(self, rows: Sequence[int] | Integers) -> None:
        """Takes the index of the hyper row of each tensor."""
        indices = np.asarray(rows)
        for launch, members in zip(self.launches, self._members, strict=True):
            launch.table.assign_hyper_rows(indices[members])

    def run(self, hyper: Sequence[Sequence[float]] | Schedule, signals: SignalsByDtype | None = None) -> None:
        """One step: :meth:`place`, :meth:`prepare` and :meth:`step`."""
        self.place(hyper, signals)
        self.prepare()
        self.step()

    def place(self, hyper: Sequence[Sequence[float]] | Schedule, signals: SignalsByDtype | None = None) -> None:
        """Brings what a step reads to where the driver reads it, and writes nothing of the tensors.

        Args:
            hyper: Rows of :attr:`Variant.hyper_fields` in float64, as the tables refer to them; or the schedule of all
                tensors in their order, which makes one row for each.
            signals: By compute dtype, the scalars that earlier work leaves for this step.

        Raises:
            ValueError: A finite scalar of ``hyper`` is out of the range of a launch's compute dtype.
        """
        for launch, own in zip(self.launches, self._own(hyper), strict=True):
            launch.place(own, signals[launch.table.variant.compute] if signals else NO_SIGNALS)

    def prepare(self, threads: int | None = None) -> None:
        """Has compiled what :meth:`step` takes, once it is placed, so that it does not fail between two launches."""
        if not self._is_prepared:
            for launch in self.launches:
                launch.prepare(threads)
            self._is_prepared = True

    def sum_squares(self, part: int = 0, threads: int | None = None) -> list[Any]:
        """Sums of squares of the gradients of a part, an array per launch, once they are placed."""
        return [launch.sum_squares(part, threads) for launch in self.launches]

    def step(self, threads: int | None = None) -> None:
        """One step over what was placed, each launch on the current stream of the arrays' library.

        Args:
            threads: Most threads to run on in host memory; None for as many as the driver likes.
        """
        for launch in self.launches:
            launch.step(threads)

    def _own(self, hyper: Sequence[Sequence[float]] | Schedule) -> list[Any]:
        """Hyper rows or schedule as each launch takes them."""
        if isinstance(hyper, Schedule):
            for launch in self.launches:
                launch.table.assign_hyper_rows(np.arange(len(launch.table.rows)))
            return [
                hyper._replace(counts=hyper.counts[members], groups=hyper.groups[members]) for members in self._members
            ]
        return [launch.table.variant.hyper_array(hyper) for launch in self.launches]

    def _check_no_overlap(self, grad_addresses: Sequence[int] | None) -> None:
        """No slot that is written may share memory with any other; gradients are left out where there are None."""
        pieces = []
        for position, row in enumerate(self._rows):
            for slot, memory in enumerate(row.places):
                if memory and slot != GRAD:
                    pieces.append((slot, row.name, memory))
                elif memory and grad_addresses is not None:
                    pieces.append((slot, row.name, memory._replace(address=grad_addresses[position])))
        for one, other in sharing([memory for *_, memory in pieces]):
            (slot, name, _), (other_slot, other_name, _) = pieces[one], pieces[other]
            if slot in self._plan.written or other_slot in self._plan.written:
                raise ValueError(
                    f"{self._plan.slots[slot]} {name} and {self._plan.slots[other_slot]} {other_name} must not share "
                    "memory, but they do"
                )


class Launch:
    """What one launch covers: rows of one variant.

    Attributes:
        table: What the driver reads, with the variant of the launch.
    """

    def __init__(self, variant: Variant, rows: Sequence[Row], numbers: Integers, driver: Driver) -> None:
        """Lays out the table of ``rows``, whose ``numbers`` it takes hold of."""
        self._driver = driver
        first = rows[0].places[PARAM]
        assert first is not None
        self._first = first
        self._packed = [
            (position, slot, packed) for position, row in enumerate(rows) for slot, packed in row.packed.items()
        ]
        self._is_packed = False
        self._grads: Sequence[Any] = ()
        self.table = Table.of(variant, driver.TILE, numbers, device=first.device)

    @property
    def packs_grads(self) -> bool:
        """See :attr:`Selection.packs_grads`."""
        return any(slot == GRAD for _, slot, _ in self._packed)

    def move_grads(self, grads: Sequence[Any], addresses: Integers) -> None:
        """Takes gradients at new addresses, which lie as the rows say."""
        for position, slot, packed in self._packed:
            if slot == GRAD:
                self._grads = grads
                addresses[position] = memory_of(packed.copy, "copy").address
        self.table.move("grad", addresses)

    def place(self, hyper: np.ndarray[Any, Any] | Schedule, signals: Signals) -> None:
        """See :meth:`Selection.place`; hyper rows in the compute dtype."""
        self._hyper = hyper
        self._is_packed = False
        self._stream = current_stream(self._first)
        self._placed = self._driver.place(self.table, hyper, self._stream, signals)

    def prepare(self, threads: int | None) -> None:
        """See :meth:`Selection.prepare`."""
        if not isinstance(self._hyper, Schedule):
            self._driver.prepare(self.table, self._hyper, threads)

    def sum_squares(self, part: int, threads: int | None) -> Any:
        """See :meth:`Selection.sum_squares`."""
        self._pack()
        return self._driver.sum_squares(self.table, self._placed, part, self._stream, threads)

    def step(self, threads: int | None) -> None:
        """See :meth:`Selection.step`."""
        self._pack()
        self._driver.step(self.table, self._placed, self._stream, threads)
        self._unpack()

    def _array(self, position: int, slot: int, packed: Packed) -> Any:
        return self._grads[position] if slot == GRAD else packed.array

    def _pack(self) -> None:
        if self._packed and not self._is_packed:
            with self._on_device():
                for position, slot, packed in self._packed:
                    packed.copy[...] = self._array(position, slot, packed)
            self._is_packed = True

    def _unpack(self) -> None:
        if self._packed:
            with self._on_device():
                for position, slot, packed in self._packed:
                    if slot != GRAD or self.table.variant.zero_grads:
                        self._array(position, slot, packed)[...] = packed.copy
            self._grads = ()

    def _on_device(self) -> AbstractContextManager[Any]:
        return next((on_device_of(packed.copy) for _, _, packed in self._packed), nullcontext())


def _elsewhere(one: str, place: str, other: str, other_place: str) -> ValueError:
    return ValueError(f"all arrays must be in one place, but {one} is in {place} and {other} in {other_place}")


def select_all(rule: Rule, tensors: Sequence[Tensor], driver: Driver) -> Selection:
    """All of ``tensors``, with their gradients; raises what :class:`Plan` and :class:`Selection` do."""
    plan = Plan(rule, driver, len(tensors))
    for index, tensor in enumerate(tensors):
        plan.put(index, tensor)
    selection = plan.select(range(len(tensors)))
    selection.take([tensor.slots[GRAD] for tensor in tensors])
    return selection


def _address(slot: int, arrays: Sequence[Any], places: Sequence[Memory | None], packed: dict[int, Packed]) -> int:
    """Where the driver finds a slot: in place, or in the copy that it is packed into, which is added to ``packed``."""
    param, memory = places[PARAM], places[slot]
    assert param is not None
    assert memory is not None
    if memory.numel == 0 or (memory.dense and memory.order == param.packed_order):
        return memory.address
    copy = full_like(arrays[PARAM], 0, arrays[slot].dtype)
    packed[slot] = Packed(None if slot == GRAD else arrays[slot], copy)
    return memory_of(copy, "copy").address
