"""Worlds of processes that all tests of this folder share; pytest-xdist runs them in one of its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from kit.world import World, Worlds


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist looks at groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.xdist_group("worlds"))


@pytest.fixture(scope="session")
def worlds(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worlds]:
    """For each number of processes the one world, or a new one where a test has left it broken."""
    started: dict[int, World] = {}

    def world(size: int) -> World:
        if size not in started or not started[size].is_alive:
            started[size] = World(size, tmp_path_factory.mktemp("world"))
        return started[size]

    yield world
    for each in started.values():
        each.close()
