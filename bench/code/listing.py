"""SASS as data: what each instruction is called, reads and writes, from what ``nvdisasm`` prints."""

from __future__ import annotations

import re
from dataclasses import dataclass

SIZE = 16
"""Bytes of an instruction, on every architecture since sm_70."""

_LINE = re.compile(r"^\s*/\*([0-9a-f]{4,})\*/\s+(?:@(!?U?P\w+)\s+)?([A-Z][\w.]*)\s*(.*?)\s*;", re.MULTILINE)
_REGISTER = re.compile(r"\b(?:UR|R|UP|P)\d+\b")
_PREDICATE = re.compile(r"U?P(\d|T)")
_PLAIN = re.compile(r"U?R(\d+|Z)")

_PAIR = re.compile(r"\.64\b|\.WIDE\b|^D(ADD|MUL|FMA)\b|^F(ADD|MUL|FMA)2\b|^CS2R$|^[FI]2F\.F64\b")
"""Opcodes whose result takes two registers."""

_NO_RESULT = re.compile(r"^(ST|RED|BRA|EXIT|CALL|RET|BAR|BSSY|BSYNC|NOP|MEMBAR|DEPBAR|WARPSYNC|YIELD|CCTL)")
_WIDTH = re.compile(r"\.[US]?(8|16|64|128|256)\b")


@dataclass(frozen=True)
class Instruction:
    """One instruction.

    Attributes:
        address: In bytes, of the same origin as the targets of branches.
        guard: The predicate that it depends on, ``"!P0"``; empty where it always runs.
        opcode: In full, ``"LDG.E.128"``.
        operands: Results first.
    """

    address: int
    guard: str
    opcode: str
    operands: tuple[str, ...]

    @property
    def kind(self) -> str:
        """The opcode without its modifiers."""
        return self.opcode.partition(".")[0]

    @property
    def accessed(self) -> int:
        """Bytes that a thread loads or stores at once, if it is a load or store."""
        match = _WIDTH.search(self.opcode)
        return int(match[1]) // 8 if match else 4

    @property
    def target(self) -> int:
        """The address that a branch goes to."""
        return int(self.operands[-1], 16)

    @property
    def written(self) -> set[str]:
        """The registers that hold its results, predicates aside."""
        if _NO_RESULT.match(self.opcode) or not self._results:
            return set()
        register = self._results[-1]
        if not _REGISTER.fullmatch(register):
            return set()
        bank, first = re.fullmatch(r"(U?R)(\d+)", register).groups()  # type: ignore[union-attr]
        return {f"{bank}{int(first) + k}" for k in range(self._result_registers)}

    @property
    def read(self) -> set[str]:
        """The registers that it names as sources, of a pair the first."""
        results = 0 if _NO_RESULT.match(self.opcode) else len(self._results)
        return {name for operand in self.operands[results:] for name in _REGISTER.findall(operand)}

    @property
    def _results(self) -> tuple[str, ...]:
        """The operands before the sources: predicates, or a register that predicates may precede."""
        count = 0
        while count < len(self.operands) and _PREDICATE.fullmatch(self.operands[count]):
            count += 1
        if self.kind.endswith(("SETP", "FCHK", "PLOP3")):
            return ()
        if count < len(self.operands) and _PLAIN.fullmatch(self.operands[count]):
            count += 1
        return self.operands[:count]

    @property
    def _result_registers(self) -> int:
        if self.kind.startswith("LD"):
            return max(1, self.accessed // 4)
        return 2 if _PAIR.search(self.opcode) else 1


def instructions(listing: str) -> list[Instruction]:
    """Every instruction of a listing, in order."""
    return [
        Instruction(int(address, 16), guard, opcode, tuple(re.split(r"\s*,\s*", operands)) if operands else ())
        for address, guard, opcode, operands in _LINE.findall(listing)
    ]
