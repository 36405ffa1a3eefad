"""State that tells when an entry of it is replaced, so that nobody has to look at every entry in every step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class Notice:
    """Whether any of the dicts that share this has been changed."""

    changed = False


class Entries(dict[str, Any]):
    """The state of one parameter, a dict that gives notice before it changes. Copies and pickles are plain dicts."""

    __slots__ = ("_notice",)

    def __init__(self, entries: dict[str, Any], notice: Notice) -> None:
        super().__init__(entries)
        self._notice = notice

    def __reduce__(self) -> tuple[Any, ...]:
        return dict, (dict(self),)


def _giving_notice(name: str) -> Callable[..., Any]:
    change = getattr(dict, name)

    def method(self: Entries, *arguments: Any, **keywords: Any) -> Any:
        self._notice.changed = True
        return change(self, *arguments, **keywords)

    method.__name__, method.__doc__ = name, change.__doc__
    return method


for _name in ("__setitem__", "__delitem__", "__ior__", "clear", "pop", "popitem", "setdefault", "update"):
    setattr(Entries, _name, _giving_notice(_name))
