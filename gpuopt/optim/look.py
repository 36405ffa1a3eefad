"""The loop that asks PyTorch's C interface about many tensors, compiled by Numba."""

from __future__ import annotations

import numpy as np
from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic, register_jitable

from gpuopt.kernels.drivers.numba import compile_cached, pointer_to, source_fingerprint

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


@intrinsic
def _grad_of(typing_context, function, impl):
    """``function(impl)``, which returns the address of the gradient, an ``at::Tensor``."""

    def code(context, builder, signature, arguments):
        pointer = ir.IntType(8).as_pointer()
        function = builder.inttoptr(arguments[0], ir.FunctionType(pointer, [pointer]).as_pointer())
        return builder.ptrtoint(builder.call(function, [builder.inttoptr(arguments[1], pointer)]), ir.IntType(64))

    return types.int64(types.int64, types.int64), code


@register_jitable
def _is_as_described(handle, questions, described, answers):
    """Whether a tensor has the layout, dtype, sizes and strides of a description; ``answers`` is space to work in."""
    at = answers.ctypes.data
    answers[0] = 0  # of which layout and dtype fill the lower half
    if _ask(questions[1], handle, at) or answers[0] != described[LAYOUT]:
        return False
    if _ask(questions[2], handle, at) or answers[0] != described[DTYPE]:
        return False
    if _ask(questions[3], handle, at) or answers[0] != described[DIM]:
        return False
    if _ask(questions[4], handle, at) or _ask(questions[5], handle, at + 8):
        return False
    sizes, strides = pointer_to(answers[0], 0, np.int64), pointer_to(answers[1], 0, np.int64)
    for axis in range(described[DIM]):
        column = AXES + 2 * axis
        if sizes[axis] != described[column] or strides[axis] != described[column + 1]:
            return False
    return True


def look(handles, questions, descriptions, addresses):
    """Finds out where tensors are, and whether the first of them are as they are described.

    Args:
        handles: int64 of shape (tensors,). A handle is the address of an ``at::Tensor``.
        questions: int64, addresses of the functions :data:`QUESTIONS`.
        descriptions: int64 of shape (described, columns), of the first tensors; the others may lie as they like.
        addresses: int64 of shape (tensors,), filled as far as all is well.

    Returns:
        Whether every tensor has an address, and those described have layout, dtype, sizes and strides as described.
    """
    answers = np.zeros(2, dtype=np.int64)
    for index in range(handles.size):
        if index < len(descriptions) and not _is_as_described(handles[index], questions, descriptions[index], answers):
            return False
        if _ask(questions[0], handles[index], answers.ctypes.data):
            return False
        addresses[index] = answers[0]
    return True


def look_at_grads(params, grad_of, undefined, questions, descriptions, impls, addresses):
    """As :func:`look`, at the gradients of parameters, all of which must have one.

    Args:
        params: Handles of the parameters.
        grad_of: Address of ``c10::TensorImpl::grad() const``.
        undefined: The implementation of a gradient that is not there.
        questions: As for :func:`look`.
        descriptions: Of the gradients.
        impls: int64 of shape (params,), filled with the addresses of their implementations.
        addresses: int64 of shape (params,), filled with their addresses.
    """
    answers = np.zeros(2, dtype=np.int64)
    for index in range(params.size):
        # An at::Tensor is a pointer to its implementation.
        handle = _grad_of(grad_of, pointer_to(params[index], 0, np.int64)[0])
        impls[index] = pointer_to(handle, 0, np.int64)[0]
        if impls[index] == undefined or not _is_as_described(handle, questions, descriptions[index], answers):
            return False
        if _ask(questions[0], handle, answers.ctypes.data):
            return False
        addresses[index] = answers[0]
    return True


# A binary that is kept on disk has the driver's pointers in it.
compiled_look = compile_cached(look, source_fingerprint())
compiled_look_at_grads = compile_cached(look_at_grads, source_fingerprint())
