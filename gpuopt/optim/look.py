"""The loop that asks PyTorch's C interface about many tensors, compiled by Numba."""

from __future__ import annotations

import numba
import numpy as np
from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from gpuopt.kernels.drivers.numba import cache_on_disk, pointer_to

QUESTIONS = (
    "aoti_torch_get_data_ptr",
    "aoti_torch_get_layout",
    "aoti_torch_get_dtype",
    "aoti_torch_get_dim",
    "aoti_torch_get_sizes",
    "aoti_torch_get_strides",
)
"""Functions that take the handle of a tensor and where to put the answer, an integer of 4 bytes or of 8."""

LAYOUT, DTYPE, DIM, AXES = range(4)
"""Columns of a description; from AXES on, size and stride of each axis."""


@intrinsic
def _ask(typing_context, question, handle, answer):
    """``question(handle, answer)``, all three given as addresses; an error code, which is 0 if all is well."""

    def code(context, builder, signature, arguments):
        pointer = ir.IntType(8).as_pointer()
        kind = ir.FunctionType(ir.IntType(32), [pointer, pointer]).as_pointer()
        question, *given = arguments
        return builder.call(builder.inttoptr(question, kind), [builder.inttoptr(each, pointer) for each in given])

    return types.int32(types.int64, types.int64, types.int64), code


@numba.njit
def look(handles, questions, descriptions, addresses):
    """Finds out where tensors are, and whether they are as they are described.

    Args:
        handles: int64 of shape (tensors,). A handle is the address of an ``at::Tensor``.
        questions: int64, addresses of the functions :data:`QUESTIONS`.
        descriptions: int64 of shape (described, columns), of the first tensors; the others may lie as they like.
        addresses: int64 of shape (tensors,), filled as far as all is well.

    Returns:
        Whether every tensor has an address, and layout, dtype, sizes and strides as described.
    """
    answers = np.zeros(6, dtype=np.int64)
    at = answers.ctypes.data
    for index in range(handles.size):
        handle = handles[index]
        if index < len(descriptions):
            described = descriptions[index]
            if _ask(questions[1], handle, at + 8) or answers[1] != described[LAYOUT]:
                return False
            if _ask(questions[2], handle, at + 16) or answers[2] != described[DTYPE]:
                return False
            if _ask(questions[3], handle, at + 24) or answers[3] != described[DIM]:
                return False
            if _ask(questions[4], handle, at + 32) or _ask(questions[5], handle, at + 40):
                return False
            sizes, strides = pointer_to(answers[4], 0, np.int64), pointer_to(answers[5], 0, np.int64)
            for axis in range(described[DIM]):
                column = AXES + 2 * axis
                if sizes[axis] != described[column] or strides[axis] != described[column + 1]:
                    return False
        if _ask(questions[0], handle, at):
            return False
        addresses[index] = answers[0]
    return True


cache_on_disk(look)
