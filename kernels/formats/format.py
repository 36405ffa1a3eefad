"""What a format is: how a slot is stored, as planes with a load and a store for every driver.

Of a format in blocks, elements that follow each other share a scale, see :mod:`gpuopt.kernels.blocks`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

BLOCK = 128
"""Elements of a block."""

MOST_PLANES = 2
"""Arrays that the drivers' kernels are written out for."""


@dataclass(frozen=True)
class Plane:
    """One array of what a slot is stored in.

    Attributes:
        dtype: Name of the array's dtype in NumPy, CuPy, ml_dtypes, torch and Triton, ``"float32"``.
        storage: The NumPy dtype through which memory is addressed; of the same size.
        cuda_type: C++ type of one entry.
        block: Elements that follow each other in memory and share an entry.
    """

    dtype: str
    storage: np.dtype[Any]
    cuda_type: str
    block: int = 1

    def entries(self, numel: int) -> int:
        """Entries for so many elements; the last block may have fewer than others."""
        return -(-numel // self.block)


FLOAT64 = Plane("float64", np.dtype(np.float64), "double")
FLOAT32 = Plane("float32", np.dtype(np.float32), "float")
BFLOAT16 = Plane("bfloat16", np.dtype(np.uint16), "unsigned short")
FLOAT16 = Plane("float16", np.dtype(np.uint16), "unsigned short")
INT16 = Plane("int16", np.dtype(np.uint16), "unsigned short")
INT8 = Plane("int8", np.dtype(np.uint8), "unsigned char")
CODES = Plane("uint8", np.dtype(np.uint8), "unsigned char")
SCALES = Plane("float32", np.dtype(np.float32), "float", BLOCK)


@dataclass(frozen=True, eq=False, repr=False)
class Format:
    """How a slot is stored: in one array, or in two, its planes.

    A load gives the stored value exactly in float32 (float64 for fp64). A store rounds float64 to float32 first, as
    GPUs do it, unless it is fp64's. NaN stays NaN, its payload may change.

    Attributes:
        name: ``"fp32"``, ``"bf16"``, ...
        planes: The arrays. The first is what others see of the slot. The second one of a format in blocks has the scale
            of each block.
        load: ``(entry of each plane) -> value`` on arrays or scalars. The oracle.
        store: ``(value, random) -> (entry of each plane)``, as they are assigned to memory of the planes' ``storage``.
            The oracle. ``random`` is uint32 below 2^16, see :mod:`gpuopt.kernels.random`; None for a format that is not
            random.
            Of a format in blocks ``(value, random, factor) -> (code,)``, the factor of the element's block.
        compiled_load: As ``load``, for scalars compiled by Numba.
        compiled_store: As ``store``, for scalars compiled by Numba.
        cuda_form: C++ ``struct`` called ``name`` with the static members ``load``, from the entry of each plane to
            ``float`` or ``double``, and ``store``, from a value of any compute type, ``unsigned int random`` and a
            reference to the entry of each plane; of a format in blocks the factor and a reference to the code.
        triton_load: ``(entry of each plane, compute dtype) -> value`` of that dtype, on Triton tensors of the planes'
            ``dtype``. Undecorated, as the Triton forms of rules are.
        triton_store: As ``store`` on Triton tensors, the value of a compute dtype.
        is_random: Whether what is stored depends on ``random``.
        top: Of a format in blocks, what factors scale the largest magnitude of a block to; None for any other.
    """

    name: str
    planes: tuple[Plane, ...]
    load: Callable[..., Any]
    store: Callable[..., Any]
    compiled_load: Callable[..., Any]
    compiled_store: Callable[..., Any]
    cuda_form: str
    triton_load: Callable[..., Any]
    triton_store: Callable[..., Any]
    is_random: bool = False
    top: float | None = None

    def __post_init__(self) -> None:
        if not 1 <= len(self.planes) <= MOST_PLANES:
            raise ValueError(f"{self.name} must have 1 to {MOST_PLANES} planes, but has {len(self.planes)}")
        blocks = [plane.block for plane in self.planes]
        if blocks != ([1] * len(blocks) if self.top is None else [1, BLOCK]):
            raise ValueError(
                f"{self.name} must have codes and scales if it has a top, and else no scales, but its planes have an "
                f"entry for every {blocks} elements"
            )

    @property
    def in_blocks(self) -> bool:
        """Whether elements share scales."""
        return self.top is not None

    @cached_property
    def itemsize(self) -> float:
        """Bytes per element, of all planes; of blocks that are whole."""
        size = sum(plane.storage.itemsize / plane.block for plane in self.planes)
        return size if size % 1 else int(size)

    def nbytes(self, numel: int) -> int:
        """Bytes of so many elements, of all planes."""
        return sum(plane.storage.itemsize * plane.entries(numel) for plane in self.planes)

    def __repr__(self) -> str:
        return f"Format({self.name!r})"
