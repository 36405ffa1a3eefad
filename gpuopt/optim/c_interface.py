"""What PyTorch can be asked about tensors without Python, by Numba: about thousands in one call, in nanoseconds each.

That is its C interface, ``torch/csrc/inductor/aoti_torch/c/shim.h``, and one method of C++ that it has no counterpart
for, ``c10::TensorImpl::grad``. Both are tried before they are used.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from functools import cache
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
import torch

from gpuopt.kernels.drivers import DRIVERS
from gpuopt.kernels.formats import BY_DTYPE

Integers = np.ndarray[Any, np.dtype[np.int64]]

_COMPLEX = ("complex32", "complex64", "complex128")

_pointer_of = ctypes.pythonapi.PyCapsule_GetPointer
_pointer_of.argtypes, _pointer_of.restype = [ctypes.py_object, ctypes.c_char_p], ctypes.c_void_p


class CInterface(NamedTuple):
    """What can be asked of it.

    Attributes:
        look: See :func:`gpuopt.optim.look.look`.
        look_at_grads: See :func:`gpuopt.optim.look.look_at_grads`.
        questions: Addresses of the functions that they call.
        grad_of: Address of the method that returns a gradient.
        undefined: What it returns for a parameter that has none.
        delete: Deletes the handle of a tensor.
        strided: The code of the layout that dense tensors have.
        dtypes: Codes of dtypes.
    """

    look: Callable[[Integers, Integers, Integers, Integers], bool]
    look_at_grads: Callable[[Integers, int, int, Integers, Integers, Integers, Integers], bool]
    questions: Integers
    grad_of: int
    undefined: int
    delete: Callable[[int], int]
    strided: int
    dtypes: dict[torch.dtype, int]

    def see(self, handles: Integers, descriptions: Integers, addresses: Integers) -> bool:
        """See :func:`gpuopt.optim.look.look`."""
        return self.look(handles, self.questions, descriptions, addresses)

    def see_grads(self, handles: Integers, descriptions: Integers, impls: Integers, addresses: Integers) -> bool:
        """See :func:`gpuopt.optim.look.look_at_grads`."""
        return self.look_at_grads(handles, self.grad_of, self.undefined, self.questions, descriptions, impls, addresses)

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
    """None where Numba cannot run, or this PyTorch does not have it."""
    if DRIVERS["numba"].unavailable() is not None:
        return None
    from gpuopt.optim.look import QUESTIONS, compiled_look, compiled_look_at_grads

    library = ctypes.CDLL(torch._C.__file__)
    try:
        delete = library.aoti_torch_delete_tensor_object
        delete.argtypes = [ctypes.c_void_p]
        c = CInterface(
            compiled_look,
            compiled_look_at_grads,
            np.array([_address_in(library, name) for name in QUESTIONS], dtype=np.int64),
            _address_in(library, "_ZNK3c1010TensorImpl4gradEv"),
            0,
            delete,
            library.aoti_torch_layout_strided(),
            {getattr(torch, name): getattr(library, f"aoti_torch_dtype_{name}")() for name in (*BY_DTYPE, *_COMPLEX)},
        )
        return _tried(c)
    except AttributeError:  # no function of that name
        return None


def _address_in(library: ctypes.CDLL, name: str) -> int:
    return ctypes.cast(getattr(library, name), ctypes.c_void_p).value or 0


def _tried(c: CInterface) -> CInterface | None:
    """``c`` with what a missing gradient looks like; None where it says otherwise than Python."""
    param, without = (torch.zeros(2, 3, requires_grad=True) for _ in range(2))
    param.grad = torch.ones(3, 2).t()
    c = c._replace(undefined=_impl_of_grad(c, without))
    handles, impls, addresses = c.hold([param, without]), np.zeros(2, dtype=np.int64), np.zeros(2, dtype=np.int64)
    try:
        described = c.describe([param.grad] * 2)
        sees_both = c.see_grads(handles, described, impls, addresses)
        sees_param = c.see(handles[:1], described[:1], addresses[1:])
    finally:
        c.release(handles)
    seen = not sees_both, not sees_param, *impls.tolist(), int(addresses[0])
    return c if seen == (True, True, param.grad._cdata, c.undefined, param.grad.data_ptr()) else None


def _impl_of_grad(c: CInterface, param: torch.Tensor) -> int:
    handle = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p)(c.grad_of)(param._cdata)
    return ctypes.c_int64.from_address(handle).value
