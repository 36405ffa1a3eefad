"""All threads of a launch beside each other: each register is an array with an element for each thread.

Threads that are furthest behind in the code go on until they meet the others or a branch. So those of a warp, of a
block, and of all blocks take an instruction together; blocks that wait for each other could not be run so.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from kit.ptx.instructions import JUMPS, compile_step
from kit.ptx.memory import Memory
from kit.ptx.operands import Step
from kit.ptx.program import Program
from kit.ptx.shared import Shared

Array = np.ndarray[Any, Any]

WARP = 32

POISON = 0xA5A5_5A5A_A5A5_5A5A
"""The bits of a register that nothing has been written to; a predicate is then true in every second thread."""

MOST_THREADS = 1 << 16
"""Threads that are run at once."""

MOST_STRETCHES = 1_000_000
"""Stretches of code between jumps after which a kernel is taken for one that does not end."""


class Machine:
    """Some blocks of a launch.

    Attributes:
        threads: Of a block.
        thread: The index of each thread in its block.
        block: The index of each thread's block.
        grid: Blocks of the launch.
        index: Of each thread in the launch.
        registers: The bits in each register, one element a thread.
        parameters: The bytes of each parameter.
        memory: What may be touched.
        shared: The shared memory of all blocks.
        at: Index of the instruction that each thread is to take.
    """

    def __init__(
        self, program: Program, memory: Memory, grid: int, blocks: range, threads: int, shared: int, arguments: Any
    ) -> None:
        self.threads, self.grid, self.memory = threads, grid, memory
        self.thread = np.tile(np.arange(threads, dtype=np.uint32), len(blocks))
        self.block = np.repeat(np.arange(blocks.start, blocks.stop, dtype=np.uint32), threads)
        count = len(self.thread)
        self.registers = {
            name: np.full(count, POISON & ((1 << 8 * width) - 1), f"u{width}") if width else np.arange(count) % 2 == 0
            for name, width in program.registers.items()
        }
        self.parameters = dict(zip(program.parameters, arguments, strict=True))
        self.index = self.block.astype(np.int64) * threads + self.thread
        self.shared = Shared(program.shared + shared, len(blocks), np.arange(count) // threads, self.thread // WARP)
        self.at = np.zeros(count, np.int64)
        self._end = len(program.code)

    def run(self, program: Program) -> None:
        """Until all threads have ended."""
        stretches, taken = _stretches(program), 0
        with np.errstate(all="ignore"):
            while (low := int(self.at.min())) < self._end:
                taken += 1
                if taken > MOST_STRETCHES:
                    raise RuntimeError(f"{program.name} does not end")
                behind = self.at == low
                lanes = slice(None) if behind.all() else np.flatnonzero(behind)
                steps, after = stretches[low]
                self.at[lanes] = after
                for step in steps:
                    step(self, lanes)

    def jump(self, lanes: Any, to: int | None) -> None:
        """Lets threads go on at another instruction; None to end."""
        self.at[lanes] = self._end if to is None else to

    def arrive(self, lanes: Any) -> None:
        """Takes threads past a barrier, at which all that have not ended must be.

        Raises:
            RuntimeError: Some threads of a block are elsewhere.
        """
        index = self.shared.block_of
        runs = self.at != self._end
        runs[lanes] = True
        running = np.bincount(index[runs], minlength=self.shared.blocks)
        waiting = np.bincount(index[lanes], minlength=self.shared.blocks)
        if ((waiting != 0) & (waiting != running)).any():
            raise RuntimeError("a barrier is reached by some threads of a block and not by others")
        self.shared.pass_barrier(np.flatnonzero(waiting))


def launch(
    program: Program, memory: Memory, grid: int, arguments: list[bytes], shared: int = 0, block: int = 0
) -> None:
    """Runs a kernel.

    Args:
        program: The kernel.
        memory: All that it may touch.
        grid: Number of blocks.
        arguments: The bytes of each parameter.
        shared: Bytes of shared memory of a block, beyond what the program declares.
        block: Threads of a block, if the program does not say.

    Raises:
        AccessError: A thread touched something else, missed its alignment, or raced with another.
        UnsoundError: An instruction rounds in another way than IEEE 754, or may.
        NotImplementedError: An instruction is not known here.
        RuntimeError: A barrier is not for all threads of a block, or the kernel does not end.
        ValueError: The arguments are not those of the kernel.
    """
    sizes = list(program.parameters.values())
    if [len(each) for each in arguments] != sizes:
        raise ValueError(
            f"{program.name} takes parameters of {sizes} bytes, but got {[len(each) for each in arguments]}"
        )
    threads = program.threads or block
    most = max(MOST_THREADS // threads, 1)
    for first in range(0, grid, most):
        blocks = range(first, min(first + most, grid))
        Machine(program, memory, grid, blocks, threads, shared, arguments).run(program)
    memory.check_races(threads)


@cache
def _stretches(program: Program) -> dict[int, tuple[list[Step], int]]:
    """What is done from each instruction on that can be jumped to, until the next of them, and which that is."""
    jumps = {index + 1 for index, each in enumerate(program.code) if each.name in JUMPS}
    begins = sorted({0, *program.labels.values(), *jumps})
    ends = [*begins[1:], len(program.code)]
    return {
        begin: ([compile_step(each, program) for each in program.code[begin:end]], end)
        for begin, end in zip(begins, ends, strict=True)
    }
