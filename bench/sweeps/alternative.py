"""What an alternative is: one kernel that could take the place of the product's."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from gpuopt.kernels.table import Table
from gpuopt.verify.drawing import Array


@dataclass(frozen=True)
class Resources:
    """What one thread of a kernel takes: registers, and bytes of its stack, which spills go to."""

    registers: int
    stack: int


@dataclass(frozen=True)
class Alternative:
    """One kernel.

    Attributes:
        name: What tables and notes call it.
        tile: Elements of a tile of the tables that it walks.
        run: Takes a step over a table on the current stream, with hyper rows.
        resources: What a thread of its kernel takes, for the GPU that is there.
        tensors: Most tensors of a table that it can step; None for any number.
    """

    name: str
    tile: int
    run: Callable[[Table, Array], None]
    resources: Callable[[], Resources]
    tensors: int | None = None


PRODUCT = "the product"
"""Name of the alternative that is none: the driver's own kernel, which the others are compared with."""
