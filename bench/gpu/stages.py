"""What a round consists of: commands, each with a limit of its own, so that one that hangs costs no other."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

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
        files: Names of what it leaves.
    """

    name: str
    limit: float
    arguments: tuple[str, ...]
    files: tuple[str, ...] = ()


def stages(folder: Path) -> dict[str, Stage]:
    """All of them by name, what decides first; with an installation they take less than nine minutes.

    Args:
        folder: Where each leaves its files.
    """
    out, workers = str(folder), str(min(MOST_WORKERS, cores()))
    bench = ["bench", "--device", "cuda", "--quick", "--only", "*", "--budget", "120", "--out", out]
    verify = ["verify", "--quick", "--device", "cuda", "--json", f"{out}/verify.json"]
    on_all_cores = ["-p", "xdist", "-n", workers] if find_spec("xdist") is not None else []
    tests = [*on_all_cores, "-q", "-m", "gpu", f"--junitxml={out}/tests.xml", "tests/gpu"]
    made = (
        Stage("smoke", 40, ("-m", "gpuopt.bench.gpu.smoke", out), ("smoke.json",)),
        Stage("bench", 190, ("-m", "gpuopt", *bench), ("bench.json", "report.html")),
        Stage("verify", 40, ("-m", "gpuopt", *verify), ("verify.json",)),
        Stage("tests", 90, ("-m", "pytest", *tests), ("tests.xml",)),
        Stage("sweeps", 85, ("-m", "gpuopt.bench.sweeps", out, "--budget", "60"), ("sweeps.json",)),
    )
    return {stage.name: stage for stage in made}
