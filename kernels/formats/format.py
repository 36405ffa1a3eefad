"""What a format is: how a slot is stored, as a load and a store for every driver."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True, eq=False, repr=False)
class Format:
    """How a slot is stored.

    A load gives the stored value exactly in float32 (float64 for fp64). A store rounds to nearest, ties to even;
    from float64 a 16-bit format rounds to float32 first, as GPUs do it. NaN stays NaN, its payload may change.

    Attributes:
        name: ``"fp32"``, ``"bf16"``, ...
        dtype: Name of the dtype in NumPy, CuPy, ml_dtypes, torch and Triton, ``"float32"``.
        storage: The NumPy dtype through which memory is addressed; of the same size.
        load: Stored array or scalar -> value. The oracle.
        store: Value -> what is assigned to memory of dtype ``storage``. The oracle.
        compiled_load: As ``load``, for scalars compiled by Numba.
        compiled_store: As ``store``, for scalars compiled by Numba.
        cuda_type: C++ type of one stored element.
        cuda_form: C++ ``struct`` called ``name`` with static ``load`` and ``store`` members over ``cuda_type``.
    """

    name: str
    dtype: str
    storage: np.dtype[Any]
    load: Callable[[Any], Any]
    store: Callable[[Any], Any]
    compiled_load: Callable[[Any], Any]
    compiled_store: Callable[[Any], Any]
    cuda_type: str
    cuda_form: str

    @property
    def itemsize(self) -> int:
        """Bytes per element."""
        return self.storage.itemsize

    def __repr__(self) -> str:
        return f"Format({self.name!r})"
