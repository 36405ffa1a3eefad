"""Wheels and sdists of the checkout, built from a copy, which takes no note of it."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def copy_of_checkout(folder: Path) -> Path:
    """A new folder in ``folder`` with what is to be built."""
    ignored = shutil.ignore_patterns(".*", "__pycache__", "*.egg-info", "build", "dist", "out")
    return Path(shutil.copytree(ROOT, folder / "checkout", symlinks=True, ignore=ignored))


def build(checkout: Path, out: Path, *options: str) -> list[Path]:
    """What ``python -m build`` leaves in ``out``, without a network and without a warning."""
    command = [sys.executable, "-P", "-m", "build", "--no-isolation", "--outdir", out, *options, checkout]
    done = subprocess.run(command, cwd=out.parent, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Warning" not in done.stdout + done.stderr
    return sorted(out.iterdir())
