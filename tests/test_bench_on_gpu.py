"""What of the round on a machine with a GPU can be tested without one.

- The script refuses to begin where there is no GPU, before it installs anything; with one it runs every part, whatever
  becomes of those before, and fails if one of them does.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

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
