"""Skips this folder, with the reason, in a process whose Triton compiles, or whose interpreter cannot be used."""

import os

import pytest
from kit import interpreter


def pytest_collect_file() -> None:
    if os.environ.get("TRITON_INTERPRET") != "1":
        pytest.skip("needs a process of its own: TRITON_INTERPRET=1 pytest tests/interpreted")
    reason = interpreter.unusable()
    if reason:
        pytest.skip(reason)
