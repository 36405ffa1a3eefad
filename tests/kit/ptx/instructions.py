"""What each instruction does to the registers and the memory of some threads: moves, accesses, jumps, and the rest."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from kit.ptx import arithmetic
from kit.ptx.memory import AccessError
from kit.ptx.operands import TYPES, Array, Reader, Step, parts, reader, typed, writer
from kit.ptx.program import Instruction, Program

if TYPE_CHECKING:
    from kit.ptx.machine import Machine

JUMPS = ("bra", "ret", "exit")
"""Instructions after which another than the next may follow."""

HINTS = {"cs", "L1", "L2", "evict_first", "cache_hint"}
"""Modifiers of loads and stores that tell caches what to expect, and change nothing else."""


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


def _select(instruction: Instruction, program: Program) -> Step:
    dtype = np.dtype(f"u{TYPES[typed(instruction)].itemsize}")  # bits, so that no NaN is touched
    to, one, other, chooses = instruction.operands
    write, choice = writer(to, program), reader(chooses, TYPES["pred"], program)
    a, b = (reader(each, dtype, program) for each in (one, other))
    return lambda machine, lanes: write(
        machine, lanes, np.where(choice(machine, lanes), a(machine, lanes), b(machine, lanes))
    )


def _move(instruction: Instruction, program: Program) -> Step:
    """From register to register, or between one and its halves, the low half first."""
    kind = typed(instruction)
    to, source = instruction.operands
    if kind == "pred":
        write, read = writer(to, program), reader(source, TYPES[kind], program)
        return lambda machine, lanes: write(machine, lanes, read(machine, lanes))
    dtype = np.dtype(f"u{TYPES[kind].itemsize}")
    if source.startswith("{"):
        pieces = parts(source)
        half = np.dtype(f"u{dtype.itemsize // len(pieces)}")
        write, reads = writer(to, program), [reader(each, half, program) for each in pieces]

        def pack(machine: Machine, lanes: Any) -> None:
            values = np.broadcast_arrays(*(read(machine, lanes) for read in reads))
            write(machine, lanes, np.stack(values, axis=1).view(dtype)[:, 0])

        return pack
    if to.startswith("{"):
        pieces = parts(to)
        half = np.dtype(f"u{dtype.itemsize // len(pieces)}")
        read, writes = reader(source, dtype, program), [writer(each, program) for each in pieces]

        def unpack(machine: Machine, lanes: Any) -> None:
            values = np.ascontiguousarray(read(machine, lanes)).view(half).reshape(-1, len(pieces))
            for k, write in enumerate(writes):
                write(machine, lanes, values[:, k])

        return unpack
    write, read = writer(to, program), reader(source, dtype, program)
    return lambda machine, lanes: write(machine, lanes, read(machine, lanes))


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
        write = writer(to, program)

        def load_parameter(machine: Machine, lanes: Any) -> None:
            write(machine, lanes, np.frombuffer(machine.parameters[base], dtype, 1, offset))

        return load_parameter
    writes = [writer(each, program) for each in parts(to)]
    address = reader(base, TYPES["u32"] if space == "shared" else TYPES["u64"], program)

    def load(machine: Machine, lanes: Any) -> None:
        addresses = _spread(address(machine, lanes), machine, lanes, offset)
        if space == "shared":
            values = machine.shared.load(lanes, addresses, dtype, count)
        else:
            values = machine.memory.load(addresses, dtype, count, machine.index[lanes])
        for write, value in zip(writes, values, strict=True):
            write(machine, lanes, value)

    return load


def _store(instruction: Instruction, program: Program) -> Step:
    space, _, dtype = _access(instruction)
    to, source = instruction.operands[:2]
    base, offset = _address_of(to, program)
    reads = [reader(each, dtype, program) for each in parts(source)]
    address = reader(base, TYPES["u32"] if space == "shared" else TYPES["u64"], program)

    def store(machine: Machine, lanes: Any) -> None:
        addresses = _spread(address(machine, lanes), machine, lanes, offset)
        values = [np.broadcast_to(read(machine, lanes), addresses.shape) for read in reads]
        if space == "shared":
            machine.shared.store(lanes, addresses, values)
        else:
            machine.memory.store(addresses, values, machine.index[lanes])

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


def _policy(instruction: Instruction, program: Program) -> Step:
    """What a cache is to do, for hints of loads and stores."""
    return lambda machine, lanes: None


def _to_global(instruction: Instruction, program: Program) -> Step:
    """From a generic address, which is the same."""
    to, source = instruction.operands
    write, read = writer(to, program), reader(source, TYPES["u64"], program)
    return lambda machine, lanes: write(machine, lanes, read(machine, lanes))


def _shuffle(instruction: Instruction, program: Program) -> Step:
    """The value of the thread of the same warp whose index differs by some bits."""
    if instruction.modifiers != ("sync", "bfly", "b32"):
        raise NotImplementedError(f"the instruction {instruction.text}")
    to, _, is_there = instruction.operands[0].partition("|")
    write, there = writer(to, program), writer(is_there or "_", program)
    read, flip, clamp, members = (reader(each, TYPES["u32"], program) for each in instruction.operands[1:])

    def step(machine: Machine, lanes: Any) -> None:
        if (clamp(machine, lanes) != 31).any():
            raise NotImplementedError(f"the instruction {instruction.text}")
        index, asked = _of_one_mind(machine, lanes, members)
        partner = index ^ flip(machine, lanes)
        if (asked >> (partner % 32).astype(np.uint32) & 1 != 1).any():
            raise RuntimeError("a value is asked for of a thread that does not exchange any")
        values = np.zeros(len(machine.thread), np.uint32)
        values[index] = read(machine, lanes)
        write(machine, lanes, values[partner])
        there(machine, lanes, np.ones(len(index), bool))

    return step


def _reduce(instruction: Instruction, program: Program) -> Step:
    """The largest value of the threads of a warp that take part."""
    if instruction.modifiers[:2] != ("sync", "max"):
        raise NotImplementedError(f"the instruction {instruction.text}")
    dtype = TYPES[instruction.modifiers[2]]
    to, source, members = instruction.operands
    write, read, members = writer(to, program), reader(source, dtype, program), reader(members, TYPES["u32"], program)

    def step(machine: Machine, lanes: Any) -> None:
        index, asked = _of_one_mind(machine, lanes, members)
        if (asked != 0xFFFF_FFFF).any():
            raise NotImplementedError(f"{instruction.text} for some threads of a warp alone")
        largest = np.full(len(machine.thread) // 32, np.iinfo(dtype).min, dtype)
        np.maximum.at(largest, index // 32, read(machine, lanes))
        write(machine, lanes, largest[index // 32])

    return step


def _load_matrix(instruction: Instruction, program: Program) -> Step:
    """A word of a matrix in shared memory: eight rows of 16 bytes, at the addresses of a warp's first eight threads."""
    if instruction.modifiers != ("sync", "aligned", "m8n8", "x1", "shared", "b16"):
        raise NotImplementedError(f"the instruction {instruction.text}")
    write = writer(instruction.operands[0].strip("{ }"), program)
    base, offset = _address_of(instruction.operands[1], program)
    address, everyone = (reader(each, TYPES["u32"], program) for each in (base, "-1"))

    def step(machine: Machine, lanes: Any) -> None:
        index, _ = _of_one_mind(machine, lanes, everyone)
        rows = np.zeros(len(machine.thread), np.uint64)
        rows[index] = _spread(address(machine, lanes), machine, lanes, offset)
        if (rows % 16).any():
            raise AccessError("a row of a matrix in shared memory is not aligned")
        thread = index % 32
        words = rows[index - thread + thread // 4] + (4 * (thread % 4)).astype(np.uint64)
        write(machine, lanes, machine.shared.load(lanes, words, np.dtype(np.uint32), 1)[0])

    return step


def _of_one_mind(machine: Machine, lanes: Any, members: Reader) -> tuple[Array, Array]:
    """The indices of threads that take an instruction together with others of their warp, and those that each names.

    Raises:
        RuntimeError: One that is named is elsewhere.
    """
    index = np.arange(len(machine.thread))[lanes]
    asked = np.broadcast_to(members(machine, lanes), index.shape)
    here = np.zeros(len(machine.thread) // 32, np.uint32)
    np.bitwise_or.at(here, index // 32, np.uint32(1) << (index % 32).astype(np.uint32))
    if (asked & ~here[index // 32]).any():
        raise RuntimeError("some threads of a warp exchange values and others do not")
    return index, asked


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
    **arithmetic.MAKERS,
    "selp": _select,
    "mov": _move,
    "cvta": _to_global,
    "createpolicy": _policy,
    "ld": _load,
    "st": _store,
    "shfl": _shuffle,
    "redux": _reduce,
    "ldmatrix": _load_matrix,
    "bar": _barrier,
    "bra": _branch,
    "ret": _end,
    "exit": _end,
}
