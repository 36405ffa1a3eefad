"""Warnings that libraries raise of themselves are theirs; those of gpuopt are errors here too."""

from __future__ import annotations

from pathlib import Path

import pytest

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    ours = pytest.mark.filterwarnings("ignore", "error:.*gpuopt", "error:.*as this optimizer was told")
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(ours)
