"""Small copies from host memory to a GPU that the host never waits for, by CuPy.

CUDA stages a pageable array of up to about 64 KiB before it returns; for a larger one it may wait until the copy is
done. A pinned one is read when the copy comes up on its stream, so until then it must be neither written nor freed.
None of this may happen while a stream is captured for a CUDA graph; a captured step takes its table from Triton's
driver.
"""

from __future__ import annotations

from collections import deque
from threading import Lock
from typing import Any

import cupy
import cupyx
import numpy as np


class Staging:
    """Pinned arrays that copies are made from, each kept until its copy is done."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._pending: dict[int, deque[tuple[Any, np.ndarray[Any, Any]]]] = {}

    def overwrite(self, buffer: cupy.ndarray, array: np.ndarray[Any, Any]) -> None:
        """Copies ``array``, which may change at once, over ``buffer``, on the current stream."""
        stream = cupy.cuda.get_current_stream()
        with self._lock:
            pending = self._pending.setdefault(stream.ptr, deque())
            while pending and pending[0][0].done:
                pending.popleft()  # CuPy's pool gives its memory to the next
            pinned = cupyx.empty_pinned(array.shape, array.dtype)
            pinned[...] = array
            buffer.set(pinned, stream=stream)
            copied = cupy.cuda.Event(disable_timing=True)
            copied.record(stream)
            pending.append((copied, pinned))
