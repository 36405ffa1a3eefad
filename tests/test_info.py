"""``gpuopt info`` says what gpuopt finds on a machine.

1. The JSON holds the drivers, each with null or why it cannot run and what to install; the machine; and the copies
   that were measured, one per device that there is: nothing about a GPU where there is none.
2. The table says the same: for each driver whether it runs, for each GPU name, driver, CUDA, capability, clocks, limits
   and the data sheet's bandwidth beside the measured, versions of all packages. What is not known is called unknown,
   and what is not installed so.
3. A GPU that neither PyTorch nor CuPy can use is shown, and that its memory was not measured.
4. A driver for GPUs that is interpreted on host memory is said to be.
"""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console
from typer.testing import CliRunner

from gpuopt import backends, info, machine
from gpuopt.cli import app
from gpuopt.kernels.drivers import Entry

COPY = {
    "bytes": 2 << 30,
    "seconds": {"n": 5, "median": (2 << 30) / 20e9, "p10": (2 << 30) / 25e9, "p90": (2 << 30) / 10e9},
    "gb_per_s": 20.0,
}

GPU = {
    "name": "NVIDIA H100 80GB HBM3",
    "driver": "570.86.15",
    "cuda": "12.8",
    "compute_capability": "9.0",
    "memory": 80 << 30,
    "datasheet_gb_per_s": 3350.0,
    "power_limit_w": 700.0,
    "clocks_mhz": {"sm": 1200.0, "memory": 2619.0, "max_sm": 1980.0, "max_memory": 2619.0},
    "throttled": ["software power cap"],
}

SILENT = {**dict.fromkeys(GPU), "clocks_mhz": dict.fromkeys(("sm", "memory", "max_sm", "max_memory"))}


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """A machine whose GPUs are played, and which copies at known rates."""
    found: list[Any] = []
    described = machine.describe()

    def describe(load: Any = None) -> Any:
        return {**described, "gpus": found, "others_load": None}

    monkeypatch.setattr(info.machine, "gpus", lambda: found)
    monkeypatch.setattr(info.machine, "describe", describe)
    monkeypatch.setattr(info.machine, "copy_rate", lambda device: COPY)
    return found


def shown(width: int = 100) -> list[str]:
    console = Console(file=io.StringIO(), width=width)
    info.show(info.gather(), console)
    assert isinstance(console.file, io.StringIO)
    return [line.rstrip() for line in console.file.getvalue().splitlines()]


def value_of(lines: list[str], section: str, key: str) -> str:
    """What stands beside a name in a section, joined if it is several lines."""
    after = lines[lines.index(section) + 1 :]
    start = next(index for index, line in enumerate(after) if line.startswith(f"  {key} "))
    column = len(after[start]) - len(after[start].removeprefix(f"  {key}").lstrip())
    parts = [after[start][column:]]
    for line in after[start + 1 :]:
        if line[:column].strip():
            break
        parts.append(line.strip())
    return " ".join(parts)


def test_json_is_what_is_gathered(gpus: list[Any]) -> None:
    result = CliRunner().invoke(app, ["info", "--json"])
    assert result.exit_code == 0
    found = json.loads(result.output)
    assert list(found) == ["gpuopt", "drivers", "machine", "copy"]
    assert found["drivers"] == backends.available()
    assert found["machine"] == machine.describe()
    assert found["copy"] == {"cpu": COPY}
    gpus.append(GPU)
    found = json.loads(CliRunner().invoke(app, ["info", "--json"]).output)
    assert found["machine"]["gpus"] == [GPU]
    assert found["copy"] == {"cpu": COPY, "cuda": COPY}


def test_a_machine_without_gpu(gpus: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        info.backends, "available", lambda: {"numpy": None, "cupy": "cupy is not installed (pip install 'gpuopt[x]')"}
    )
    lines = shown()
    assert value_of(lines, "Drivers", "numpy") == "runs here, on host memory"
    assert value_of(lines, "Drivers", "cupy") == "cannot run here: cupy is not installed (pip install 'gpuopt[x]')"
    assert value_of(lines, "GPU", "none") == "nvidia-smi lists no NVIDIA GPU, or is not there"
    assert value_of(lines, "CPU", "copy") == (
        "20.0 GB/s, read and written: median of 5 copies of 1024 MiB (10.0 at the slowest tenth, 25.0 at the fastest)"
    )
    assert value_of(lines, "CPU", "others' load") == "unknown"
    assert "GPU memory" not in lines


def test_versions_and_what_is_not_installed(gpus: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    described = info.machine.describe()
    described["versions"].update(torch="2.13.0", cupy=None)
    monkeypatch.setattr(info.machine, "describe", lambda load: described)
    lines = shown()
    assert value_of(lines, "Versions", "torch") == "2.13.0"
    assert value_of(lines, "Versions", "cupy") == "not installed"


@pytest.mark.parametrize("width", [80, 120])
def test_gpus(width: int, gpus: list[Any]) -> None:
    gpus.extend([GPU, SILENT])
    lines = shown(width)
    assert max(map(len, lines)) <= width
    assert value_of(lines, "GPU 0", "name") == "NVIDIA H100 80GB HBM3"
    assert value_of(lines, "GPU 0", "driver") == "570.86.15, for CUDA up to 12.8"
    assert value_of(lines, "GPU 0", "capability") == "9.0"
    assert value_of(lines, "GPU 0", "memory") == "80.0 GiB"
    assert value_of(lines, "GPU 0", "data sheet") == "3,350 GB/s"
    assert value_of(lines, "GPU 0", "clocks") == "SM 1200 of 1980 MHz, memory 2619 of 2619 MHz"
    assert value_of(lines, "GPU 0", "power limit") == "700 W"
    assert value_of(lines, "GPU 0", "held back by") == "software power cap"
    assert value_of(lines, "GPU memory", "copy").startswith("20.0 GB/s")
    for key in ("name", "capability", "memory", "data sheet", "power limit", "held back by"):
        assert value_of(lines, "GPU 1", key) == "unknown"
    assert value_of(lines, "GPU 1", "clocks") == "SM unknown of unknown MHz, memory unknown of unknown MHz"
    gpus[:] = [{**GPU, "throttled": []}]
    assert value_of(shown(), "GPU 0", "held back by") == "nothing"


def test_a_gpu_that_nothing_can_copy_on(gpus: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    def copy_rate(device: str) -> Any:
        if device == "cuda":
            raise RuntimeError("no")
        return COPY

    gpus.append(GPU)
    monkeypatch.setattr(info.machine, "copy_rate", copy_rate)
    assert info.gather()["copy"] == {"cpu": COPY, "cuda": None}
    assert value_of(shown(), "GPU memory", "copy") == "not measured, since neither PyTorch nor CuPy sees a GPU"


def test_interpreted_triton_is_said_not_to_be_on_a_gpu() -> None:
    """In a process of its own: Triton either interprets or compiles in one."""
    pytest.importorskip("triton")
    environment = os.environ | {"TRITON_INTERPRET": "1"}
    program = [sys.executable, "-P", "-m", "gpuopt", "info"]
    done = subprocess.run(program, env=environment, capture_output=True, text=True, check=True)
    lines = [line.rstrip() for line in done.stdout.splitlines()]
    assert value_of(lines, "Drivers", "triton") == (
        "runs here, interpreted on host memory and not on a GPU, by TRITON_INTERPRET"
    )
    assert value_of(lines, "Drivers", "numpy") == "runs here, on host memory"


def test_a_driver_on_a_gpu_is_said_to_be(gpus: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Entry, "load", lambda entry: SimpleNamespace(DEVICE="cuda"))
    monkeypatch.setattr(info.backends, "available", lambda: {"triton": None})
    assert value_of(shown(), "Drivers", "triton") == "runs here, on GPU memory"


def test_what_is_really_here() -> None:
    found = info.gather()
    assert set(found["copy"]) == ({"cpu", "cuda"} if found["machine"]["gpus"] else {"cpu"})
    measured = found["copy"]["cpu"]
    assert measured is not None
    assert measured["gb_per_s"] == measured["bytes"] / measured["seconds"]["median"] / 1e9
    assert measured["seconds"]["p10"] <= measured["seconds"]["median"] <= measured["seconds"]["p90"]
