"""The machine that a run took place on: what it is, how busy it was, and how fast it copies.

- :mod:`header` puts it all together, as the ``machine`` of a report;
- :mod:`host` is the processor, its memory, and the software; :mod:`load` what other processes took of it;
- :mod:`nvidia_smi` and :mod:`cuda` ask after GPUs; :mod:`datasheet` is what vendors promise;
- :mod:`copying` measures what the memory does.

What cannot be found out is None; nothing is guessed.
"""

from gpuopt.machine.copying import Copy, Spread, copy_rate, spread
from gpuopt.machine.header import Machine, describe
from gpuopt.machine.host import cores, memory
from gpuopt.machine.load import OthersLoad
from gpuopt.machine.nvidia_smi import Gpu, gpus

__all__ = [
    "Copy",
    "Gpu",
    "Machine",
    "OthersLoad",
    "Spread",
    "copy_rate",
    "cores",
    "describe",
    "gpus",
    "memory",
    "spread",
]
