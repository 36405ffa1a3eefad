"""What a driver is: it runs a rule over a table on one backend."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

from gpuopt.kernels.schedule import Schedule
from gpuopt.kernels.signals import NO_SIGNALS, Signals
from gpuopt.kernels.table import Table


class Driver(Protocol):
    """Runs a rule over a table, in place.

    Each driver is a module with these names. It is the only place with loads, stores, masks, grids and threads,
    and it knows no optimizer's arithmetic.
    """

    TILE: int
    """Elements that one program or thread takes at a time, in whole blocks; tables are made with it."""

    DEVICE: str
    """The memory that it runs on: ``"cpu"`` or ``"cuda"``."""

    SCHEDULES: bool
    """Whether hyper may be a schedule, which the device follows."""

    def unavailable(self) -> str | None:
        """Why it cannot run here although its packages are installed, as a clause; None when it can."""

    def place(
        self, table: Table, hyper: np.ndarray[Any, Any] | Schedule, stream: int = 0, signals: Signals = NO_SIGNALS
    ) -> Any:
        """Brings what a step over ``table`` reads to where the driver reads it, for the two methods below.

        Args:
            table: The tensors, with the variant to run.
            hyper: One row per distinct step, from :meth:`Variant.hyper_array`; or what the device computes one row
                per tensor from.
            stream: Handle of the CUDA stream to launch on; 0 is the default stream. Ignored for host memory.
            signals: Scalars that earlier work on ``stream`` leaves for this step.
        """

    def prepare(self, table: Table, hyper: np.ndarray[Any, Any], threads: int | None = None) -> None:
        """Has compiled what a step over ``table`` takes, where the host compiles it; nothing is written."""

    def sum_squares(self, table: Table, placed: Any, part: int = 0, stream: int = 0, threads: int | None = None) -> Any:
        """Sums of squares of the gradients, float64 in the driver's memory: their sum is that of all squares.

        Args:
            table: The tensors.
            placed: From :meth:`place`.
            part: Gradients of rows of other parts count as 0 times themselves, see :mod:`gpuopt.kernels.gradnorm`.
            stream: As for :meth:`place`.
            threads: The most that it runs on in host memory; None for as many as the driver likes.
        """

    def step(self, table: Table, placed: Any, stream: int = 0, threads: int | None = None) -> None:
        """One step over ``table``: one launch, after a small one that follows the schedule if there is one.

        ``threads`` as for :meth:`sum_squares`.
        """

    def run(
        self, table: Table, hyper: np.ndarray[Any, Any] | Schedule, stream: int = 0, signals: Signals = NO_SIGNALS
    ) -> None:
        """:meth:`place` and :meth:`step`."""
