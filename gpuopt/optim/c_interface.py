"""PyTorch's C interface, ``torch/csrc/inductor/aoti_torch/c/shim.h``, as far as it is used here.

Numba asks it about thousands of tensors in one call, in some nanoseconds each.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from functools import cache
from importlib.util import find_spec
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
import torch

from gpuopt.kernels.formats import BY_DTYPE

Integers = np.ndarray[Any, np.dtype[np.int64]]

_COMPLEX = ("complex32", "complex64", "complex128")

_pointer_of = ctypes.pythonapi.PyCapsule_GetPointer
_pointer_of.argtypes, _pointer_of.restype = [ctypes.py_object, ctypes.c_char_p], ctypes.c_void_p


class CInterface(NamedTuple):
    """What can be asked of it.

    Attributes:
        look: See :func:`gpuopt.optim.look.look`.
        questions: Addresses of the functions that it calls.
        delete: Deletes the handle of a tensor.
        strided: The code of the layout that dense tensors have.
        dtypes: Codes of dtypes.
    """

    look: Callable[[Integers, Integers, Integers, Integers], bool]
    questions: Integers
    delete: Callable[[int], int]
    strided: int
    dtypes: dict[torch.dtype, int]

    def hold(self, tensors: list[torch.Tensor]) -> Integers:
        """Handles of tensors, which live until :meth:`release`."""
        capsules = torch._C._aoti.unsafe_alloc_void_ptrs_from_tensors(tensors)
        return np.array([_pointer_of(capsule, None) for capsule in capsules], dtype=np.int64)

    def release(self, handles: Integers) -> None:
        """Deletes handles."""
        for handle in handles.tolist():
            self.delete(handle)

    def describe(self, tensors: Sequence[Any]) -> Integers:
        """Descriptions of dense tensors of dtypes that gpuopt reads, or complex, as ``look`` takes them."""
        from gpuopt.optim.look import AXES

        most_axes = max(map(torch.Tensor.dim, tensors), default=0)
        rows = np.zeros((len(tensors), AXES + 2 * most_axes), dtype=np.int64)
        for row, tensor in zip(rows, tensors, strict=True):
            axes = chain(*zip(tensor.shape, tensor.stride(), strict=True))
            row[: AXES + 2 * tensor.dim()] = self.strided, self.dtypes[tensor.dtype], tensor.dim(), *axes
        return rows


@cache
def c_interface() -> CInterface | None:
    """None where there is no Numba to call it."""
    if find_spec("numba") is None:
        return None
    from gpuopt.optim.look import QUESTIONS, look

    library = ctypes.CDLL(torch._C.__file__)
    delete = library.aoti_torch_delete_tensor_object
    delete.argtypes = [ctypes.c_void_p]
    return CInterface(
        look,
        np.array([ctypes.cast(getattr(library, name), ctypes.c_void_p).value for name in QUESTIONS], dtype=np.int64),
        delete,
        library.aoti_torch_layout_strided(),
        {getattr(torch, name): getattr(library, f"aoti_torch_dtype_{name}")() for name in (*BY_DTYPE, *_COMPLEX)},
    )
