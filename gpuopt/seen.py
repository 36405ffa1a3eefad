"""Which objects were seen, without keeping them alive."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from weakref import ref


class Seen:
    """Objects that were seen. An identity says which they are as long as none of them has died."""

    def __init__(self, objects: Sequence[Any]) -> None:
        self._identities = list(map(id, objects))
        self._dead: list[ref[Any]] = []
        self._references = [ref(each, self._dead.append) for each in objects]

    @property
    def all_alive(self) -> bool:
        """Whether none of them has died."""
        return not self._dead

    def same(self, objects: Sequence[Any]) -> bool:
        """Whether these are the very objects that were seen."""
        return self.all_alive and list(map(id, objects)) == self._identities
