"""The processor, its memory, and the software on it."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from math import ceil
from pathlib import Path

from gpuopt.machine.answer import answer

PACKAGES = {
    "numpy": ("numpy",),
    "numba": ("numba",),
    "torch": ("torch",),
    "triton": ("triton",),
    "cupy": ("cupy-cuda13x", "cupy-cuda12x", "cupy"),
}
"""What to name the version of, and the distributions that may have brought it."""

CPUINFO = Path("/proc/cpuinfo")
MEMORY_LIMIT = Path("/sys/fs/cgroup/memory.max")
"""Where a container finds its limit, a number of bytes or ``max``."""

CPU_LIMIT = Path("/sys/fs/cgroup/cpu.max")
"""Where a container finds its limit of CPU time: microseconds or ``max``, and the period that they are for."""

HERE = Path(__file__).resolve().parent


def versions() -> dict[str, str | None]:
    """The versions of what drivers are built on; None for what is not installed."""
    return {name: _version_of(distributions) for name, distributions in PACKAGES.items()}


def cores() -> int:
    """Number of CPU cores that this process may use: those it may run on, or a container's limit, rounded up."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = CPU_LIMIT.read_text().split()
    except OSError:
        return allowed
    return min(allowed, ceil(int(quota) / int(period))) if quota.isdigit() else allowed


def memory() -> int | None:
    """Bytes of memory that this process may use: the machine's, or a container's limit."""
    try:
        physical = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError):
        return None
    try:
        limit = MEMORY_LIMIT.read_text().strip()
    except OSError:
        return physical
    return min(physical, int(limit)) if limit.isdigit() else physical


def cpu_name() -> str:
    """The processor's name for itself."""
    try:
        lines = CPUINFO.read_text().splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())


def commit(folder: Path = HERE) -> str | None:
    """The commit of the checkout that ``folder`` belongs to, with ``+changes`` when there are any.

    None where it belongs to none, as when gpuopt is installed into an environment inside somebody's checkout.
    """
    git = ("git", "-C", str(folder))
    if not answer(*git, "ls-files", "."):
        return None
    head = answer(*git, "rev-parse", "--short=12", "HEAD")
    if head is None:
        return None
    return head + ("+changes" if answer(*git, "status", "--porcelain") else "")


def _version_of(distributions: tuple[str, ...]) -> str | None:
    for distribution in distributions:
        try:
            return version(distribution)
        except PackageNotFoundError:
            continue
    return None
