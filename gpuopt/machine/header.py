"""What stands at the head of every report."""

from __future__ import annotations

import os
import platform
from datetime import UTC, datetime
from typing import TypedDict

from gpuopt.machine import host
from gpuopt.machine.load import OthersLoad
from gpuopt.machine.nvidia_smi import Gpu, gpus


class Machine(TypedDict):
    """The machine and what runs on it; None is what could not be found out."""

    date: str
    commit: str | None
    image: str | None
    system: str
    python: str
    versions: dict[str, str | None]
    cpu: str
    cores: int
    memory: int | None
    others_load: float | None
    gpus: list[Gpu]


def describe(load: OthersLoad | None = None) -> Machine:
    """The machine as it is now.

    Args:
        load: Made when the run began, for the share that other processes took since; None where there was no run.
    """
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": host.commit(),
        "image": os.environ.get("GPUOPT_IMAGE") or None,
        "system": platform.platform(),
        "python": platform.python_version(),
        "versions": host.versions(),
        "cpu": host.cpu_name(),
        "cores": host.cores(),
        "memory": host.memory(),
        "others_load": None if load is None else load.share(),
        "gpus": gpus(),
    }
