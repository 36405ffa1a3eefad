"""Runs compiled kernels where there is no GPU: their PTX, interpreted on host memory.

- :mod:`program` reads PTX, :mod:`operands` what instructions work on;
- :mod:`arithmetic` and :mod:`instructions` say what each does, :mod:`memory` and :mod:`shared` what it may touch;
- :mod:`machine` runs all threads of a launch beside each other.

What it shows is that the code which the compilers make computes the right bits and touches no memory but its own. It
knows nothing of what ptxas makes of PTX, of caches, of how long anything takes, or of blocks that race.

Source: NVIDIA, "Parallel Thread Execution ISA", chapters 4 (syntax), 5 (state spaces) and 9 (instructions).
"""

from kit.ptx.machine import launch
from kit.ptx.memory import AccessError, Buffer, Memory
from kit.ptx.operands import UnsoundError
from kit.ptx.program import Program

__all__ = ["AccessError", "Buffer", "Memory", "Program", "UnsoundError", "launch"]
