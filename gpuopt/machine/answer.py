"""What other programs say."""

from __future__ import annotations

import shutil
import subprocess

PATIENCE = 20.0
"""Seconds after which a program counts as failed."""


def answer(*command: str) -> str | None:
    """What a program prints, stripped; None where it is not there or fails."""
    if shutil.which(command[0]) is None:
        return None
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=True)
    except (subprocess.SubprocessError, OSError):
        return None
    return done.stdout.strip()
