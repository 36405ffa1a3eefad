"""What steps cover: a checked row for every tensor, made once, and selections of rows, stepped by their launches."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from gpuopt.kernels.drivers import Driver
from gpuopt.kernels.epilogue import SLOTS as EPILOGUE_SLOTS
from gpuopt.kernels.formats import BY_DTYPE, FORMATS, Format, Plane
from gpuopt.kernels.rules import Rule
from gpuopt.kernels.schedule import Schedule
from gpuopt.kernels.signals import NO_SIGNALS, Signals
from gpuopt.kernels.table import NUMEL, ORIGIN, PART, PITCH, POINTERS, Table, Whereabouts
from gpuopt.kernels.variant import Variant, slots_of
from gpuopt.memory import Memory, current_stream, full_like, memory_of, on_device_of
from gpuopt.overlap import Sorted, sharing

PARAM, GRAD = 0, 1
"""Indices of the first two slots."""

Integers = np.ndarray[Any, np.dtype[np.int64]]

SignalsByDtype = Mapping[np.dtype[Any], Signals]
"""The signals of a step for the launches of each compute dtype."""


class Stored(NamedTuple):
    """A slot in a format that the dtype of an array does not tell.

    Attributes:
        format: The format.
        planes: An array for each of its planes. Scales have one dimension; their blocks are of elements that follow
            each other in a copy of the parameter without gaps.
    """

    format: Format
    planes: tuple[Any, ...]


def stored(array: Any, stochastic: bool) -> Any:
    """A slot as a :class:`Tensor` takes it, rounded stochastically if it is to be, and is of bfloat16."""
    if stochastic and array is not None and str(array.dtype).removeprefix("torch.") == "bfloat16":
        return Stored(FORMATS["stochastic_bf16"], (array,))
    return array


MOST_NUMEL = 1 << 40
"""Elements that each parameter has room for among those of the whole model, so that others do not change its place."""


def in_model(index: int, within: Whereabouts = Whereabouts()) -> Whereabouts:  # noqa: B008 (immutable)
    """Where elements are in the whole model that are ``within`` the parameter at ``index``."""
    return within._replace(origin=index * MOST_NUMEL + within.origin)


class Tensor(NamedTuple):
    """One parameter with its gradient and state.

    Attributes:
        name: What an error message calls it, ``"'weight'"``.
        slots: An array or :class:`Stored` per slot of :func:`slots_of` the rule; None for an optional slot that is
            absent.
        part: The sum of squares in which its gradient counts, -1 for none; see :mod:`gpuopt.kernels.gradnorm`.
        whereabouts: Where its elements are in the whole model.
    """

    name: str
    slots: Sequence[Any]
    part: int = 0
    whereabouts: Whereabouts = Whereabouts()


class Packed(NamedTuple):
    """An array, None for a gradient, and the copy that a driver finds in its place."""

    array: Any
    copy: Any


class Row(NamedTuple):
    """What is known of one tensor, all of which is checked.

    A plane that is misaligned, has gaps, or is not in its parameter's order of axes is packed into a copy around each
    step. All others are used where they are, and not kept alive. Scales must be such.

    Attributes:
        name: What an error message calls it.
        places: Where the planes of each slot are; none where it is absent.
        place: Library and device of all.
        packed: By column, what is packed.
    """

    name: str
    places: tuple[tuple[Memory, ...], ...]
    place: str
    packed: dict[int, Packed]


class Plan:
    """The rows of tensors that one driver steps by one rule.

    Attributes:
        driver: Runs the launches.
        slots: Names of the slots.
        written: Indices of those that a step writes.
        rows: The rows that are made, else None.
        numbers: int64 (rows, columns): as in :class:`~gpuopt.kernels.table.Table`, elements, parts, whereabouts and
            addresses, with as many columns as the widest variant has.
        extents: int64 (rows, addresses, 2): first byte of what is at each address, and the one after the last; of
            gradients, nothing.
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
        self.extents = np.zeros((size, len(self.slots), 2), dtype=np.int64)
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
        formats = tuple(map(_format_of, tensor.slots, places))
        kind = next((kind for kind, variant in enumerate(self.variants) if variant.formats == formats), None)
        if kind is None:
            kind = len(self.variants)
            self.variants.append(Variant(self._rule, formats, self._zero_grads))
        variant = self.variants[kind]
        packed: dict[int, Packed] = {}
        addresses, extents = self._addresses_of(variant, tensor, places, packed)
        (param, *_), (grad,), *_ = places
        missing = variant.width - self.extents.shape[1]
        if missing > 0:
            self.numbers = np.pad(self.numbers, ((0, 0), (0, missing)))
            self.extents = np.pad(self.extents, ((0, 0), (0, missing), (0, 0)))
        self.rows[index] = Row(tensor.name, places, param.place, packed)
        self.numbers[index, NUMEL] = param.numel
        self.numbers[index, PART] = tensor.part
        self.numbers[index, ORIGIN : PITCH + 1] = tensor.whereabouts
        self.numbers[index, POINTERS : POINTERS + variant.width] = addresses
        self.extents[index] = 0
        self.extents[index, : variant.width] = extents
        self.grad_extents[index] = [byte - grad.address for byte in grad.extent]
        self.kinds[index] = kind

    def select(self, indices: Sequence[int]) -> Selection:
        """The rows at ``indices`` for a step over them.

        Raises:
            ValueError: Tensors are of two libraries or devices, or two of them share memory where one is written.
        """
        return Selection(self, indices)

    def _places(self, tensor: Tensor) -> Iterator[tuple[Memory, ...]]:
        """Where the planes of each slot of a tensor are, checked for themselves."""
        param: Memory | None = None
        for index, (slot, stored) in enumerate(zip(self.slots, tensor.slots, strict=True)):
            if stored is None and slot in self._optional:
                yield ()
                continue
            memories = []
            for plane, name, array in _named_planes(f"{slot} {tensor.name}", stored):
                memory = memory_of(array, name, plane)
                param = memory if param is None else param
                self._check(memory, name, index, param, tensor.name)
                memories.append(memory)
            yield tuple(memories)

    def _check(self, memory: Memory, name: str, slot: int, param: Memory, param_name: str) -> None:
        """Refuses a plane that is not as its parameter, or cannot be written."""
        if memory.plane.block > 1:
            _check_scales(memory, name, param, param_name)
        elif memory.shape != param.shape:
            raise ValueError(f"{name} must have the shape of param {param_name}, {param.shape}, but has {memory.shape}")
        if memory.place != param.place:
            raise _elsewhere(f"param {param_name}", param.place, name, memory.place)
        if slot in self.written and not memory.writable:
            raise ValueError(f"{name} must be writable, but is read-only")
        if slot in self.written and memory.overlaps_itself:
            raise ValueError(f"{name} must not overlap itself, but its strides are {memory.strides}")

    def _addresses_of(
        self, variant: Variant, tensor: Tensor, places: Sequence[tuple[Memory, ...]], packed: dict[int, Packed]
    ) -> tuple[list[int], list[tuple[int, int]]]:
        """By column, where the driver finds each plane, and how far what is there reaches; fills ``packed``."""
        addresses, extents = [0] * variant.width, [(0, 0)] * variant.width
        param = _arrays_of(tensor.slots[PARAM])[0]
        for slot, (columns, memories) in enumerate(zip(variant.columns, places, strict=True)):
            arrays = _arrays_of(tensor.slots[slot])
            for column, memory, array in zip(columns, memories, arrays, strict=False):
                if not _is_in_place(memory, places[PARAM][0]):
                    copy = full_like(param, 0, array.dtype)
                    packed[column] = Packed(None if slot == GRAD else array, copy)
                    addresses[column] = memory_of(copy, "copy", memory.plane).address
                else:
                    addresses[column] = memory.address
                if slot != GRAD:
                    extents[column] = memory.extent
        return addresses, extents


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
        grads = [memory for row in self._rows for memory in row.places[GRAD]]
        self._grad_sizes = np.array([memory.itemsize for memory in grads], dtype=np.int64)
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
            memory.lies_like(was) for memory, row in zip(places, self._rows, strict=True) for was in row.places[GRAD]
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
            for slot, memories in enumerate(row.places):
                if slot != GRAD:
                    pieces += [(slot, row.name, memory) for memory in memories]
                elif grad_addresses is not None:
                    pieces += [
                        (slot, row.name, memory._replace(address=grad_addresses[position])) for memory in memories
                    ]
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
        self._first = rows[0].places[PARAM][0]
        self._packed = [
            (position, column, packed) for position, row in enumerate(rows) for column, packed in row.packed.items()
        ]
        self._is_packed = False
        self._grads: Sequence[Any] = ()
        numbers = np.ascontiguousarray(numbers[:, : POINTERS + variant.width])
        self.table = Table.of(variant, driver.TILE, numbers, device=self._first.device)

    @property
    def packs_grads(self) -> bool:
        """See :attr:`Selection.packs_grads`."""
        return any(column == GRAD for _, column, _ in self._packed)

    def move_grads(self, grads: Sequence[Any], addresses: Integers) -> None:
        """Takes gradients at new addresses, which lie as the rows say."""
        for position, column, packed in self._packed:
            if column == GRAD:
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

    def _array(self, position: int, column: int, packed: Packed) -> Any:
        return self._grads[position] if column == GRAD else packed.array

    def _pack(self) -> None:
        if self._packed and not self._is_packed:
            with self._on_device():
                for position, column, packed in self._packed:
                    packed.copy[...] = self._array(position, column, packed)
            self._is_packed = True

    def _unpack(self) -> None:
        if self._packed:
            with self._on_device():
                for position, column, packed in self._packed:
                    if column != GRAD or self.table.variant.zero_grads:
                        self._array(position, column, packed)[...] = packed.copy
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


def _format_of(stored: Any, memories: Sequence[Memory]) -> Format | None:
    """The format of a slot; None where it is absent."""
    if isinstance(stored, Stored):
        return stored.format
    return BY_DTYPE[memories[0].plane.dtype] if memories else None


def _arrays_of(stored: Any) -> tuple[Any, ...]:
    """The planes of a slot."""
    return stored.planes if isinstance(stored, Stored) else (stored,)


def _named_planes(name: str, stored: Any) -> Iterator[tuple[Plane | None, str, Any]]:
    """The planes of a slot, with what each must be, and what an error message calls it."""
    if not isinstance(stored, Stored):
        yield None, name, stored
        return
    for index, (array, plane) in enumerate(zip(stored.planes, stored.format.planes, strict=True)):
        yield plane, f"{plane.dtype} part of {name}" if index else name, array


def _check_scales(memory: Memory, name: str, param: Memory, param_name: str) -> None:
    """Refuses scales that are not one after the other, for every block of the parameter one."""
    shape = (memory.plane.entries(param.numel),)
    if memory.shape != shape:
        raise ValueError(
            f"{name} must have the shape {shape}, an entry for every {memory.plane.block} elements of param "
            f"{param_name}, but has {memory.shape}"
        )
    if not memory.dense:
        raise ValueError(
            f"{name} must be aligned and have no gaps, but begins at {memory.address:#x} with strides {memory.strides}"
        )


def _is_in_place(memory: Memory, param: Memory) -> bool:
    """Whether a plane is used where it is, since it is laid out as a packed copy of its parameter would be."""
    return memory.numel == 0 or memory.plane.block > 1 or (memory.dense and memory.order == param.packed_order)
