"""A table, and what a step reads besides, in the memory of a GPU, kept up to date by one small copy a step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import copy
from typing import Any, NamedTuple, Self

import numpy as np

from gpuopt.kernels.table import ALIGNMENT, Table

Array = np.ndarray[Any, Any]

_WORD = np.dtype(np.int64).itemsize


class Placed(NamedTuple):
    """What a step reads, on the device; as the drivers of GPUs share it.

    Attributes:
        rows: int64, those of the table.
        tile_tensor: int32, the table's map from tile to tensor.
        hyper: Hyper rows in the compute dtype.
        signals: int64, :class:`~gpuopt.kernels.signals.Signals`.
        schedule: What ``hyper`` is still to be computed from, as in :class:`~gpuopt.kernels.schedule.Schedule`;
            empty when it is there.
    """

    rows: Any
    tile_tensor: Any
    hyper: Any
    signals: Any
    schedule: tuple[Any, ...] = ()


class DeviceTable:
    """The copy of a table for one stream; each stream has its own, so that steps on two never race.

    A stream is known by its handle, which a later stream may get when this one is destroyed. What is still pending on
    it then steps the same tensors, so whoever has not ordered the two streams races for those, and not for this alone.

    All of it is copied at once when it is made. What changes most comes first: as long as no tensor moves, only the
    header is copied, and if that has not changed either, nothing is.

    Attributes:
        buffer: int64 array on the device: the parts of the header, then the rows, each padded to ``ALIGNMENT``.
        offsets: Where each part of the header begins in ``buffer``, then the rows, and where they end.
        tile_words: The table's map from tile to tensor, padded, as int64 on the device, behind ``buffer``.
    """

    def __init__(
        self,
        table: Table,
        header: Sequence[Array],
        to_device: Callable[[Array], Any],
        overwrite: Callable[[Any, Array], None],
    ) -> None:
        per_unit = ALIGNMENT // _WORD
        parts = (*header, table.rows, table.tile_tensor)
        *offsets, end = np.cumsum([0, *(-(-part.nbytes // ALIGNMENT) * per_unit for part in parts)]).tolist()
        self.offsets = tuple(offsets)
        self._layout = _layout(header)
        whole = np.zeros(end, dtype=np.int64)
        whole[offsets[-1] :].view(np.int32)[: table.tiles] = table.tile_tensor
        self._host = whole[: offsets[-1]]
        self._fill(table, header)
        self._version = table.version
        self._overwrite = overwrite
        on_device = to_device(whole)
        self.tile_words = on_device[offsets[-1] :]
        self._own(on_device[: offsets[-1]])

    def _own(self, buffer: Any) -> None:
        self.buffer, self._head = buffer, buffer[: self.offsets[-2]]
        self._placed: Placed | None = None

    @classmethod
    def of(
        cls,
        table: Table,
        header: Sequence[Array],
        stream: int,
        to_device: Callable[[Array], Any],
        overwrite: Callable[[Any, Array], None],
    ) -> Self:
        """The up-to-date copy for ``stream``.

        Args:
            table: What to copy.
            header: What else the step reads: arrays of one shape and dtype each from step to step.
            stream: Handle of the stream that is current.
            to_device: Copies a host array to a new array on the device.
            overwrite: Copies a host array over one on the device, on the current stream and without waiting for it.
        """
        kept = table.kept.get((cls, to_device, stream))
        if kept is None or not kept.holds(header):
            kept = cls(table, header, to_device, overwrite)
            table.kept[cls, to_device, stream] = kept
        else:
            kept._refresh(table, header)
        return kept

    def holds(self, header: Sequence[Array]) -> bool:
        """Whether a header has the layout of this one."""
        return self._layout == _layout(header)

    def part(self, index: int) -> Any:
        """A part of the header as int64 words on the device, with its padding; the last part is the rows."""
        return self.buffer[slice(*self.offsets[index : index + 2])]

    def placed(self, int32: Any, hyper: Any = None) -> Placed:
        """What a step reads of it. It is made once: parts stay where they are, and views of them take time to make.

        Args:
            int32: The library's dtype.
            hyper: Its dtype of hyper rows, if those are what the header has behind the signals; None if it is a
                schedule, and hyper rows are still to come.
        """
        if self._placed is None:
            signals, *others, rows = map(self.part, range(len(self.offsets) - 1))
            tile_tensor = self.tile_words.view(int32)
            if hyper is None:
                self._placed = Placed(rows, tile_tensor, None, signals, tuple(others))
            else:
                self._placed = Placed(rows, tile_tensor, others[0].view(hyper), signals)
        return self._placed

    def twin(self, buffer: Any) -> Self:
        """A copy with the same tiles and another ``buffer``, for another to fill with :meth:`words`."""
        twin = copy(self)
        twin._host = self._host.copy()
        twin._own(buffer)
        return twin

    def words(self, table: Table, header: Sequence[Array]) -> Array:
        """What the buffer is to hold."""
        self._fill(table, header)
        return self._host

    def _refresh(self, table: Table, header: Sequence[Array]) -> None:
        head = self._host[: self.offsets[-2]]
        before = head.copy()
        moved = self._version != table.version
        self._fill(table if moved else None, header)
        self._version = table.version
        if moved:
            self._overwrite(self.buffer, self._host)
        elif not np.array_equal(before, head):
            self._overwrite(self._head, head)

    def _fill(self, table: Table | None, header: Sequence[Array]) -> None:
        for offset, part in zip(self.offsets, header, strict=False):
            self._host[offset:].view(part.dtype)[: part.size] = part.ravel()
        if table is not None:
            self._host[self.offsets[-2] :][: table.rows.size] = table.rows.ravel()


def _layout(header: Sequence[Array]) -> list[tuple[Any, ...]]:
    return [(part.shape, part.dtype) for part in header]
