"""State that tells when something in it is replaced, so that nobody has to look at all of it in every step."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Any


class Notice:
    """Whether any of the dicts that share this may have been changed."""

    changed = False


class Entries(dict[str, Any]):
    """The state of one parameter, a dict that gives notice before it changes. Copies and pickles are plain dicts."""

    __slots__ = ("notice",)

    def __init__(self, entries: Mapping[str, Any], notice: Notice) -> None:
        super().__init__(entries)
        self.notice = notice

    def __reduce__(self) -> tuple[Any, ...]:
        return dict, (dict(self),)


class States(defaultdict[Any, Any]):
    """The state of an optimizer, by parameter, that gives notice likewise. Copies and pickles are plain as well."""

    __slots__ = ("notice",)

    def __init__(self, states: Mapping[Any, Any]) -> None:
        self.notice = Notice()
        super().__init__(dict, states)

    def __reduce__(self) -> tuple[Any, ...]:
        return defaultdict, (dict,), None, None, iter(self.items())

    def copy(self) -> Any:
        """A plain copy."""
        return defaultdict(dict, self)

    __copy__ = copy


def _giving_notice(name: str) -> Callable[..., Any]:
    change = getattr(dict, name)

    def method(self: Entries | States, *arguments: Any, **keywords: Any) -> Any:
        self.notice.changed = True
        return change(self, *arguments, **keywords)

    method.__name__, method.__doc__ = name, change.__doc__
    return method


for _name in ("__setitem__", "__delitem__", "__ior__", "clear", "pop", "popitem", "setdefault", "update"):
    for _kind in (Entries, States):
        setattr(_kind, _name, _giving_notice(_name))
