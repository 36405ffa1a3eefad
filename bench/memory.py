"""How much memory there is, and how much a contender needs."""

from __future__ import annotations

from pathlib import Path

from gpuopt.bench.contenders.contender import Contender
from gpuopt.bench.workloads import AVERAGED, Workload
from gpuopt.kernels.formats import FORMATS
from gpuopt.machine import memory

MEMINFO = Path("/proc/meminfo")
CGROUP_USE = Path("/sys/fs/cgroup/memory.current")

RESERVE = 0.1
"""Share of the memory that is left to others."""


def available(device: str) -> int | None:
    """Bytes that can be allocated now; None where it is not known."""
    if device == "cuda":
        import torch

        free, total = torch.cuda.mem_get_info()
        return max(free - int(RESERVE * total), 0)
    most = memory()
    if most is None:
        return None
    free = min((amount for amount in (_free_of_machine(), _free_of_group(most)) if amount is not None), default=most)
    return max(free - int(RESERVE * most), 0)


def shared_bytes(workload: Workload) -> int:
    """What a workload needs beside its contenders: the gradients."""
    return FORMATS[workload.formats.grad].nbytes(workload.shapes.numel)


def needed_bytes(workload: Workload, contender: Contender) -> int:
    """What a contender allocates, and may allocate in a step."""
    formats = workload.formats
    per_element = FORMATS[formats.param].itemsize * contender.temporaries
    if workload.tail or workload.new_grads:
        per_element += FORMATS[formats.grad].itemsize + 4 * (AVERAGED in workload.tail)
    return workload.stored + int(per_element * workload.shapes.numel)


def _free_of_machine() -> int | None:
    try:
        lines = MEMINFO.read_text().splitlines()
    except OSError:
        return None
    kibibytes = (int(line.split()[1]) for line in lines if line.startswith("MemAvailable:"))
    return next((1024 * number for number in kibibytes), None)


def _free_of_group(total: int) -> int | None:
    """Of a container's limit; its caches count as taken."""
    try:
        return total - int(CGROUP_USE.read_text())
    except (OSError, ValueError):
        return None
