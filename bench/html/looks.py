"""How each contender looks in every chart of a report."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

OURS = "gpuopt "
"""What the names of gpuopt's contenders begin with."""

OUR_COLOURS = ("blue", "sky")
THEIR_COLOURS = ("vermilion", "green", "purple", "orange", "grey")
"""Classes of ``style.css``: Okabe and Ito's palette, without the yellow that hardly shows on paper."""

MARKERS = (
    "M-4 0a4 4 0 1 0 8 0a4 4 0 1 0-8 0z",
    "M-3.5-3.5h7v7h-7z",
    "M0-4.6L4.4 3.4h-8.8z",
    "M0-5L5 0L0 5L-5 0z",
    "M0 4.6L4.4-3.4h-8.8z",
    "M-1.4-4.4h2.8v3h3v2.8h-3v3h-2.8v-3h-3v-2.8h3z",
    "M0-5L3.2 4h-6.4z",
)
"""Paths around the origin: circle, square, triangle, diamond, triangle upside down, cross, spike."""

DASHES = ("", "7 3", "2 3")


@dataclass(frozen=True)
class Look:
    """A contender is told apart by each of these, so never by colour alone.

    Attributes:
        colour: A class of the style sheet.
        marker: The path of its points.
        dashes: Of its line.
        ours: Whether it is gpuopt's, whose lines are wider.
    """

    colour: str
    marker: str
    dashes: str
    ours: bool


def looks(names: Iterable[str]) -> dict[str, Look]:
    """A look for each name, in their order; blues are for gpuopt alone."""
    found = list(dict.fromkeys(names))
    ours = [name for name in found if name.startswith(OURS)]
    theirs = [name for name in found if not name.startswith(OURS)]
    return {
        **{name: _look(index, OUR_COLOURS, index, ours=True) for index, name in enumerate(ours)},
        **{name: _look(index, THEIR_COLOURS, index + len(ours), ours=False) for index, name in enumerate(theirs)},
    }


def _look(index: int, colours: tuple[str, ...], marker: int, ours: bool) -> Look:
    turn = index // len(colours)
    return Look(colours[index % len(colours)], MARKERS[marker % len(MARKERS)], DASHES[turn % len(DASHES)], ours)
