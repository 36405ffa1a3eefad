"""What a driver is: it runs a rule over a table on one backend."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

from gpuopt.kernels.table import Table


class Driver(Protocol):
    """Runs a rule over a table, in place.

    Each driver is a module with these names. It is the only place with loads, stores, masks, grids and threads,
    and it knows no optimizer's arithmetic.
    """

    TILE: int
    """Elements that one program or thread takes at a time; tables are made with it."""

    DEVICE: str
    """The memory that it runs on: ``"cpu"`` or ``"cuda"``."""

    def unavailable(self) -> str | None:
        """Why it cannot run here although its packages are installed, as a clause; None when it can."""

    def run(self, table: Table, hyper: np.ndarray[Any, Any], stream: int = 0) -> None:
        """One step over ``table``.

        Args:
            table: The tensors, with the variant to run.
            hyper: One row per distinct step, from :meth:`Variant.hyper_array`.
            stream: Handle of the CUDA stream to launch on; 0 is the default stream. Ignored for host memory.
        """
