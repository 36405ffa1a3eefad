"""A table and its hyper rows in the memory of a GPU, kept up to date by one small copy a step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Self

import numpy as np

from gpuopt.kernels.table import ALIGNMENT, Table


class DeviceTable:
    """The copy of a table for one stream; each stream has its own, so that steps on two never race.

    Hyper rows come first in the buffer: as long as no tensor moves, only they are copied.

    Attributes:
        buffer: int64 array on the device: hyper rows, padded to ``ALIGNMENT``, then the rows of the table.
        hyper_words: Length of the first part.
        tile_tensor: The table's map from tile to tensor, on the device.
    """

    def __init__(
        self,
        table: Table,
        hyper: np.ndarray[Any, Any],
        to_device: Callable[[np.ndarray[Any, Any]], Any],
        overwrite: Callable[[Any, np.ndarray[Any, Any]], None],
    ) -> None:
        per_unit = ALIGNMENT // np.dtype(np.int64).itemsize
        self.hyper_words = -(-hyper.nbytes // ALIGNMENT) * per_unit
        self._hyper_shape = hyper.shape
        self._host = np.zeros(self.hyper_words + table.rows.size, dtype=np.int64)
        self._host_hyper = self._host.view(hyper.dtype)[: hyper.size]
        self._version: int | None = None
        self._overwrite = overwrite
        self.buffer = to_device(self._host)
        self.tile_tensor = to_device(table.tile_tensor)

    @classmethod
    def of(
        cls,
        table: Table,
        hyper: np.ndarray[Any, Any],
        stream: int,
        to_device: Callable[[np.ndarray[Any, Any]], Any],
        overwrite: Callable[[Any, np.ndarray[Any, Any]], None],
    ) -> Self:
        """The up-to-date copy for ``stream``.

        Args:
            table: What to copy.
            hyper: Hyper rows of this step.
            stream: Handle of the stream that is current.
            to_device: Copies a host array to a new array on the device.
            overwrite: Copies a host array over the start of one on the device, on the current stream and without
                waiting for it.
        """
        copy = table.kept.get((cls, to_device, stream))
        if copy is None or copy._hyper_shape != hyper.shape:
            copy = cls(table, hyper, to_device, overwrite)
            table.kept[cls, to_device, stream] = copy
        copy._refresh(table, hyper)
        return copy

    def _refresh(self, table: Table, hyper: np.ndarray[Any, Any]) -> None:
        self._host_hyper[:] = hyper.ravel()
        changed = self.hyper_words
        if self._version != table.version:
            self._host[self.hyper_words :] = table.rows.ravel()
            self._version = table.version
            changed = len(self._host)
        self._overwrite(self.buffer, self._host[:changed])
