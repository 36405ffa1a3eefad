"""Skips this folder, with the reason, in a process whose Triton compiles instead of interpreting."""

import os

import pytest


def pytest_collect_file() -> None:
    if os.environ.get("TRITON_INTERPRET") != "1":
        pytest.skip("needs a process of its own: TRITON_INTERPRET=1 pytest tests/interpreted")
