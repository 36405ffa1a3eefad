"""Binaries to instructions, many at a time: starting the disassembler takes twenty times as long as one kernel does."""

from __future__ import annotations

import struct
import tempfile
from bisect import bisect_left
from collections.abc import Sequence

from gpuopt.bench.code import sass
from gpuopt.bench.code.listing import Instruction, instructions

_NAMES = {"sm_80": "SM80", "sm_90": "SM90a", "sm_100": "SM100a"}
"""By architecture, what the disassembler calls it, or the superset that Triton compiles for."""


def disassemble(cubins: Sequence[bytes], arch: str) -> list[list[Instruction]]:
    """The instructions of each of ``cubins``, all for ``arch`` and of one kernel each.

    Raises:
        ValueError: A binary is not one kernel.
    """
    codes = [kernel_code(cubin) for cubin in cubins]
    with tempfile.NamedTemporaryFile(suffix=".bin") as file:
        file.write(b"".join(codes))
        file.flush()
        every = instructions(sass.run_tool("nvdisasm", "--binary", _NAMES[arch], file.name))
    kernels = []
    addresses = [each.address for each in every]
    start = 0
    for code in codes:
        kernels.append(every[bisect_left(addresses, start) : bisect_left(addresses, start + len(code))])
        start += len(code)
    return kernels


def kernel_code(cubin: bytes) -> bytes:
    """The machine code in a cubin, an ELF file: its one section called ``.text.<kernel>``.

    Raises:
        ValueError: It has none, or several.
    """
    (headers,) = struct.unpack_from("<Q", cubin, 40)
    size, count, names_at = struct.unpack_from("<HHH", cubin, 58)
    sections = [struct.unpack_from("<IIQQQQ", cubin, headers + k * size) for k in range(count)]
    names = sections[names_at][4]

    def name(section: tuple[int, ...]) -> bytes:
        start = names + section[0]
        return cubin[start : cubin.index(b"\0", start)]

    codes = [cubin[each[4] : each[4] + each[5]] for each in sections if name(each).startswith(b".text.")]
    if len(codes) != 1:
        raise ValueError(f"a binary must have one kernel, but has {len(codes)}")
    return codes[0]
