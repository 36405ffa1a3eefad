"""The CUDA C++ forms stay within every slot and within the table, and do nothing that C++ leaves undefined.

They run on the host under AddressSanitizer and UndefinedBehaviorSanitizer, with each slot in an allocation of
exactly its size, for every rule and its options, aligned or not. That a single element too many would be found is
tested too, by planting it.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from kit import sanitized

from gpuopt.kernels.rules import RULES
from gpuopt.kernels.table import FAST_NUMEL, NUMEL

TESTS = Path(__file__).parent


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    """``kit/sanitized.py`` in a process of its own, with the sanitizer's allocator."""
    asan = subprocess.run(
        ["g++", "-print-file-name=libasan.so"], capture_output=True, text=True, check=True
    ).stdout.strip()
    paths = [str(TESTS), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = os.environ | {
        "LD_PRELOAD": asan,
        "ASAN_OPTIONS": "detect_leaks=0",
        "PYTHONPATH": os.pathsep.join(paths),
    }
    program = [sys.executable, sanitized.__file__, *arguments]
    return subprocess.run(program, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("form", sanitized.FORMS)
@pytest.mark.parametrize("rule", RULES)
def test_all_accesses_are_within_bounds(rule: str, form: str) -> None:
    result = run(rule, form)
    assert result.returncode == 0, result.stderr[-4000:]
    assert "finished" in result.stdout
    assert "runtime error" not in result.stderr


@pytest.mark.parametrize(
    ("form", "column"),
    [("table", NUMEL), ("array", NUMEL), ("table", FAST_NUMEL)],
    ids=["table numel", "array numel", "table fast_numel"],
)
def test_a_planted_overflow_is_found(form: str, column: int) -> None:
    result = run("adagrad", form, str(column))
    assert result.returncode != 0
    assert "heap-buffer-overflow" in result.stderr
