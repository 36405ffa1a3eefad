"""The state of an optimizer, as dicts that note what others do to them, so that nobody has to look in every step."""

from __future__ import annotations

from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Self


def plain(entries: dict[str, Any]) -> dict[str, Any]:
    """A plain copy, for ourselves: nothing is noted."""
    return dict(dict.items(entries))


class Touched:
    """What others have done to the state of an optimizer since that was last looked at.

    Attributes:
        replaced: Whether the state of any parameter may be another dict.
        changed: The places of parameters whose entries may be others.
        news: Whether any entries were changed, or lent for the first time.
    """

    def __init__(self) -> None:
        self.replaced = self.news = False
        self.changed: set[int] = set()


class Entries(dict[str, Any]):
    """The state of one parameter, a dict that notes when it is read or changed, unless by methods of ``dict`` itself.

    Copies are plain dicts, and pickles are of what ``torch.load`` takes for safe.

    Attributes:
        index: The place of the parameter.
        touched: Where it is noted.
        is_lent: Whether others have got hold of tensors in it, so that they may put other memory under them at any
            time.
        made: Names that were in it when it was made.
        versions: Of the parameter, when its original last was known to belong to it; None for not known. Copies and
            pickles know none, so that whoever makes one has what was written to dropped before.
    """

    __slots__ = ("index", "is_lent", "made", "touched", "versions")

    def __init__(self, entries: Mapping[str, Any], index: int, touched: Touched, is_lent: bool = False) -> None:
        super().__init__(entries)
        self.index, self.touched, self.is_lent, self.made = index, touched, is_lent, frozenset(entries)
        self.versions: tuple[int, int] | None = None

    def entry(self, name: str) -> Any:
        """An entry, for ourselves; None where there is none."""
        return dict.get(self, name)

    def become(self, other: Self) -> Self:
        """This dict with the entries of ``other``, noting where that does; it lacks none of them at any time."""
        dict.update(self, plain(other))
        for name in set(self) - set(other):
            dict.__delitem__(self, name)
        self.index, self.touched, self.made, self.versions = other.index, other.touched, other.made, other.versions
        self.is_lent |= other.is_lent
        return self

    def __iter__(self) -> Iterator[str]:  # without it dict(entries) reads them unnoticed
        return super().__iter__()

    def __reduce__(self) -> tuple[Any, ...]:
        return OrderedDict, (), None, None, iter(dict.items(self))


class States(defaultdict[Any, Any]):
    """The state of an optimizer, by parameter, that notes when one is replaced. Copies and pickles are plain."""

    __slots__ = ("touched",)

    def __init__(self, states: Mapping[Any, Any]) -> None:
        self.touched = Touched()
        super().__init__(dict, states)

    def __reduce__(self) -> tuple[Any, ...]:
        return defaultdict, (dict,), None, None, iter(self.items())

    def copy(self) -> Any:
        """A plain copy."""
        return defaultdict(dict, self)

    __copy__ = copy


def _noting(kind: type, name: str, note: Callable[[Any], None]) -> None:
    """Has ``note`` called whenever the method ``name`` of ``kind`` is."""
    original = getattr(dict, name)

    def method(self: Any, *arguments: Any, **keywords: Any) -> Any:
        note(self)
        return original(self, *arguments, **keywords)

    method.__name__, method.__doc__ = name, original.__doc__
    setattr(kind, name, method)


def _lend(entries: Entries) -> None:
    if not entries.is_lent:
        entries.is_lent = entries.touched.news = True


def _change(entries: Entries) -> None:
    _lend(entries)  # what is put in is in the hands of who puts it in
    entries.touched.changed.add(entries.index)
    entries.touched.news = True


def _replace(states: States) -> None:
    states.touched.replaced = True


for _name in ("__setitem__", "__delitem__", "__ior__", "clear", "pop", "popitem", "setdefault", "update"):
    _noting(Entries, _name, _change)
    _noting(States, _name, _replace)
for _name in ("__getitem__", "__or__", "__ror__", "copy", "get", "items", "values"):
    _noting(Entries, _name, _lend)
Entries.__copy__ = Entries.copy  # type: ignore[attr-defined]
