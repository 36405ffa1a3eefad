"""Slots in 8 bits have codes as their parameter has elements, and scales one after the other, an entry for each block.

1. A step over whatever lies so gives the bits of the oracle: values of codes and scales, the rule in float32, and codes
   and scales of those, in the order of the parameter's memory without its gaps. Codes that lie otherwise are packed.
2. Scales of another shape or dtype, with gaps, misaligned or read-only, or in memory that something else has too, are
   refused in a sentence, and nothing is written.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from gpuopt import eight_bit
from gpuopt.kernels import blocks
from gpuopt.kernels.drivers import DRIVERS
from gpuopt.kernels.formats import EIGHT_BIT
from gpuopt.kernels.prologue import Prologue
from gpuopt.kernels.random import key_at, random_bits, slot_key
from gpuopt.kernels.rules import RULES, sgd
from gpuopt.kernels.variant import hyper_row
from gpuopt.plan import Stored, Tensor, select_all

RULE, FORMAT = RULES["sgd"], EIGHT_BIT["signed"]
NUMPY = DRIVERS["numpy"].load()
HYPER, KEY = sgd.hyper_at(2, 0.1, 0.9), key_at(2, 7)

LAYOUTS: dict[str, Callable[[], np.ndarray[Any, Any]]] = {
    "contiguous": lambda: np.zeros((20, 30), np.float32),
    "transposed": lambda: np.zeros((30, 20), np.float32).T,
    "with gaps": lambda: np.zeros((20, 60), np.float32)[:, ::2],
    "channels last": lambda: np.zeros((2, 5, 5, 12), np.float32).transpose(0, 3, 1, 2),
    "one block and one element": lambda: np.zeros(129, np.float32),
    "one element": lambda: np.zeros((), np.float32),
    "nothing": lambda: np.zeros((0, 3), np.float32),
}


def drawn(like: np.ndarray[Any, Any], seed: int) -> np.ndarray[Any, Any]:
    like[...] = np.random.default_rng(seed).standard_normal(like.shape)
    return like


def in_order(array: np.ndarray[Any, Any], like: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The elements in the order of the memory of ``like``."""
    axes = sorted(range(like.ndim), key=lambda axis: -like.strides[axis])
    return array.transpose(axes).reshape(-1).copy()


def slots_of(make: Callable[[], np.ndarray[Any, Any]]) -> tuple[Any, Any, Any, Any]:
    param, grad = drawn(make(), 1), drawn(np.zeros_like(make()), 2)
    codes, scales = eight_bit.encode(in_order(drawn(make(), 3), param), FORMAT)
    laid_out = np.zeros_like(param, dtype=np.uint8)
    axes = sorted(range(param.ndim), key=lambda axis: -param.strides[axis])
    laid_out.transpose(axes)[...] = codes.reshape(laid_out.transpose(axes).shape)
    return param, grad, laid_out, scales


def step(param: Any, grad: Any, codes: Any, scales: Any) -> None:
    tensor = Tensor("'w'", (param, grad, Stored(FORMAT, (codes, scales)), None, None))
    select_all(RULE, [tensor], NUMPY).run([hyper_row(Prologue(), HYPER, key=KEY)])


@pytest.mark.parametrize("codes_are", ["as the parameter", "contiguous"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_step_is_that_of_the_oracle(layout: str, codes_are: str) -> None:
    param, grad, codes, scales = slots_of(LAYOUTS[layout])
    codes = np.ascontiguousarray(codes) if codes_are == "contiguous" and codes.ndim else codes
    values = blocks.load(FORMAT, (in_order(codes, param), scales))
    p, buffer = RULE.numpy_form(in_order(param, param), in_order(grad, param), np.float32(HYPER), values)
    keys = np.array(KEY, np.uint32).reshape(2, 1)
    index = np.arange(param.size, dtype=np.uint32)
    wanted = blocks.store(FORMAT, buffer, random_bits(2)(index, np.uint32(0), slot_key(*keys, 2)))
    step(param, grad, codes, scales)
    assert in_order(param, param).tobytes() == p.tobytes()
    assert in_order(codes, param).tobytes() == wanted[0].tobytes()
    assert scales.tobytes() == wanted[1].tobytes()


def _misaligned(scales: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    memory = np.zeros(scales.nbytes + 1, np.uint8)
    return memory[1:].view(np.float32)


def _read_only(scales: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    scales.setflags(write=False)
    return scales


REFUSED: dict[str, tuple[Callable[[Any], Any], type[Exception], str]] = {
    "too few": (lambda s: s[:-1], ValueError, r"must have the shape \(5,\), an entry for every 128 elements of param"),
    "as the parameter": (
        lambda s: np.zeros((20, 30), np.float32),
        ValueError,
        r"must have the shape \(5,\), .* but has",
    ),
    "of two dimensions": (lambda s: s.reshape(1, 5), ValueError, r"must have the shape \(5,\), .* but has \(1, 5\)"),
    "of float64": (lambda s: s.astype(np.float64), TypeError, "must be of dtype float32 .* but is float64"),
    "with gaps": (lambda s: np.repeat(s, 2)[::2], ValueError, r"must be aligned and have no gaps, .* strides \(8,\)"),
    "backwards": (lambda s: s[::-1], ValueError, r"must be aligned and have no gaps, but .* strides \(-4,\)"),
    "misaligned": (_misaligned, ValueError, "must be aligned and have no gaps, but begins at 0x"),
    "read-only": (_read_only, ValueError, "must be writable, but is read-only"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_scales_that_are_refused(case: str) -> None:
    param, grad, codes, scales = slots_of(LAYOUTS["contiguous"])
    before = param.tobytes(), codes.tobytes()
    change, error, message = REFUSED[case]
    with pytest.raises(error, match=f"^float32 part of momentum_buffer 'w' {message}"):
        step(param, grad, codes, change(scales))
    assert (param.tobytes(), codes.tobytes()) == before


@pytest.mark.parametrize("other", ["the parameter", "codes"])
def test_scales_in_the_memory_of_another(other: str) -> None:
    param, grad, codes, _ = slots_of(LAYOUTS["contiguous"])
    shared = param.reshape(-1) if other == "the parameter" else codes.reshape(-1).view(np.float32)
    with pytest.raises(ValueError, match=r"'w' and .* 'w' must not share memory, but they do"):
        step(param, grad, codes, shared[1:6])


def test_codes_of_another_shape_or_dtype() -> None:
    param, grad, codes, scales = slots_of(LAYOUTS["contiguous"])
    with pytest.raises(ValueError, match=r"momentum_buffer 'w' must have the shape of param 'w', \(20, 30\), but has"):
        step(param, grad, codes.reshape(-1), scales)
    with pytest.raises(TypeError, match=r"momentum_buffer 'w' must be of dtype uint8 .* but is int8"):
        step(param, grad, codes.view(np.int8), scales)
