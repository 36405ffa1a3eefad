"""What each instruction does to the registers and the memory of some threads.

An instruction becomes a step: a function of the machine and of the threads that take it, which are all of them
(``slice(None)``) or some by their indices. Integers wrap around; floating-point arithmetic rounds to nearest even, as
NumPy's does, and keeps subnormals. What rounds otherwise is refused, and so is what leaves it to the assembler.
"""

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
Reader = Callable[["Machine", Any], Array]
Writer = Callable[["Machine", Any, Array], None]

JUMPS = ("bra", "ret", "exit")
"""Instructions after which another than the next may follow."""

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

HINTS = {"nc", "cs", "L1", "L2", "evict_first", "cache_hint"}
"""Modifiers of loads and stores that tell caches what to expect, and change nothing else."""

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


class UnsoundError(Exception):
    """An instruction does not round as IEEE 754 says, or leaves it to the assembler whether it does."""


def compile_step(instruction: Instruction, program: Program) -> Step:
    """The step of an instruction, its guard included.

    Raises:
        UnsoundError: It rounds in another way than IEEE 754, or may.
        NotImplementedError: It is not known here.
    """
    make = _MAKERS.get(instruction.name)
    if make is None:
        raise NotImplementedError(f"the instruction {instruction.text}")
    step = make(instruction, program)
    guard, negated = instruction.guard, instruction.negated
    if guard is None:
        return step

    def guarded(machine: Machine, lanes: Any) -> None:
        taken = machine.registers[guard][lanes] != negated
        if taken.all():
            step(machine, lanes)
        elif taken.any():
            step(machine, np.flatnonzero(taken) if isinstance(lanes, slice) else lanes[taken])

    return guarded


def _reader(operand: str, dtype: np.dtype[Any], program: Program) -> Reader:
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


def _writer(operand: str, program: Program) -> Writer:
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


def _typed(instruction: Instruction, known: tuple[str, ...] = ()) -> str:
    """The only type of an instruction, all of whose other modifiers must be known."""
    *rest, kind = instruction.modifiers or ("",)
    if kind not in TYPES or not set(rest) <= set(known):
        raise NotImplementedError(f"the instruction {instruction.text}")
    return kind


def _rounded(instruction: Instruction, kinds: tuple[str, ...]) -> str:
    """The type of an instruction that rounds, if it says that it does so to nearest even."""
    *rest, kind = instruction.modifiers
    if kind not in kinds:
        raise NotImplementedError(f"the instruction {instruction.text}")
    if rest != ["rn"]:
        raise UnsoundError(f"{instruction.text} does not say that it rounds to nearest even, and no more")
    return kind


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
        kind = _rounded(instruction, FLOATS)
    elif instruction.name == "mul":
        return _integer_product(instruction, program)
    elif instruction.name == "div":
        raise NotImplementedError(f"the instruction {instruction.text}")
    else:
        kind = _typed(instruction)
    to, *sources = instruction.operands
    write, (a, b) = _writer(to, program), (_reader(each, TYPES[kind], program) for each in sources)
    return lambda machine, lanes: write(machine, lanes, operation(a(machine, lanes), b(machine, lanes)))


def _paired(instruction: Instruction, program: Program) -> Step:
    """Two float32 in a register of 64 bits."""
    _rounded(instruction, ("f32x2",))
    operation = ARITHMETIC[instruction.name]
    to, *sources = instruction.operands
    write, (a, b) = _writer(to, program), (_reader(each, TYPES["b64"], program) for each in sources)

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
    write, b = _writer(to, program), _reader(wide, TYPES["f32"], program)
    a = _reader(narrow, TYPES["b16"] if kind == BF16 else TYPES[kind], program)
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
    write, (a, b) = _writer(to, program), (_reader(each, narrow, program) for each in factors[:2])
    if instruction.name == "mul":
        return lambda machine, lanes: write(
            machine, lanes, a(machine, lanes).astype(result) * b(machine, lanes).astype(result)
        )
    more = _reader(factors[2], result, program)
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
    kind = _rounded(instruction, FLOATS) if instruction.name == "sqrt" else _typed(instruction)
    to, source = instruction.operands
    write, read = _writer(to, program), _reader(source, TYPES[kind], program)
    return lambda machine, lanes: write(machine, lanes, operation(read(machine, lanes)))


def _shift(instruction: Instruction, program: Program) -> Step:
    """By an amount of 32 bits; what is shifted out is gone, and a sign is repeated."""
    kind = _typed(instruction)
    dtype = TYPES[kind]
    bits = 8 * dtype.itemsize
    to, source, by = instruction.operands
    write, read, amount = _writer(to, program), _reader(source, dtype, program), _reader(by, TYPES["u32"], program)
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
    write, (a, b) = _writer(to, program), (_reader(each, TYPES[kind], program) for each in sources)
    return lambda machine, lanes: write(machine, lanes, compare(a(machine, lanes), b(machine, lanes)))


def _set(instruction: Instruction, program: Program) -> Step:
    """A comparison whose result is all ones or none in a register of 32 bits."""
    how, to_kind, kind = instruction.modifiers if len(instruction.modifiers) == 3 else ("", "", "")
    if to_kind not in ("u32", "s32") or kind not in TYPES:
        raise NotImplementedError(f"the instruction {instruction.text}")
    compare = _comparison(how, kind, instruction.text)
    to, *sources = instruction.operands
    write, (a, b) = _writer(to, program), (_reader(each, TYPES[kind], program) for each in sources)
    return lambda machine, lanes: write(
        machine, lanes, np.where(compare(a(machine, lanes), b(machine, lanes)), np.uint32(0xFFFFFFFF), np.uint32(0))
    )


def _select(instruction: Instruction, program: Program) -> Step:
    dtype = np.dtype(f"u{TYPES[_typed(instruction)].itemsize}")  # bits, so that no NaN is touched
    to, one, other, chooses = instruction.operands
    write, choice = _writer(to, program), _reader(chooses, TYPES["pred"], program)
    a, b = (_reader(each, dtype, program) for each in (one, other))
    return lambda machine, lanes: write(
        machine, lanes, np.where(choice(machine, lanes), a(machine, lanes), b(machine, lanes))
    )


def _move(instruction: Instruction, program: Program) -> Step:
    """From register to register, or between one and its halves, the low half first."""
    kind = _typed(instruction)
    to, source = instruction.operands
    if kind == "pred":
        write, read = _writer(to, program), _reader(source, TYPES[kind], program)
        return lambda machine, lanes: write(machine, lanes, read(machine, lanes))
    dtype = np.dtype(f"u{TYPES[kind].itemsize}")
    if source.startswith("{"):
        parts = _parts(source)
        half = np.dtype(f"u{dtype.itemsize // len(parts)}")
        write, reads = _writer(to, program), [_reader(each, half, program) for each in parts]

        def pack(machine: Machine, lanes: Any) -> None:
            values = np.broadcast_arrays(*(read(machine, lanes) for read in reads))
            write(machine, lanes, np.stack(values, axis=1).view(dtype)[:, 0])

        return pack
    if to.startswith("{"):
        parts = _parts(to)
        half = np.dtype(f"u{dtype.itemsize // len(parts)}")
        read, writes = _reader(source, dtype, program), [_writer(each, program) for each in parts]

        def unpack(machine: Machine, lanes: Any) -> None:
            values = np.ascontiguousarray(read(machine, lanes)).view(half).reshape(-1, len(parts))
            for k, write in enumerate(writes):
                write(machine, lanes, values[:, k])

        return unpack
    write, read = _writer(to, program), _reader(source, dtype, program)
    return lambda machine, lanes: write(machine, lanes, read(machine, lanes))


def _convert(instruction: Instruction, program: Program) -> Step:
    """Between types; to a narrower floating-point type to nearest even."""
    *how, to_kind, kind = instruction.modifiers
    floats = (*FLOATS, BF16)
    to, *sources = instruction.operands
    write = _writer(to, program)
    narrows = (to_kind.removesuffix("x2") in floats) and (kind not in floats or _bits(to_kind) < _bits(kind))
    if how != (["rn"] if narrows else ["rzi"] if kind in floats and to_kind not in floats else []):
        raise UnsoundError(f"{instruction.text} does not say that it rounds to nearest even, and no more")
    reads = [_reader(each, TYPES["b16"] if kind == BF16 else TYPES[kind], program) for each in sources]
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
        return _to_bf16(values)
    return values.astype(TYPES[to])


def _from_bf16(stored: Array) -> Array:
    return (stored.astype(np.uint32) << np.uint32(16)).view(np.float32)


def _to_bf16(values: Array) -> Array:
    bits = values.view(np.uint32)
    rounded = (bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16)
    return np.where(np.isnan(values), np.uint16(0x7FFF), rounded.astype(np.uint16))


def _address_of(operand: str, program: Program) -> tuple[str, int]:
    match = re.fullmatch(r"\[\s*([%$\w]+)\s*(?:\+\s*(-?\w+)\s*)?\]", operand)
    if match is None:
        raise NotImplementedError(f"the address {operand}")
    return match[1], int(match[2] or "0", 0)


def _load(instruction: Instruction, program: Program) -> Step:
    space, count, dtype = _access(instruction)
    to, source = instruction.operands[:2]
    base, offset = _address_of(source, program)
    if space == "param":
        write = _writer(to, program)

        def load_parameter(machine: Machine, lanes: Any) -> None:
            write(machine, lanes, np.frombuffer(machine.parameters[base], dtype, 1, offset))

        return load_parameter
    writes = [_writer(each, program) for each in _parts(to)]
    address = _reader(base, TYPES["u32"] if space == "shared" else TYPES["u64"], program)

    def load(machine: Machine, lanes: Any) -> None:
        addresses = _spread(address(machine, lanes), machine, lanes, offset)
        if space == "shared":
            values = machine.shared.load(lanes, addresses, dtype, count)
        else:
            values = machine.memory.load(addresses, dtype, count)
        for write, value in zip(writes, values, strict=True):
            write(machine, lanes, value)

    return load


def _store(instruction: Instruction, program: Program) -> Step:
    space, _, dtype = _access(instruction)
    to, source = instruction.operands[:2]
    base, offset = _address_of(to, program)
    reads = [_reader(each, dtype, program) for each in _parts(source)]
    address = _reader(base, TYPES["u32"] if space == "shared" else TYPES["u64"], program)

    def store(machine: Machine, lanes: Any) -> None:
        addresses = _spread(address(machine, lanes), machine, lanes, offset)
        values = [np.broadcast_to(read(machine, lanes), addresses.shape) for read in reads]
        if space == "shared":
            machine.shared.store(lanes, addresses, values)
        else:
            machine.memory.store(addresses, values)

    return store


def _access(instruction: Instruction) -> tuple[str, int, np.dtype[Any]]:
    """State space, number of elements, and their type: bits, but for integers that have a sign."""
    *how, kind = instruction.modifiers
    spaces = [each for each in how if each in ("param", "global", "shared")]
    counts = [each for each in how if each in ("v2", "v4")]
    if kind not in TYPES or set(how) - HINTS != {*spaces, *counts} or len(spaces) > 1 or len(counts) > 1:
        raise NotImplementedError(f"the instruction {instruction.text}")
    count = int(counts[0][1:]) if counts else 1
    dtype = TYPES[kind]
    return spaces[0] if spaces else "generic", count, dtype if dtype.kind == "i" else np.dtype(f"u{dtype.itemsize}")


def _spread(addresses: Array, machine: Machine, lanes: Any, offset: int) -> Array:
    """The address of each thread, in 64 bits."""
    count = len(machine.thread) if isinstance(lanes, slice) else len(lanes)
    return np.broadcast_to(addresses.astype(np.uint64) + np.uint64(offset & (1 << 64) - 1), (count,))


def _parts(operand: str) -> list[str]:
    return [part.strip() for part in operand.strip("{} ").split(",")]


def _policy(instruction: Instruction, program: Program) -> Step:
    """What a cache is to do, for hints of loads and stores."""
    return lambda machine, lanes: None


def _to_global(instruction: Instruction, program: Program) -> Step:
    """From a generic address, which is the same."""
    to, source = instruction.operands
    write, read = _writer(to, program), _reader(source, TYPES["u64"], program)
    return lambda machine, lanes: write(machine, lanes, read(machine, lanes))


def _shuffle(instruction: Instruction, program: Program) -> Step:
    """The value of the thread of the same warp whose index differs by some bits."""
    if instruction.modifiers != ("sync", "bfly", "b32") or instruction.operands[3:] != ("31", "-1"):
        raise NotImplementedError(f"the instruction {instruction.text}")
    to, source, mask = instruction.operands[:3]
    write, read = _writer(to, program), _reader(source, TYPES["b32"], program)
    flipped = int(mask, 0)

    def step(machine: Machine, lanes: Any) -> None:
        if not isinstance(lanes, slice):
            raise RuntimeError("some threads of a warp exchange values and others do not")
        values = read(machine, lanes)
        write(machine, lanes, values[np.arange(len(values)) ^ flipped])

    return step


def _barrier(instruction: Instruction, program: Program) -> Step:
    if instruction.modifiers != ("sync",) or instruction.operands != ("0",):
        raise NotImplementedError(f"the instruction {instruction.text}")
    return lambda machine, lanes: machine.arrive(lanes)


def _branch(instruction: Instruction, program: Program) -> Step:
    target = program.labels[instruction.operands[0]]
    return lambda machine, lanes: machine.jump(lanes, target)


def _end(instruction: Instruction, program: Program) -> Step:
    return lambda machine, lanes: machine.jump(lanes, None)


_MAKERS: dict[str, Callable[[Instruction, Program], Step]] = {
    **dict.fromkeys(ARITHMETIC, _arithmetic),
    **dict.fromkeys(UNARY, _unary),
    "fma": _fused,
    "mad": _multiply_add,
    "shl": _shift,
    "shr": _shift,
    "setp": _set_predicate,
    "set": _set,
    "selp": _select,
    "mov": _move,
    "cvt": _convert,
    "cvta": _to_global,
    "createpolicy": _policy,
    "ld": _load,
    "st": _store,
    "shfl": _shuffle,
    "bar": _barrier,
    "bra": _branch,
    "ret": _end,
    "exit": _end,
}
