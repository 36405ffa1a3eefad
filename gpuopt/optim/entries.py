"""State that tells when something in it is replaced, so that nobody has to look at all of it in every step."""

from __future__ import annotations

from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterable, Mapping
from copy import deepcopy
from typing import Any


class Notice:
    """Whether any of the dicts that share this may have been changed."""

    changed = False


class Entries(dict[str, Any]):
    """The state of one parameter, a dict that gives notice before it changes, unless by methods of ``dict`` itself.

    Copies are plain dicts, and pickles are of what ``torch.load`` takes for safe.
    """

    __slots__ = ("notice",)

    def __init__(
        self, entries: Mapping[str, Any] | Iterable[tuple[str, Any]] = (), notice: Notice | None = None
    ) -> None:
        super().__init__(entries)
        self.notice = notice or Notice()

    def __reduce__(self) -> tuple[Any, ...]:
        return OrderedDict, (), None, None, iter(self.items())

    def __deepcopy__(self, memo: dict[int, Any]) -> dict[str, Any]:
        return deepcopy(dict(self), memo)

    def copy(self) -> dict[str, Any]:
        """A plain copy."""
        return dict(self)

    __copy__ = copy


class States(defaultdict[Any, Any]):
    """The state of an optimizer, by parameter, that gives notice likewise. Copies and pickles are plain."""

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
