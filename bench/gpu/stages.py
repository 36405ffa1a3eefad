"""What a round consists of: commands, each with a limit of its own, so that one that hangs costs no other."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from gpuopt.kernels.drivers import DRIVERS
from gpuopt.machine import cores

MOST_WORKERS = 12
"""Processes of the tests. Each has a context on the GPU, and a few tests take 10 GB of its memory."""


@dataclass(frozen=True)
class Stage:
    """One command.

    Attributes:
        name: What it is called by.
        limit: Seconds after which it is interrupted.
        arguments: Of Python.
    """

    name: str
    limit: float
    arguments: tuple[str, ...]


def stages(folder: Path) -> dict[str, Stage]:
    """All of them by name, what decides first; with an installation they take less than nine minutes.

    Args:
        folder: Where each leaves its files.
    """
    out, workers = str(folder), str(min(MOST_WORKERS, cores()))
    gpu_drivers = [word for name, entry in DRIVERS.items() if entry.device == "cuda" for word in ("--driver", name)]
    bench = ["bench", "--device", "cuda", "--quick", "--only", "*", "--budget", "110", "--out", out]
    verify = ["verify", "--quick", *gpu_drivers, "--json", f"{out}/verify.json"]
    tests = ["-p", "xdist", "-q", "-m", "gpu", "-n", workers, f"--junitxml={out}/tests.xml", "tests/gpu"]
    made = (
        Stage("smoke", 45, ("-m", "gpuopt.bench.gpu.smoke", out)),
        Stage("bench", 165, ("-m", "gpuopt", *bench)),
        Stage("verify", 60, ("-m", "gpuopt", *verify)),
        Stage("tests", 120, ("-m", "pytest", *tests)),
        Stage("sweeps", 130, ("-m", "gpuopt.bench.sweeps", out, "--budget", "100")),
    )
    return {stage.name: stage for stage in made}
