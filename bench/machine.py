"""What the numbers were measured on."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PACKAGES = {
    "numpy": ("numpy",),
    "numba": ("numba",),
    "torch": ("torch",),
    "triton": ("triton",),
    "cupy": ("cupy-cuda13x", "cupy-cuda12x", "cupy"),
}
"""What to name the version of, and the distributions that may have brought it."""


def describe() -> dict[str, Any]:
    """The machine and what runs on it, for the head of a report. None is what could not be found out."""
    gpu, driver = gpu_and_driver()
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit(),
        "cpu": cpu_name(),
        "cores": cores(),
        "gpu": gpu,
        "driver": driver,
        "system": platform.platform(),
        "python": platform.python_version(),
        "versions": {name: _version_of(distributions) for name, distributions in PACKAGES.items()},
    }


def cores() -> int:
    """Number of CPU cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class OthersLoad:
    """How much of the CPU other processes take, from when it is made."""

    def __init__(self) -> None:
        self._before = self._ticks()

    def share(self) -> float | None:
        """Share of all cores' time that was neither idle nor this process's; None where it cannot be known."""
        now = self._ticks()
        if self._before is None or now is None:
            return None
        busy, total, own = (after - before for after, before in zip(now, self._before, strict=True))
        return min(max((busy - own) / total, 0.0), 1.0) if total else None

    @staticmethod
    def _ticks() -> tuple[float, float, float] | None:
        """Ticks that all cores were busy, that passed on them, and that this process and its children took."""
        try:
            line = Path("/proc/stat").read_text().splitlines()[0]
        except OSError:
            return None
        user, nice, system, idle, waiting, *others = (int(word) for word in line.split()[1:9])
        busy = user + nice + system + sum(others)
        own = sum(os.times()[:4]) * os.sysconf("SC_CLK_TCK")
        return busy, busy + idle + waiting, own


def cpu_name() -> str:
    """The processor's name for itself."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())


def gpu_and_driver() -> tuple[str | None, str | None]:
    """Name of the first GPU and version of its driver, as ``nvidia-smi`` says them."""
    answer = _answer("nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader")
    if not answer:
        return None, None
    name, _, driver = answer.splitlines()[0].partition(",")
    return name.strip(), driver.strip()


def commit() -> str | None:
    """The commit of this checkout, with ``+changes`` when there are any; None where it is none."""
    here = str(Path(__file__).resolve().parent)
    head = _answer("git", "-C", here, "rev-parse", "--short=12", "HEAD")
    if head is None:
        return None
    return head + ("+changes" if _answer("git", "-C", here, "status", "--porcelain") else "")


def _version_of(distributions: tuple[str, ...]) -> str | None:
    for distribution in distributions:
        try:
            return version(distribution)
        except PackageNotFoundError:
            continue
    return None


def _answer(*command: str) -> str | None:
    """What a program prints; None when it is not there or fails."""
    if shutil.which(command[0]) is None:
        return None
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    except (subprocess.SubprocessError, OSError):
        return None
    return done.stdout.strip()
