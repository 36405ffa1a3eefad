"""The instructions that a thread runs for a full tile: one way through a kernel, from its start to its end.

A kernel has several: a masked one for what is left of a tensor, one for a gradient that is not aligned, one for a
step that is skipped, and slow ones around divisions and roots of extreme values, which are calls. The way of a full
tile is the one that

1. moves the most bytes in accesses as wide as the widest store of the kernel;
2. makes the fewest calls;
3. runs the fewest instructions, so that what depends on a setting, such as a term whose factor is 0, is left out where
   the kernel branches around it.

A branch backwards ends the way: a thread of these kernels takes its part of one tile, or one element, in one turn of a
loop. What the compiler has unrolled is a way of several elements, and is counted as such. A branch for warps that have
parted, before threads exchange values, is not taken: in a full tile none has.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

from gpuopt.bench.code.listing import SIZE, Instruction

Block = Sequence[Instruction]

_ENDS_BLOCK = ("BRA", "EXIT", "RET")

PARTED = ".DIV"
"""Of a branch that is taken where not all threads of a warp are there."""


class _Worth(NamedTuple):
    """How a way ranks, or a block of it: the greatest is the full tile's."""

    moved: int
    calls_avoided: int
    instructions_avoided: int

    def and_then(self, other: _Worth) -> _Worth:
        return _Worth(*(a + b for a, b in zip(self, other, strict=True)))


_NOTHING = _Worth(0, 0, 0)


def full_tile(kernel: Sequence[Instruction]) -> list[Instruction]:
    """The instructions of ``kernel`` that a thread issues for a full tile, in order.

    Raises:
        ValueError: It stores nothing to global memory.
    """
    widest = max((each.accessed for each in kernel if each.kind == "STG"), default=0)
    if not widest:
        raise ValueError("a kernel of a step must store to global memory, but this one does not")
    blocks = _blocks(kernel)
    best: dict[int, tuple[_Worth, int | None]] = {}  # from a block to the end, and the next block on the way
    for at in sorted(blocks, reverse=True):
        ahead = [(best[to][0], to) for to in _successors(blocks[at], blocks) if to > at]
        end = [(_NOTHING, None)] if _may_end(blocks[at]) or not ahead else []
        after, to = max([*ahead, *end], key=lambda way: way[0])
        best[at] = (_worth(blocks[at], widest).and_then(after), to)
    way: list[Instruction] = []
    here: int | None = kernel[0].address
    while here is not None:
        way += blocks[here]
        here = best[here][1]
    return way


def _blocks(kernel: Sequence[Instruction]) -> dict[int, Block]:
    """Runs of instructions that are entered at the first and left after the last, by their address."""
    starts = {0}
    for index, each in enumerate(kernel):
        if each.kind in _ENDS_BLOCK:
            starts.add(index + 1)
    index_of = {each.address: index for index, each in enumerate(kernel)}
    starts |= {index_of[each.target] for each in kernel if each.kind == "BRA" and each.target in index_of}
    edges = sorted(starts | {len(kernel)})
    return {kernel[start].address: kernel[start:stop] for start, stop in pairwise(edges)}


def _successors(block: Block, blocks: dict[int, Block]) -> Iterator[int]:
    """Where control may go after a block, inside of the kernel."""
    last = block[-1]
    if last.kind == "BRA" and last.target in blocks and not last.opcode.endswith(PARTED):
        yield last.target
    if not _always_leaves(last) and last.address + SIZE in blocks:
        yield last.address + SIZE


def _always_leaves(last: Instruction) -> bool:
    conditional = last.guard or len(last.operands) > 1  # BRA !P3, target; BRA.DIV UR8, target
    return last.kind in _ENDS_BLOCK and not conditional


def _may_end(block: Block) -> bool:
    return block[-1].kind in ("EXIT", "RET")


def _worth(block: Block, widest: int) -> _Worth:
    moved = sum(each.accessed for each in block if each.kind in ("LDG", "STG") and each.accessed == widest)
    return _Worth(moved, -sum(each.kind == "CALL" for each in block), -len(block))
