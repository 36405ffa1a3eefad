"""What of the round on a machine with a GPU can be tested without one.

- The script refuses to begin where there is no GPU, before it installs anything; with one it runs every part, whatever
  becomes of those before, and fails if one of them does.
- The sweeps over constants step with each of them, write down the medians, and leave the constants as they were.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from gpuopt.bench import gpu_sweeps
from gpuopt.bench.meters import Sample

ON_GPU = Path(__file__).resolve().parents[1] / "bench" / "on_gpu.sh"


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_script_refuses_without_a_gpu_before_it_installs_and_runs_every_part_with_one(tmp_path):
    assert os.access(ON_GPU, os.X_OK)
    calls = tmp_path / "calls"
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\necho "$@" >> {calls}\ncase "$*" in *verify*) exit 1;; esac\n')
    smi = tmp_path / "nvidia-smi"
    smi.write_text("#!/bin/sh\necho 'No devices were found' >&2\nexit 6\n")
    for program in (python, smi):
        program.chmod(0o755)
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "PYTHON": str(python), "OUT": str(tmp_path / "out")}
    done = subprocess.run([ON_GPU], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert "no NVIDIA GPU" in done.stderr
    assert not calls.exists()

    smi.write_text("#!/bin/sh\necho 'NVIDIA Fake 100'\n")
    done = subprocess.run([ON_GPU], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1  # verify fails, and the parts after it run all the same
    lines = calls.read_text().splitlines()
    assert [any(part in line for line in lines) for part in ("pytest", "verify", "bench --device cuda", "sweeps")] == (
        [True] * 4
    )
    assert (tmp_path / "out" / "nvidia-fake-100").is_dir()


def test_alternative_constants_hold_for_a_while():
    driver = SimpleNamespace(TILE=1024, OPTIONS={"num_warps": 4, "enable_fp_fusion": False})
    with gpu_sweeps._alternative(driver, 4096, 16):
        assert driver.TILE == 4096
        assert driver.OPTIONS == {"num_warps": 16, "enable_fp_fusion": False}
    assert (driver.TILE, driver.OPTIONS["num_warps"]) == (1024, 4)


class PlayedMeter:
    """Takes steps, and always the same time."""

    def once(self, entrant):
        entrant.step()

    def sample(self, entrant):
        entrant.step()
        return Sample(1e-5, 2e-6)


def test_sweeps_with_the_gpu_played_by_the_host(monkeypatch, tmp_path, capsys):
    cupy_driver = pytest.importorskip("gpuopt.kernels.drivers.cupy")
    triton_driver = pytest.importorskip("gpuopt.kernels.drivers.triton")
    array = SimpleNamespace(
        float32=np.float32,
        zeros=np.zeros,
        random=SimpleNamespace(standard_normal=np.zeros),
        cuda=SimpleNamespace(get_current_stream=lambda: SimpleNamespace(ptr=0)),
    )
    launched, given = [], []

    def noting(name):
        return lambda table, *_: launched.append((name, table.tile, triton_driver.OPTIONS["num_warps"]))

    monkeypatch.setitem(sys.modules, "cupy", array)
    monkeypatch.setattr(gpu_sweeps, "meter_for", lambda device: PlayedMeter())
    monkeypatch.setattr(gpu_sweeps, "FORM_SIZES", (1, 64))
    monkeypatch.setattr(gpu_sweeps, "TILE_SIZES", (5000,))
    monkeypatch.setattr(gpu_sweeps, "ROUNDS", 1)
    for driver, name in ((cupy_driver, "run_plain"), (cupy_driver, "run_table"), (triton_driver, "run")):
        monkeypatch.setattr(driver, name, noting(name))
    monkeypatch.setattr(cupy_driver, "place_table", lambda table, hyper, stream: given.append(hyper.tobytes()))
    constants = triton_driver.TILE, triton_driver.OPTIONS

    gpu_sweeps.main(tmp_path)
    found = json.loads((tmp_path / "sweeps.json").read_text())
    assert [each["numel"] for each in found["cupy_forms"]] == [1, 64]
    assert found["cupy_forms"][0]["gpu"] == {"plain": 2e-6, "table": 2e-6}
    assert set(found["triton_tiles"][0]["host"]) == {"1024 x 4", "2048 x 8", "4096 x 16", "2048 x 4"}
    assert {(tile, warps) for name, tile, warps in launched if name == "run"} == set(gpu_sweeps.TILES)
    assert len(set(given)) == 2
    assert constants == (triton_driver.TILE, triton_driver.OPTIONS)
    assert "plain 2.0 us" in capsys.readouterr().out
