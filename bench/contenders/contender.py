"""What a contender is: one way to take the steps of a workload."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from gpuopt.bench.problem import Deviation, Outcome, Problem
from gpuopt.bench.workloads import CLIP, Workload
from gpuopt.kernels.formats import FORMATS

Status = Literal["exact", "close", "wrong", "broken", "skipped"]

TOLERANCE = {"float32": 16.0, "bfloat16": 4.0}
"""Units in the last place of a parameter of magnitude 1 or more, by its dtype, that code with another order of
operations may differ by after the warm-up: per step a rounding of the parameter and a few of its small change."""


def nothing() -> None:
    """What needs no doing."""


@dataclass
class Entrant:
    """A contender that is set up.

    Attributes:
        step: Takes one step; on a GPU it may return before the step is done.
        outcome: The tensors as they are now, by what they are.
        prepare: Called before each step and never timed, such as to make the gradients that it is to find.
        driver: The driver's module, for gpuopt.
        by_operators: Whether the step is made of PyTorch's operators, which can be watched.
    """

    step: Callable[[], object]
    outcome: Callable[[], Outcome]
    prepare: Callable[[], object] = nothing
    driver: Any = None
    by_operators: bool = False


@dataclass(frozen=True)
class Contender:
    """One way to take the steps of workloads.

    Attributes:
        name: What tables call it.
        device: The memory that it works in, ``"cpu"`` or ``"cuda"``.
        set_up: Makes it ready for a problem. Libraries are imported here.
        absent: Why it cannot run on this machine, as a clause; None when it can.
        refuses: Why it does not take part in a workload, as a clause; None when it does.
        bits: Whether it must have the oracle's bits, wherever gradients are not clipped.
        coarse: Share of what the steps changed that it may be off by, as a root mean square, where its state is
            stored in fewer bits than the workload's; None for the tolerance of its format.
        slow: Whether setting it up takes too long for a quick run.
        guest: Whether it is only spoken of where it is installed.
        temporaries: Parameter-sized arrays that a step may make for all tensors together, at most, to see beforehand
            whether it fits into memory.
        note: What it computes, if that is not what the workload says.
    """

    name: str
    device: str
    set_up: Callable[[Problem], Entrant]
    absent: Callable[[], str | None] = field(default=lambda: None)
    refuses: Callable[[Workload], str | None] = field(default=lambda workload: None)
    bits: bool = False
    coarse: float | None = None
    slow: bool = False
    guest: bool = False
    temporaries: float = 0.0
    note: str | None = None

    def judge(self, workload: Workload, found: Deviation) -> tuple[Status, str | None]:
        """The verdict on an outcome, and why if it is wrong."""
        if found.exact:
            return "exact", None
        if self.bits and CLIP not in workload.tail:
            return "wrong", f"it has not the oracle's bits: {found.units:.3g} units in the last place off"
        if self.coarse is not None:
            if found.share <= self.coarse:
                return "close", None
            return "wrong", f"it is off by {found.share:.2g} of the change, where {self.coarse:g} is allowed"
        allowed = TOLERANCE[FORMATS[workload.formats.param].planes[0].dtype]
        if found.units <= allowed:
            return "close", None
        return "wrong", f"it is {found.units:.3g} units in the last place off, where {allowed:g} are allowed"
