"""What is asked of a run, and who is told how it goes on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import inf
from typing import Any

from gpuopt.bench.alone import Alone, alone
from gpuopt.bench.contenders import Contender
from gpuopt.bench.contenders.contender import nothing
from gpuopt.bench.workloads import Workload


@dataclass(frozen=True)
class Scale:
    """How much is done of each workload.

    Attributes:
        name: ``"full"`` or ``"quick"``.
        seconds: No round of turns but the first few begins later than this.
        each: Seconds that a workload takes on a CPU, with all that is done besides.
        alone: Whether memory and first steps are measured, in processes of their own.
    """

    name: str
    seconds: float
    each: float
    alone: bool


FULL = Scale("full", seconds=12.0, each=33.0, alone=True)
QUICK = Scale("quick", seconds=5.0, each=10.0, alone=False)


LEAST = 1.0
"""Fewer seconds for the turns of a workload say too little."""


@dataclass(frozen=True)
class Watcher:
    """Who is told how the run goes on.

    Attributes:
        begin: Gets what is done now.
        advance: Called when a workload is done.
        keep: Called when a workload is done, for results that outlive the process.
    """

    begin: Callable[[str], object] = lambda what: None
    advance: Callable[[], object] = nothing
    keep: Callable[[], object] = nothing


@dataclass(frozen=True)
class Order:
    """What is asked for.

    Attributes:
        device: ``"cpu"`` or ``"cuda"``.
        scale: How much of each workload.
        workloads: What on.
        contenders: Who.
        budget: Seconds after which no further workload is begun. On a GPU launches are counted after it, for a quarter
            of it at most.
        alone: Measures a contender in a process of its own.
        code: Makes the section on compiled code; None for none.
    """

    device: str
    scale: Scale
    workloads: Sequence[Workload]
    contenders: Sequence[Contender]
    budget: float = inf
    alone: Callable[[Workload, str, str], Alone] = field(default=alone)
    code: Callable[[], dict[str, Any]] | None = None

    @property
    def expected(self) -> float | None:
        """Seconds that the workloads take together; None on a GPU, of which nothing is known beforehand."""
        return min(self.budget, self.scale.each * len(self.workloads)) if self.device == "cpu" else None

    def seconds(self, spent: float, left: int) -> float:
        """Seconds for the turns of the next workload: fewer where the others took longer than they were to.

        Args:
            spent: Seconds since the first workload began.
            left: Workloads that have not been held.
        """
        if self.expected is None:
            return self.scale.seconds
        return min(self.scale.seconds, max(LEAST, (self.expected - spent) / left / 2))
