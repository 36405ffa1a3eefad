"""What instructions work on: registers, special registers and numbers, read as some type."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from kit.ptx.program import Instruction, Program

if TYPE_CHECKING:
    from kit.ptx.machine import Machine

Array = np.ndarray[Any, Any]
Step = Callable[["Machine", Any], None]
"""What an instruction does: a function of the machine and of the threads that take it, which are all of them
(``slice(None)``) or some by their indices."""

Reader = Callable[["Machine", Any], Array]
Writer = Callable[["Machine", Any, Array], None]

TYPES: dict[str, Any] = {
    **{f"{kind}{bits}": np.dtype(f"u{bits // 8}") for kind in "bu" for bits in (8, 16, 32, 64)},
    **{f"s{bits}": np.dtype(f"i{bits // 8}") for bits in (8, 16, 32, 64)},
    "f16": np.dtype(np.float16),
    "f32": np.dtype(np.float32),
    "f64": np.dtype(np.float64),
    "pred": np.dtype(bool),
}
"""By the name of a type, how NumPy has it; bfloat16, which it has not, is :data:`BF16`."""

BF16 = "bf16"

FLOATS = ("f16", "f32", "f64")


class UnsoundError(Exception):
    """An instruction does not round as IEEE 754 says, or leaves it to the assembler whether it does."""


def reader(operand: str, dtype: np.dtype[Any], program: Program) -> Reader:
    """The values of an operand: a register, of whose bits the low ones count, a special register, or a number."""
    if operand in _SPECIAL:
        special = _SPECIAL[operand]
        return lambda machine, lanes: special(machine)[lanes].astype(dtype)
    if operand in program.registers:
        width = program.registers[operand]
        if not width or width == dtype.itemsize:
            return lambda machine, lanes: machine.registers[operand][lanes].view(dtype)
        if width < dtype.itemsize:
            raise NotImplementedError(f"{operand} of {width} bytes read as {dtype}")
        unsigned = f"u{dtype.itemsize}"
        return lambda machine, lanes: machine.registers[operand][lanes].astype(unsigned).view(dtype)
    value = np.array([_number(operand, dtype, program)])
    return lambda machine, lanes: value


def _number(operand: str, dtype: np.dtype[Any], program: Program) -> Any:
    """A literal, or the address of a variable in shared memory."""
    if operand in program.symbols:
        return dtype.type(program.symbols[operand])
    if match := re.fullmatch(r"0([fFdD])([0-9a-fA-F]+)", operand):
        size = 4 if match[1] in "fF" else 8
        if size != dtype.itemsize:
            raise NotImplementedError(f"{operand} of {size} bytes read as {dtype}")
        return np.array(int(match[2], 16), f"u{size}").view(dtype)[()]
    if re.fullmatch(r"-?(0x[0-9a-fA-F]+|\d+)U?", operand):
        number = int(operand.rstrip("U"), 0)
        if dtype.kind == "b":
            return bool(number)
        return np.array(number & ((1 << 8 * dtype.itemsize) - 1), f"u{dtype.itemsize}").view(dtype)[()]
    raise NotImplementedError(f"the operand {operand}")


_SPECIAL: dict[str, Callable[[Machine], Array]] = {
    "%tid.x": lambda machine: machine.thread,
    "%ctaid.x": lambda machine: machine.block,
    "%ntid.x": lambda machine: np.full_like(machine.thread, machine.threads),
    "%nctaid.x": lambda machine: np.full_like(machine.thread, machine.grid),
}


def writer(operand: str, program: Program) -> Writer:
    """Into a register. In a wider one an integer is extended, by its sign if it has one."""
    if operand == "_":
        return lambda machine, lanes, value: None
    if operand not in program.registers:
        raise NotImplementedError(f"a result in {operand}")
    width = program.registers[operand]

    def write(machine: Machine, lanes: Any, value: Array) -> None:
        if not width:
            machine.registers[operand][lanes] = value
        elif value.itemsize == width:
            machine.registers[operand][lanes] = value.view(f"u{width}")
        elif value.itemsize < width and value.dtype.kind in "iu":
            machine.registers[operand][lanes] = value.astype(f"{value.dtype.kind}{width}").view(f"u{width}")
        else:
            raise NotImplementedError(f"{value.dtype} in {operand} of {width} bytes")

    return write


def typed(instruction: Instruction, known: tuple[str, ...] = ()) -> str:
    """The only type of an instruction, all of whose other modifiers must be known."""
    *rest, kind = instruction.modifiers or ("",)
    if kind not in TYPES or not set(rest) <= set(known):
        raise NotImplementedError(f"the instruction {instruction.text}")
    return kind


def rounded(instruction: Instruction, kinds: tuple[str, ...]) -> str:
    """The type of an instruction that rounds, if it says that it does so to nearest even."""
    *rest, kind = instruction.modifiers
    if kind not in kinds:
        raise NotImplementedError(f"the instruction {instruction.text}")
    if rest != ["rn"]:
        raise UnsoundError(f"{instruction.text} does not say that it rounds to nearest even, and no more")
    return kind


def parts(operand: str) -> list[str]:
    return [part.strip() for part in operand.strip("{} ").split(",")]
