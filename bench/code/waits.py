"""What a warp has asked of memory, and when it must wait for it: read off the order of its instructions.

A warp issues its instructions in order. A load lets it go on; the first instruction that needs what was loaded makes
it wait, and with it all that come after. Taking every load from global memory to last equally long, and everything
else no time, the wait of each instruction is a number of loads one after the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gpuopt.bench.code.listing import Instruction


@dataclass(frozen=True)
class Traffic:
    """What one thread moves on its way through a kernel, and when.

    Attributes:
        loads: Bytes of each load of a slot, in order, scales aside.
        stores: Bytes of each store, likewise.
        in_flight: Bytes of the slots' loads that are issued before the first instruction that needs one of them.
        waits: Loads that lie one after the other on the way, each needed before the next can be issued or the last
            result stored: those of a table, of addresses and of scalars, and those of slots.
    """

    loads: tuple[int, ...]
    stores: tuple[int, ...]
    in_flight: int
    waits: int


def traffic(way: Sequence[Instruction], table: bool, scale: int | None = None) -> Traffic:
    """What a thread moves that runs these instructions.

    A slot's load is told from others by its address: it depends on the thread's index and, in a kernel that walks a
    table, on a word that was loaded, the slot's address. Neither is taken through a load: an address that was found
    under the thread's index does not depend on that itself.

    Args:
        way: Instructions in the order in which they are issued.
        table: Whether the kernel walks a table.
        scale: Where slots are in blocks, the bytes of an access to a scale, and to nothing else of a full tile: threads
            share scales, so that they are waited for, but moved by few.
    """
    needed = {"thread", "loaded"} if table else {"thread"}
    made_of: dict[str, set[str]] = {}
    ready: dict[str, int] = {}
    slots: set[str] = set()  # registers that hold what was loaded from slots
    now = 0
    loads: list[int] = []
    stores: list[int] = []
    in_flight: int | None = None
    for each in way:
        sources = set().union(*(made_of.get(register, set()) for register in each.read))
        if any("SR_TID" in operand for operand in each.operands):
            sources.add("thread")
        now = max([now, *(ready.get(register, 0) for register in each.read | each.written)])
        if in_flight is None and each.read & slots:
            in_flight = sum(loads)
        slots -= each.written
        if each.kind == "STG" and each.accessed != scale:
            stores.append(each.accessed)
        if _is_load(each):
            if sources >= needed:
                loads += [each.accessed] if each.accessed != scale else []
                slots |= each.written
            sources = {"loaded"}
        for register in each.written:
            made_of[register] = sources | (made_of.get(register, set()) if each.guard else set())
            ready[register] = now + _is_load(each)
    return Traffic(tuple(loads), tuple(stores), sum(loads) if in_flight is None else in_flight, now)


def _is_load(each: Instruction) -> bool:
    """Whether it is one from global memory, known to be or not; one that is not known and guarded is a signal's."""
    return each.kind == "LDG" or (each.kind == "LD" and not each.guard)
