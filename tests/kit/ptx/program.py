"""A kernel as its PTX says it: parameters, registers, and instructions in order."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from typing import Self

WIDTHS = {"pred": 0, "b16": 2, "b32": 4, "f32": 4, "b64": 8, "f64": 8}
"""Bytes of a register by the type it is declared with; a predicate has none."""


@dataclass(frozen=True)
class Instruction:
    """One instruction.

    Attributes:
        text: As it was written.
        guard: The predicate register without which it does nothing; None where there is none.
        negated: Whether it is the other way round.
        name: What comes before the first dot of the opcode.
        modifiers: What comes after, part by part.
        operands: As they were written, brackets and braces included.
    """

    text: str
    guard: str | None
    negated: bool
    name: str
    modifiers: tuple[str, ...]
    operands: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Program:
    """One kernel.

    Attributes:
        name: Of the kernel.
        parameters: Bytes of each parameter by name, in order.
        threads: Of a block; None where the launch decides.
        shared: Bytes of shared memory that a block has whatever the launch says.
        symbols: By name, where in a block's shared memory a variable begins.
        registers: Bytes of each register by name, 0 for a predicate.
        code: All instructions in order.
        labels: By name, the index in ``code`` of what follows it.
    """

    name: str
    parameters: dict[str, int]
    threads: int | None
    shared: int
    symbols: dict[str, int]
    registers: dict[str, int]
    code: tuple[Instruction, ...]
    labels: dict[str, int]

    @classmethod
    @cache
    def of(cls, ptx: str) -> Self:
        """Reads the only kernel of a module.

        Raises:
            ValueError: There is none or more than one, or a line of it is not understood.
        """
        text = re.sub(r"//[^\n]*|/\*.*?\*/", "", ptx, flags=re.DOTALL)
        heads = list(re.finditer(r"\.entry\s+(\w+)\s*\((.*?)\)([^{]*)\{", text, re.DOTALL))
        if len(heads) != 1:
            raise ValueError(f"a module must have one kernel, but has {len(heads)}")
        (head,) = heads
        body = text[head.end() : text.index("\n}", head.end())]
        threads = re.search(r"\.(?:reqntid|maxntid)\s+(\d+)", head[3])
        shared, symbols = _shared(text)
        code, labels, registers = _body(body)
        return cls(
            head[1],
            {name: size for size, name in map(_parameter, _split(head[2]))},
            int(threads[1]) if threads else None,
            shared,
            symbols,
            registers,
            tuple(code),
            labels,
        )


def _parameter(text: str) -> tuple[int, str]:
    match = re.search(r"\.[busf](\d+)\b.*?(\w+)(?:\[(\d+)\])?$", text, re.DOTALL)
    if match is None:
        raise ValueError(f"not a parameter: {text}")
    return int(match[1]) // 8 * int(match[3] or 1), match[2]


def _shared(text: str) -> tuple[int, dict[str, int]]:
    """Shared memory that is declared: what is ``extern`` begins behind the rest, and has its size from the launch."""
    size, symbols = 0, {}
    for name, length in re.findall(r"(?<!\.extern )\.shared \.align \d+ \.b8 (\w+)\[(\d+)\]", text):
        symbols[name], size = size, size + -(-int(length) // 16) * 16
    return size, symbols | dict.fromkeys(re.findall(r"\.extern \.shared \.align \d+ \.b8 (\w+)\[\]", text), size)


def _body(text: str) -> tuple[list[Instruction], dict[str, int], dict[str, int]]:
    code: list[Instruction] = []
    labels: dict[str, int] = {}
    registers: dict[str, int] = {}
    for line in map(str.strip, text.splitlines()):
        rest = line
        while label := re.match(r"([$\w]+):\s*", rest):
            labels[label[1]] = len(code)
            rest = rest[label.end() :]
        if declared := re.match(r"\.reg\s+\.(\w+)\s+(%\w+)<(\d+)>", rest):
            width = WIDTHS[declared[1]]
            registers |= {f"{declared[2]}{index}": width for index in range(int(declared[3]))}
        elif not rest.startswith("."):  # else a directive for debuggers and optimizers
            code += map(_instruction, filter(None, (part.strip(" \t{}") for part in _statements(rest))))
    return code, labels, registers


def _statements(line: str) -> list[str]:
    """The statements of a line, of which those in inline assembly have several, in braces."""
    *whole, rest = line.split(";")
    if rest.strip(" \t{}"):
        raise ValueError(f"not a statement: {line}")
    return [statement + ";" for statement in whole]


def _instruction(text: str) -> Instruction:
    match = re.fullmatch(r"(?:@(!?)(%\w+)\s+)?([a-z]\w*)((?:(?:\.|::)\w+)*)\s*(.*);", text.strip(), re.DOTALL)
    if match is None:
        raise ValueError(f"not an instruction: {text}")
    modifiers = tuple(re.findall(r"(?:\.|::)(\w+)", match[4]))
    return Instruction(text, match[2], bool(match[1]), match[3], modifiers, tuple(_split(match[5])))


def _split(text: str) -> list[str]:
    """At commas outside of braces and brackets."""
    return [part.strip() for part in re.findall(r"(?:\{[^}]*\}|\[[^\]]*\]|[^,{\[])+", text) if part.strip()]
