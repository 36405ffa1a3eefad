"""What a report says of the machine.

1. The header has the keys of ``bench/SCHEMA.md``, to the letter, and becomes JSON; what is not known is None.
2. ``nvidia-smi``'s answers, of one GPU or several, give numbers and names; what it cannot tell in its several ways is
   None, never 0 and never a guess. Without it, or where it fails, there is no GPU. Older drivers are asked anew by the
   older name of a field.
3. A GPU is throttled for reasons that hold it back; that it idles, or that its clocks were chosen, is none.
4. The data sheet's bandwidth is looked up by the GPU's name, else computed from clock and bus width, else None.
5. The CUDA driver's version and bus widths are told by PCI address, whoever spells it; a driver that fails tells none.
6. A commit is that of the checkout that holds the package, and none of a checkout that merely surrounds it.
7. Memory and cores are the container's limits where there are any; part of a core is one.
8. A copy counts bytes read and written, its rate is of the median, and a bad device, size or number is refused.
9. The load of others is a share, and None where the system does not tell.
"""

from __future__ import annotations

import ctypes
import json
import re
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gpuopt import machine
from gpuopt.machine import answer, copying, cuda, header, host, load, nvidia_smi
from gpuopt.machine.datasheet import GB_PER_S, bandwidth

ROOT = Path(__file__).resolve().parents[1]

H100 = "NVIDIA H100 80GB HBM3, 570.86.15, 9.0, 81559, 700.00, 1980, 2619, 1980, 2619, 00000000:1B:00.0"
GTX = "NVIDIA GeForce GTX 1660 Ti, 470.82, 7.5, 5944, [N/A], 300, 405, 2100, 6001, 00000000:01:00.0"


def keys_of(title: str) -> list[str]:
    """The keys in the table under a heading of ``SCHEMA.md``."""
    section = (ROOT / "bench" / "SCHEMA.md").read_text().split(f"\n## {title}\n")[1].split("\n## ")[0]
    rows = re.findall(r"^\| (`.+?) \|", section, re.MULTILINE)
    return [key for row in rows for key in re.findall(r"`(\w+)`", row)]


def test_the_header_has_the_keys_of_the_schema(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GPUOPT_IMAGE", "sha256:12ab")
    found = machine.describe(machine.OthersLoad())
    assert list(found) == keys_of("`machine`")
    assert found["image"] == "sha256:12ab"
    assert set(found["versions"]) == {"numpy", "numba", "torch", "triton", "cupy"}
    assert found["versions"]["numpy"] == np.__version__
    assert found["cores"] >= 1
    json.dumps(found)


def test_a_gpu_has_the_keys_of_the_schema() -> None:
    row = next(row for row in (ROOT / "bench" / "SCHEMA.md").read_text().splitlines() if row.startswith("| `gpus`"))
    (gpu,) = nvidia_smi.parse(f"{H100}, 0x0000000000000000", "12.8", {})
    clocks = re.search(r'"clocks_mhz": \{(.*?)\}', row)
    assert clocks is not None
    assert list(gpu["clocks_mhz"]) == re.findall(r'"(\w+)"', clocks[1])
    assert list(gpu) == re.findall(r'"(\w+)"', row.replace(clocks[1], ""))


def test_image_is_none_outside_a_container(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GPUOPT_IMAGE", raising=False)
    assert header.describe()["image"] is None
    assert header.describe()["others_load"] is None


def test_one_gpu() -> None:
    assert nvidia_smi.parse(f"{H100}, 0x0000000000000044", "12.8", {}) == [
        {
            "name": "NVIDIA H100 80GB HBM3",
            "driver": "570.86.15",
            "cuda": "12.8",
            "compute_capability": "9.0",
            "memory": 81559 << 20,
            "datasheet_gb_per_s": 3350.0,
            "power_limit_w": 700.0,
            "clocks_mhz": {"sm": 1980.0, "memory": 2619.0, "max_sm": 1980.0, "max_memory": 2619.0},
            "throttled": ["software power cap", "hardware thermal slowdown"],
        }
    ]


def test_several_gpus_of_which_one_tells_little() -> None:
    silent = "[Unknown Error], 570.86.15, [N/A], [Not Supported], [N/A], [N/A], [N/A], N/A, [N/A], [GPU is lost]"
    table = f"{H100}, 0x0000000000000001\n{GTX}, 0x0000000000000002\n{silent}, [N/A]\n"
    first, second, third = nvidia_smi.parse(table, None, {"0000:01:00.0": 192})
    assert first["name"] == "NVIDIA H100 80GB HBM3"
    assert (first["throttled"], second["throttled"]) == ([], [])
    assert second["power_limit_w"] is None
    assert second["datasheet_gb_per_s"] == pytest.approx(288.0, abs=0.1)  # its data sheet says 288
    clocks = third.pop("clocks_mhz")
    assert third.pop("driver") == "570.86.15"
    assert set(third.values()) | set(clocks.values()) == {None}


@pytest.mark.parametrize("mask", ["[N/A]", "Not Active"])
def test_unknown_reasons_are_not_no_reasons(mask: str) -> None:
    assert nvidia_smi.parse(f"{H100}, {mask}", None, {})[0]["throttled"] is None


def test_what_is_no_table_is_no_gpu() -> None:
    assert nvidia_smi.parse("No devices were found", None, {}) == []


def fake_smi(folder: Path, script: str) -> None:
    program = folder / "nvidia-smi"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)


def test_nvidia_smi_is_asked_and_older_drivers_by_the_older_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setattr(cuda, "library", lambda: None)
    refuse = 'case "$1" in *clocks_event_reasons*) echo Field is not valid; exit 2;; esac'
    fake_smi(tmp_path, f"{refuse}\necho '{H100}, 0x0000000000000008'")
    (gpu,) = machine.gpus()
    assert gpu["throttled"] == ["hardware slowdown"]
    assert gpu["cuda"] is None


@pytest.mark.parametrize("script", ["echo failed; exit 9", "true", "echo NVIDIA-SMI has failed"])
def test_no_gpu_where_nvidia_smi_fails(script: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    fake_smi(tmp_path, script)
    assert machine.gpus() == []


def test_a_program_that_hangs_or_is_not_there_answers_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answer, "PATIENCE", 0.05)
    assert answer.answer("sleep", "5") is None
    assert answer.answer("no such program") is None
    assert answer.answer("echo", "here") == "here"


def test_bandwidth_is_looked_up_computed_or_unknown() -> None:
    assert bandwidth("NVIDIA H200") == 4800
    assert bandwidth("NVIDIA H200", 1.0, 1) == 4800
    assert bandwidth("Tesla T4") == 320
    assert bandwidth("NVIDIA H100 80GB HBM3 MIG 1g.10gb") is None
    assert bandwidth("NVIDIA Unheard-of", 10501, 384) == pytest.approx(1008.1)
    assert bandwidth("NVIDIA Unheard-of", 10501) is None
    assert bandwidth(None) is None
    assert all("NVIDIA" not in name for name in GB_PER_S)


class FakeCuda:
    """Stands in for the CUDA driver's library, with two devices, of which the second has no bus width."""

    def __init__(self, version: int = 13010, status: int = 0) -> None:
        self.number, self.status = version, status

    def _give(self, to: Any, value: int) -> int:
        to._obj.value = value
        return self.status

    def cuInit(self, flags: int) -> int:  # noqa: N802
        return self.status

    def cuDriverGetVersion(self, to: Any) -> int:  # noqa: N802
        return self._give(to, self.number)

    def cuDeviceGetCount(self, to: Any) -> int:  # noqa: N802
        return self._give(to, 2)

    def cuDeviceGet(self, to: Any, index: int) -> int:  # noqa: N802
        return self._give(to, index)

    def cuDeviceGetPCIBusId(self, to: Any, size: int, device: ctypes.c_int) -> int:  # noqa: N802
        to.value = f"0000:{device.value + 0x1B:02x}:00.0".encode()
        return self.status

    def cuDeviceGetAttribute(self, to: Any, attribute: int, device: ctypes.c_int) -> int:  # noqa: N802
        assert attribute == 37
        return self._give(to, 0 if device.value else 5120)


def test_the_cuda_driver_tells_version_and_bus_widths() -> None:
    assert cuda.version(FakeCuda()) == "13.1"
    assert cuda.version(FakeCuda(12040)) == "12.4"
    assert cuda.bus_widths(FakeCuda()) == {"0000:1b:00.0": 5120}
    assert cuda.pci_address("00000000:1B:00.0") == "0000:1b:00.0"


@pytest.mark.parametrize("library", [None, FakeCuda(status=100), FakeCuda(version=0, status=3)])
def test_a_cuda_driver_that_fails_tells_nothing(library: FakeCuda | None) -> None:
    assert cuda.version(library) is None
    assert cuda.bus_widths(library) == {}


def git(folder: Path, *words: str) -> None:
    who = ("-c", "user.name=a", "-c", "user.email=a@b")
    subprocess.run(["git", "-C", str(folder), *who, *words], check=True, capture_output=True)


def test_the_commit_is_the_packages_own(tmp_path: Path) -> None:
    package, environment = tmp_path / "package", tmp_path / "environment"
    for folder in (package, environment):
        folder.mkdir()
        (folder / "file.py").write_text("a = 1")
    assert host.commit(package) is None
    git(tmp_path, "init")
    git(tmp_path, "add", "package")
    git(tmp_path, "commit", "-m", "first")
    (tmp_path / ".gitignore").write_text("environment\n.gitignore\n")
    found = host.commit(package)
    assert found is not None
    assert re.fullmatch("[0-9a-f]{12}", found)
    (package / "file.py").write_text("a = 2")
    assert host.commit(package) == f"{found}+changes"
    assert host.commit(environment) is None


def test_memory_is_the_containers_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    limit = tmp_path / "memory.max"
    monkeypatch.setattr(host, "MEMORY_LIMIT", limit)
    physical = machine.memory()
    assert physical is not None
    for text, expected in (("max\n", physical), (f"{1 << 28}\n", 1 << 28), (f"{1 << 60}\n", physical)):
        limit.write_text(text)
        assert machine.memory() == expected


def test_cores_are_the_containers_limit_rounded_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    limit = tmp_path / "cpu.max"
    monkeypatch.setattr(host, "CPU_LIMIT", limit)
    monkeypatch.setattr(host.os, "sched_getaffinity", lambda process: set(range(8)), raising=False)
    assert machine.cores() == 8
    for text, expected in (
        ("max 100000\n", 8),
        ("250000 100000\n", 3),
        ("200000 100000\n", 2),
        ("50000 20000\n", 3),
        ("1000 100000\n", 1),
        ("6400000 100000\n", 8),
    ):
        limit.write_text(text)
        assert machine.cores() == expected
    monkeypatch.delattr(host.os, "sched_getaffinity")
    monkeypatch.setattr(host.os, "cpu_count", lambda: 2)
    assert machine.cores() == 2


def test_the_processor_has_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "CPUINFO", tmp_path / "cpuinfo")
    assert host.cpu_name()
    (tmp_path / "cpuinfo").write_text("processor\t: 0\nmodel name\t: Some CPU @ 2 GHz\nmodel name\t: Other\n")
    assert host.cpu_name() == "Some CPU @ 2 GHz"


def test_spread() -> None:
    assert machine.spread([3.0]) == {"n": 1, "median": 3.0, "p10": 3.0, "p90": 3.0}
    assert machine.spread(range(11)) == {"n": 11, "median": 5.0, "p10": 1.0, "p90": 9.0}


@pytest.mark.parametrize("without_torch", [False, True])
def test_a_copy_counts_both_ways_and_copies(without_torch: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Time stands still but for half a second in each copy."""
    if without_torch:
        monkeypatch.setattr(copying, "find_spec", lambda name: None)
    times = iter(np.arange(0, 100, 0.5))
    monkeypatch.setattr(copying.time, "perf_counter", lambda: next(times))
    found = machine.copy_rate("cpu", size=4000, repetitions=5)
    assert found == {
        "bytes": 8000,
        "seconds": {"n": 5, "median": 0.5, "p10": 0.5, "p90": 0.5},
        "gb_per_s": 8000 / 0.5 / 1e9,
    }


def test_what_cannot_be_copied_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="device must be one of cpu, cuda, but is 'tpu'"):
        machine.copy_rate("tpu")
    with pytest.raises(ValueError, match="size and repetitions must be at least 1, but are 0 and 15"):
        machine.copy_rate(size=0)
    with pytest.raises(ValueError, match="but are None and 0"):
        machine.copy_rate(repetitions=0)
    monkeypatch.setattr(copying, "find_spec", lambda name: None)
    monkeypatch.setitem(copying.DRIVERS, "cupy", type("Entry", (), {"unavailable": lambda self: "no GPU"})())
    with pytest.raises(RuntimeError, match="neither PyTorch nor CuPy sees a GPU"):
        machine.copy_rate("cuda")


def test_the_load_of_others(monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = iter([(100.0, 1000.0, 50.0), (160.0, 1100.0, 70.0)])
    monkeypatch.setattr(load.OthersLoad, "_ticks", staticmethod(lambda: next(ticks)))
    assert machine.OthersLoad().share() == pytest.approx((60 - 20) / 100)
    monkeypatch.setattr(load.OthersLoad, "_ticks", staticmethod(lambda: None))
    assert machine.OthersLoad().share() is None
