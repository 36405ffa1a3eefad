"""What is in a compiled kernel: opcodes of its PTX and of its SASS, registers, stack.

The binary tools are those that Triton's wheel carries.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections import Counter
from pathlib import Path

# What an opcode of PTX gives away.
INEXACT = r"\.ftz|\.approx|\.full|^(fma|mad)\..*f(16|32|64)"
"""Flushes subnormals to zero, approximates, or fuses a product with a sum."""

NARROWING = r"^cvt\..*\b(bf16|f16)(x2)?\.f(32|64)$"
"""Converts to 16 bits."""

NARROWING_TO_NEAREST = r"^cvt\.rn\.(bf16|f16)(x2)?\.f32$"
"""Converts to 16 bits, rounding to nearest even."""

# And of SASS.
LOCAL_MEMORY = r"^(LDL|STL)"
FLOAT64 = r"^D(ADD|MUL|FMA|SETP)|F64|64H"
MULTIPLICATION = r"[FD]MUL2?"
ADDITION = r"[FD]H?ADD2?(\.B?F16)?"  # FHADD takes one 16-bit operand


def ptx_opcodes(ptx: str) -> Counter[str]:
    """How often each opcode occurs, in full: ``ld.global.v4.b32``."""
    return Counter(re.findall(r"^[\t {]*(?:@!?%\w+ +)?([a-z]\w*(?:(?:\.|::)\w+)*)\b", ptx, re.MULTILINE))


def ptx_ways(ptx: str, pattern: str) -> list[str]:
    """The stretches of PTX between labels that branches lead to, and branches, in which an opcode has ``pattern``."""
    stretches = re.split(r"^\$L__BB\w+:|^.*\bbra\b.*$", ptx, flags=re.MULTILINE)
    return [stretch for stretch in stretches if among(ptx_opcodes(stretch), pattern)]


def sass_opcodes(cubin: bytes) -> Counter[str]:
    """How often each opcode occurs, in full: ``LDG.E.128``. Takes half a second."""
    listing = _examine(cubin, "nvdisasm", "-c")
    return Counter(re.findall(r"^\s*/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+ +)?([A-Z][\w.]*)", listing, re.MULTILINE))


def resources(cubin: bytes) -> dict[str, int]:
    """What one thread takes, by ``REG``, ``STACK`` and ``LOCAL``, and what one block takes, by ``SHARED``."""
    listing = _examine(cubin, "cuobjdump", "-res-usage")
    return {name: int(amount) for name, amount in re.findall(r"\b(REG|STACK|LOCAL|SHARED):(\d+)", listing)}


def count(opcodes: Counter[str], pattern: str) -> int:
    """How many instructions have an opcode that matches ``pattern`` as a whole."""
    return sum(number for opcode, number in opcodes.items() if re.fullmatch(pattern, opcode))


def among(opcodes: Counter[str], pattern: str) -> set[str]:
    """The opcodes that have ``pattern`` in them."""
    return {opcode for opcode in opcodes if re.search(pattern, opcode)}


def narrowed(opcodes: Counter[str]) -> int:
    """How many elements are converted to 16 bits."""
    return sum(opcodes[opcode] * (2 if "x2" in opcode else 1) for opcode in among(opcodes, NARROWING))


def run_tool(tool: str, *arguments: str) -> str:
    """What one of the binary tools prints."""
    import triton

    path = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / tool
    return subprocess.run([str(path), *arguments], check=True, capture_output=True, text=True).stdout


def _examine(cubin: bytes, tool: str, option: str) -> str:
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        return run_tool(tool, option, file.name)
