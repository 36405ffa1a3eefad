"""Worlds of processes that all tests of this folder share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from kit.world import World, Worlds


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
