"""What a kernel is made for: a rule and the format of each of its slots."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from gpuopt.kernels import epilogue
from gpuopt.kernels.epilogue import Epilogue
from gpuopt.kernels.formats import EIGHT_BIT, FORMATS, Format, Plane
from gpuopt.kernels.prologue import Prologue
from gpuopt.kernels.random import Key
from gpuopt.kernels.rules import Relation, Rule


@dataclass(frozen=True)
class Variant:
    """A rule and the format of each of its slots: what a driver compiles a kernel for.

    Attributes:
        rule: The arithmetic.
        formats: One per slot of :func:`slots_of` the rule; None for an optional slot that is absent. Those of the
            epilogue may be left out.
        zero_grads: Whether gradients are set to zero once they have been read.
    """

    rule: Rule
    formats: tuple[Format | None, ...]
    zero_grads: bool = False

    def __post_init__(self) -> None:
        missing = len(self.slots) - len(self.formats)
        if 0 < missing <= len(epilogue.SLOTS):
            object.__setattr__(self, "formats", (*self.formats, *(None,) * missing))
        if len(self.formats) != len(self.slots):
            raise ValueError(f"{self.rule.name} has slots {self.slots}, but {len(self.formats)} formats were given")
        for slot, format in zip(self.slots, self.formats, strict=True):
            if format is None and slot not in (*self.rule.optional, *epilogue.SLOTS):
                raise ValueError(f"{self.rule.name} needs its slot {slot!r}")
            kind = self.rule.kinds.get(slot)
            if format is not None and format.in_blocks and (kind is None or EIGHT_BIT.get(kind) is not format):
                raise ValueError(f"{slot} of {self.rule.name} must not be stored as {format.name}, which is not for it")
        grad = self.formats[1]
        if grad is not None and (len(grad.planes) > 1 or grad.is_random):
            raise ValueError(f"a gradient must be one plane that is not random, but its format is {grad.name}")

    @cached_property
    def slots(self) -> tuple[str, ...]:
        """Names of all slots, in the order of ``formats``."""
        return slots_of(self.rule)

    @cached_property
    def state(self) -> tuple[str, ...]:
        """Names of the rule's state slots that are present."""
        return tuple(slot for slot in self.rule.slots if slot in self.present)

    @cached_property
    def present(self) -> tuple[str, ...]:
        """Names of all slots that are present, in the order of ``formats``."""
        return tuple(slot for slot, format in zip(self.slots, self.formats, strict=True) if format is not None)

    @cached_property
    def written(self) -> tuple[str, ...]:
        """Names of the slots that a step writes."""
        return tuple(slot for slot in self.present if slot != "grad" or self.zero_grads)

    @cached_property
    def columns(self) -> tuple[tuple[int, ...], ...]:
        """For each slot the places of its planes among the addresses of a row.

        The first plane of every slot comes first, whether it is there or not, then further ones in the order of slots.
        """
        end = len(self.slots)
        columns = []
        for index, format in enumerate(self.formats):
            further = 0 if format is None else len(format.planes) - 1
            columns.append((index, *range(end, end + further)))
            end += further
        return tuple(columns)

    @cached_property
    def width(self) -> int:
        """Number of addresses in a row."""
        return 1 + max(column for columns in self.columns for column in columns)

    @cached_property
    def planes(self) -> dict[str, tuple[int, Plane]]:
        """Place among the addresses, and kind, of each plane that is there.

        A first one is called as its slot, ``"param"``, further ones by numbers behind that, ``"param.1"``.
        """
        return {
            f"{slot}.{number}" if number else slot: (column, plane)
            for slot, format, columns in zip(self.slots, self.formats, self.columns, strict=True)
            if format is not None
            for number, (column, plane) in enumerate(zip(columns, format.planes, strict=True))
        }

    @cached_property
    def is_random(self) -> bool:
        """Whether what a step stores depends on random bits."""
        return any(format is not None and format.is_random for format in self.formats)

    @cached_property
    def in_blocks(self) -> bool:
        """Whether a state slot is stored in blocks."""
        return any(format is not None and format.in_blocks for format in self.formats)

    @property
    def relation(self) -> Relation | None:
        """That of the rule's slots, where some are stored in blocks, in few bits."""
        return self.rule.relation if self.in_blocks else None

    @cached_property
    def compute(self) -> np.dtype[Any]:
        """The dtype of the arithmetic: float64 when a slot is fp64, else float32."""
        wide = FORMATS["fp64"] in self.formats
        return np.dtype(np.float64 if wide else np.float32)

    @cached_property
    def hyper_fields(self) -> tuple[str, ...]:
        """Names of the scalars in one hyper row: the prologue's, the rule's, the epilogue's, then the key's."""
        return Prologue._fields + self.rule.hyper_fields + Epilogue._fields + Key._fields

    @cached_property
    def bytes_per_element(self) -> float:
        """Bytes that one step moves per element, see :meth:`bytes_moved`, where blocks are whole."""
        return self._moved({slot: format.itemsize for slot, format in self._formats.items()})

    def bytes_moved(self, numel: int) -> int:
        """Bytes that one step over a tensor moves: all slots but the copy are read, those in ``written`` written."""
        return int(self._moved({slot: format.nbytes(numel) for slot, format in self._formats.items()}))

    @property
    def _formats(self) -> dict[str, Format]:
        """Those of the slots that are present."""
        return {slot: format for slot, format in zip(self.slots, self.formats, strict=True) if format is not None}

    def _moved(self, sizes: Mapping[str, float]) -> float:
        read = sum(size for slot, size in sizes.items() if slot != epilogue.COPY)
        return read + sum(sizes[slot] for slot in self.written)

    def hyper_array(self, rows: Sequence[Sequence[float]]) -> np.ndarray[Any, Any]:
        """Hyper rows computed in float64, rounded once to the compute dtype, of shape (rows, fields).

        Raises:
            ValueError: A row is not one number per field of ``hyper_fields``, or a finite one overflows.
        """
        exact = np.array(rows, dtype=np.float64)
        if exact.ndim != 2 or exact.shape[1] != len(self.hyper_fields):
            raise ValueError(f"a hyper row of {self.rule.name} is {self.hyper_fields}, but got shape {exact.shape}")
        if self.compute == exact.dtype:
            return exact
        with np.errstate(over="ignore"):
            rounded = exact.astype(self.compute)
        if not np.isfinite(rounded).all():
            for row, column in np.argwhere(np.isinf(rounded) & np.isfinite(exact)):
                field, value = self.hyper_fields[column], exact[row, column]
                raise ValueError(f"{field} must be within the range of {self.compute}, but is {value}")
        return rounded

    def __str__(self) -> str:
        parts = [
            f"{slot}={format.name}" for slot, format in zip(self.slots, self.formats, strict=True) if format is not None
        ]
        if self.zero_grads:
            parts.append("zeroed")
        return f"{self.rule.name}({', '.join(parts)})"


def slots_of(rule: Rule) -> tuple[str, ...]:
    """Names of all slots of a rule, its optional ones and the epilogue's included."""
    return ("param", "grad", *rule.slots, *epilogue.SLOTS)


def hyper_row(
    prologue: Prologue,
    hyper: Sequence[float],
    epilogue: Epilogue = Epilogue(),  # noqa: B008 (immutable)
    key: Key = Key(),  # noqa: B008 (immutable)
) -> tuple[float, ...]:
    """One row of :attr:`Variant.hyper_fields`."""
    return (*prologue, *hyper, *epilogue, *key)
