"""What a chart of lines is made of; all places are percentages from its top left corner."""

from __future__ import annotations

from dataclasses import dataclass, field

from gpuopt.bench.html.looks import Look


@dataclass(frozen=True)
class Point:
    """A measured value, with the ends of its spread from ``low`` to ``high`` where it has one; ``text`` says it."""

    x: float
    y: float
    text: str
    spread: tuple[float, float] | None = None


@dataclass(frozen=True)
class Curve:
    """The points of one contender; ``marked`` are those that get a marker."""

    contender: str
    look: Look
    points: list[Point]
    marked: list[Point]


@dataclass(frozen=True)
class Tick:
    """A labelled line across the chart."""

    at: float
    text: str


@dataclass(frozen=True)
class Plot:
    """A chart.

    Attributes:
        title: What it shows.
        axis: What is along it, from left to right.
        curves: One per contender; gpuopt's come first, so that narrower ones that are equal show on top of them.
        across: Ticks from left to right.
        up: Ticks from bottom to top.
        label: The chart in a sentence, for those who do not see it.
        reference: A line to compare with; empty where there is none.
        reference_text: What that is.
    """

    title: str
    axis: str
    curves: list[Curve]
    across: list[Tick]
    up: list[Tick]
    label: str
    reference: list[tuple[float, float]] = field(default_factory=list)
    reference_text: str = ""
