"""Arithmetic, comparisons and conversions.

Integers wrap around; floating-point arithmetic rounds to nearest even, as NumPy's does, and keeps subnormals. What
rounds otherwise is refused, and so is what leaves it to the assembler.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from kit.ptx.operands import BF16, FLOATS, TYPES, Array, Step, UnsoundError, reader, rounded, typed, writer
from kit.ptx.program import Instruction, Program

if TYPE_CHECKING:
    from kit.ptx.machine import Machine

ARITHMETIC: dict[str, Callable[[Any, Any], Any]] = {
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "div": np.divide,
    "min": np.minimum,
    "max": np.maximum,
    "and": np.bitwise_and,
    "or": np.bitwise_or,
    "xor": np.bitwise_xor,
}

UNARY: dict[str, Callable[[Any], Any]] = {"neg": np.negative, "abs": np.abs, "not": np.invert, "sqrt": np.sqrt}

ORDERED: dict[str, Callable[[Any, Any], Any]] = {
    "eq": np.equal,
    "ne": np.not_equal,
    "lt": np.less,
    "le": np.less_equal,
    "gt": np.greater,
    "ge": np.greater_equal,
    "lo": np.less,
    "ls": np.less_equal,
    "hi": np.greater,
    "hs": np.greater_equal,
}
"""Comparisons; false where an operand is NaN, which NumPy's ``not_equal`` is not."""

EITHER_WAY = {"equ": "eq", "neu": "ne", "ltu": "lt", "leu": "le", "gtu": "gt", "geu": "ge"}
"""Those that are true where an operand is NaN, by what they are elsewhere."""


def _arithmetic(instruction: Instruction, program: Program) -> Step:
    kind = instruction.modifiers[-1]
    if kind == "f32x2":
        return _paired(instruction, program)
    if instruction.modifiers[-2:] in (("f32", BF16), ("f32", "f16")):
        return _widening(instruction, program)
    operation = ARITHMETIC[instruction.name]
    if kind in FLOATS:
        if instruction.name not in ("add", "sub", "mul", "div"):
            raise NotImplementedError(f"the instruction {instruction.text}")
        kind = rounded(instruction, FLOATS)
    elif instruction.name == "mul":
        return _integer_product(instruction, program)
    else:
        kind = typed(instruction)
        operation = _quotient if instruction.name == "div" else operation
    to, *sources = instruction.operands
    write, (a, b) = writer(to, program), (reader(each, TYPES[kind], program) for each in sources)
    return lambda machine, lanes: write(machine, lanes, operation(a(machine, lanes), b(machine, lanes)))


def _quotient(a: Array, b: Array) -> Array:
    """Of integers, rounded towards zero."""
    quotient: Array = a // b
    return quotient + ((quotient < 0) & (quotient * b != a)).astype(quotient.dtype)


def _paired(instruction: Instruction, program: Program) -> Step:
    """Two float32 in a register of 64 bits."""
    rounded(instruction, ("f32x2",))
    operation = ARITHMETIC[instruction.name]
    to, *sources = instruction.operands
    write, (a, b) = writer(to, program), (reader(each, TYPES["b64"], program) for each in sources)

    def step(machine: Machine, lanes: Any) -> None:
        one, other = (np.ascontiguousarray(each(machine, lanes)).view(np.float32) for each in (a, b))
        write(machine, lanes, operation(one, other).view(np.uint64))

    return step


def _widening(instruction: Instruction, program: Program) -> Step:
    """A float of 16 bits and a float32, to float32."""
    *how, _, kind = instruction.modifiers
    if how != ["rn"] or instruction.name not in ("add", "sub"):
        raise UnsoundError(f"{instruction.text} does not say that it rounds to nearest even, and no more")
    operation = ARITHMETIC[instruction.name]
    to, narrow, wide = instruction.operands
    write, b = writer(to, program), reader(wide, TYPES["f32"], program)
    a = reader(narrow, TYPES["b16"] if kind == BF16 else TYPES[kind], program)
    return lambda machine, lanes: write(
        machine, lanes, operation(_converted(a(machine, lanes), kind, "f32"), b(machine, lanes))
    )


def _integer_product(instruction: Instruction, program: Program) -> Step:
    """``mul`` and ``mad`` of integers: the low half of the product, or all of it, and a third operand added."""
    how, kind = instruction.modifiers if len(instruction.modifiers) == 2 else ("", "")
    if how not in ("lo", "wide") or kind not in TYPES or kind in FLOATS:
        raise NotImplementedError(f"the instruction {instruction.text}")
    narrow = TYPES[kind]
    result = np.dtype(f"{narrow.kind}{2 * narrow.itemsize}") if how == "wide" else narrow
    to, *factors = instruction.operands
    write, (a, b) = writer(to, program), (reader(each, narrow, program) for each in factors[:2])
    if instruction.name == "mul":
        return lambda machine, lanes: write(
            machine, lanes, a(machine, lanes).astype(result) * b(machine, lanes).astype(result)
        )
    more = reader(factors[2], result, program)
    return lambda machine, lanes: write(
        machine, lanes, a(machine, lanes).astype(result) * b(machine, lanes).astype(result) + more(machine, lanes)
    )


def _fused(instruction: Instruction, program: Program) -> Step:
    raise UnsoundError(f"{instruction.text} adds a product that has not been rounded")


def _multiply_add(instruction: Instruction, program: Program) -> Step:
    if instruction.modifiers[-1] in FLOATS:
        return _fused(instruction, program)
    return _integer_product(instruction, program)


def _unary(instruction: Instruction, program: Program) -> Step:
    operation = UNARY[instruction.name]
    kind = rounded(instruction, FLOATS) if instruction.name == "sqrt" else typed(instruction)
    to, source = instruction.operands
    write, read = writer(to, program), reader(source, TYPES[kind], program)
    return lambda machine, lanes: write(machine, lanes, operation(read(machine, lanes)))


def _shift(instruction: Instruction, program: Program) -> Step:
    """By an amount of 32 bits; what is shifted out is gone, and a sign is repeated."""
    kind = typed(instruction)
    dtype = TYPES[kind]
    bits = 8 * dtype.itemsize
    to, source, by = instruction.operands
    write, read, amount = writer(to, program), reader(source, dtype, program), reader(by, TYPES["u32"], program)
    if instruction.name == "shr" and dtype.kind == "i":
        return lambda machine, lanes: write(
            machine,
            lanes,
            np.right_shift(read(machine, lanes), np.minimum(amount(machine, lanes), bits - 1).astype(dtype)),
        )
    operation = np.left_shift if instruction.name == "shl" else np.right_shift

    def step(machine: Machine, lanes: Any) -> None:
        by = amount(machine, lanes)
        shifted = operation(read(machine, lanes), (by % bits).astype(dtype))
        write(machine, lanes, np.where(by < bits, shifted, dtype.type(0)))

    return step


def _funnel_shift(instruction: Instruction, program: Program) -> Step:
    """The upper half of two registers shifted left, or the lower shifted right, by the low bits of an amount."""
    if instruction.modifiers not in (("l", "wrap", "b32"), ("r", "wrap", "b32")):
        raise NotImplementedError(f"the instruction {instruction.text}")
    is_left = instruction.modifiers[0] == "l"
    to, *sources = instruction.operands
    write, (low, high, amount) = writer(to, program), (reader(each, TYPES["u32"], program) for each in sources)

    def step(machine: Machine, lanes: Any) -> None:
        both = low(machine, lanes).astype(np.uint64) | (high(machine, lanes).astype(np.uint64) << np.uint64(32))
        by = (amount(machine, lanes) & np.uint32(31)).astype(np.uint64)
        write(machine, lanes, ((both << by) >> np.uint64(32) if is_left else both >> by).astype(np.uint32))

    return step


def _extract_bits(instruction: Instruction, program: Program) -> Step:
    """So many bits from a position on."""
    if instruction.modifiers != ("u32",):
        raise NotImplementedError(f"the instruction {instruction.text}")
    to, source, *where = instruction.operands
    write, read = writer(to, program), reader(source, TYPES["u32"], program)
    position, length = (reader(each, TYPES["u32"], program) for each in where)

    def step(machine: Machine, lanes: Any) -> None:
        first, count = (each(machine, lanes) & np.uint32(255) for each in (position, length))
        mask = (np.uint64(1) << np.minimum(count, 32).astype(np.uint64)) - np.uint64(1)
        shifted = read(machine, lanes).astype(np.uint64) >> np.minimum(first, 32).astype(np.uint64)
        write(machine, lanes, (shifted & mask).astype(np.uint32))

    return step


def _permute_bytes(instruction: Instruction, program: Program) -> Step:
    """Four bytes of two registers, each chosen by four bits, of which the highest repeats the byte's sign instead."""
    if instruction.modifiers != ("b32",):
        raise NotImplementedError(f"the instruction {instruction.text}")
    to, *sources = instruction.operands
    write, (low, high, chooses) = writer(to, program), (reader(each, TYPES["u32"], program) for each in sources)

    def step(machine: Machine, lanes: Any) -> None:
        both = low(machine, lanes).astype(np.uint64) | (high(machine, lanes).astype(np.uint64) << np.uint64(32))
        choice = chooses(machine, lanes).astype(np.uint64)
        result = np.uint64(0)
        for k in range(4):
            nibble = (choice >> np.uint64(4 * k)) & np.uint64(15)
            byte = (both >> ((nibble & np.uint64(7)) << np.uint64(3))) & np.uint64(255)
            byte = np.where(nibble & np.uint64(8), (byte >> np.uint64(7)) * np.uint64(255), byte)
            result = result | (byte << np.uint64(8 * k))
        write(machine, lanes, result.astype(np.uint32))

    return step


def _comparison(how: str, kind: str, text: str) -> Callable[[Array, Array], Array]:
    if how == "nan":
        return lambda a, b: np.isnan(a) | np.isnan(b)
    if how == "num":
        return lambda a, b: ~(np.isnan(a) | np.isnan(b))
    if how in EITHER_WAY and kind in FLOATS:
        operation = ORDERED[EITHER_WAY[how]]
        return lambda a, b: operation(a, b) | np.isnan(a) | np.isnan(b)
    if how not in ORDERED:
        raise NotImplementedError(f"the instruction {text}")
    operation = ORDERED[how]
    if how == "ne" and kind in FLOATS:
        return lambda a, b: (a != b) & ~np.isnan(a) & ~np.isnan(b)
    return operation


def _set_predicate(instruction: Instruction, program: Program) -> Step:
    kind, (how, *rest) = instruction.modifiers[-1], instruction.modifiers[:-1]
    if rest or kind not in TYPES:
        raise NotImplementedError(f"the instruction {instruction.text}")
    compare = _comparison(how, kind, instruction.text)
    to, *sources = instruction.operands
    write, (a, b) = writer(to, program), (reader(each, TYPES[kind], program) for each in sources)
    return lambda machine, lanes: write(machine, lanes, compare(a(machine, lanes), b(machine, lanes)))


def _set(instruction: Instruction, program: Program) -> Step:
    """A comparison whose result is all ones or none in a register of 32 bits."""
    how, to_kind, kind = instruction.modifiers if len(instruction.modifiers) == 3 else ("", "", "")
    if to_kind not in ("u32", "s32") or kind not in TYPES:
        raise NotImplementedError(f"the instruction {instruction.text}")
    compare = _comparison(how, kind, instruction.text)
    to, *sources = instruction.operands
    write, (a, b) = writer(to, program), (reader(each, TYPES[kind], program) for each in sources)
    return lambda machine, lanes: write(
        machine, lanes, np.where(compare(a(machine, lanes), b(machine, lanes)), np.uint32(0xFFFFFFFF), np.uint32(0))
    )


def _convert(instruction: Instruction, program: Program) -> Step:
    """Between types; to a narrower floating-point type to nearest even."""
    *how, to_kind, kind = instruction.modifiers
    floats = (*FLOATS, BF16)
    to, *sources = instruction.operands
    write = writer(to, program)
    narrows = (to_kind.removesuffix("x2") in floats) and (kind not in floats or _bits(to_kind) < _bits(kind))
    if BF16 in (to_kind.removesuffix("x2"), kind) and not {to_kind.removesuffix("x2"), kind} <= set(floats):
        raise NotImplementedError(f"the instruction {instruction.text}")
    if how != (["rn"] if narrows else ["rzi"] if kind in floats and to_kind not in floats else []):
        raise UnsoundError(f"{instruction.text} does not say that it rounds to nearest even, and no more")
    reads = [reader(each, TYPES["b16"] if kind == BF16 else TYPES[kind], program) for each in sources]
    if to_kind.endswith("x2"):
        high, low = reads
        half = to_kind.removesuffix("x2")

        def pair(machine: Machine, lanes: Any) -> None:
            values = np.broadcast_arrays(*(_converted(read(machine, lanes), kind, half) for read in (low, high)))
            write(machine, lanes, np.stack([each.view(np.uint16) for each in values], axis=1).view(np.uint32)[:, 0])

        return pair
    (read,) = reads
    return lambda machine, lanes: write(machine, lanes, _converted(read(machine, lanes), kind, to_kind))


def _bits(kind: str) -> int:
    return int(kind.removesuffix("x2").lstrip("bfus"))


def _converted(values: Array, kind: str, to: str) -> Array:
    if kind == BF16:
        values, kind = _from_bf16(values), "f32"
    if to == BF16:
        return _to_bf16(values.astype(np.float32))
    if kind in FLOATS and to not in FLOATS:  # the nearest integer that there is, and 0 for NaN
        limits = np.iinfo(TYPES[to])
        return np.clip(np.nan_to_num(values.astype(np.float64)), limits.min, limits.max).astype(TYPES[to])
    return values.astype(TYPES[to])


def _from_bf16(stored: Array) -> Array:
    return (stored.astype(np.uint32) << np.uint32(16)).view(np.float32)


def _to_bf16(values: Array) -> Array:
    bits = values.view(np.uint32)
    rounded = (bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16)
    return np.where(np.isnan(values), np.uint16(0x7FFF), rounded.astype(np.uint16))


MAKERS: dict[str, Callable[[Instruction, Program], Step]] = {
    **dict.fromkeys(ARITHMETIC, _arithmetic),
    **dict.fromkeys(UNARY, _unary),
    "fma": _fused,
    "mad": _multiply_add,
    "shl": _shift,
    "shr": _shift,
    "shf": _funnel_shift,
    "bfe": _extract_bits,
    "prmt": _permute_bytes,
    "setp": _set_predicate,
    "set": _set,
    "cvt": _convert,
}
"""By the name of an instruction, what makes its step."""
