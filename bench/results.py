"""What a run of the benchmark finds, as data and as JSON: see ``bench/SCHEMA.md``."""

from __future__ import annotations

from dataclasses import dataclass, field
from statistics import fmean
from typing import Any

from gpuopt.bench.contenders.contender import Status
from gpuopt.bench.timing import Timing
from gpuopt.bench.workloads import Workload
from gpuopt.machine import Copy, Machine, Spread, spread

SCHEMA = 2
"""Version of the JSON's layout; counts up whenever a reader would have to change."""

TIMED = ("exact", "close")

NOT_REACHED, BUDGET_SPENT = "the run ended before", "the budget was spent"
"""Why something is missing of a run that was cut short."""

BROKE = "the workload broke: "
"""What the reason begins with where a row is missing because the whole workload broke."""

MOST = 0.9
"""Share of the steps that must have a time on the GPU, for the rest would be missing for a reason."""


@dataclass
class Row:
    """One contender on one workload.

    Attributes:
        contender: Its name.
        status: The verdict on its numbers.
        why: Why there are no times; None where there are.
        note: What it computes, if that is not what the workload says.
        is_guest: Whether it is of another library, whose faults are told of but are none of this package.
        timing: What was seen of it.
        launches: Per step, without copies and fills; None where they are not counted.
        moved: Bytes that a step reads and writes, were there no caches; None where they are not counted.
        extra_memory: Bytes; None where it was not measured.
        compile: Seconds; None where it was not measured.
    """

    contender: str
    status: Status
    why: str | None = None
    note: str | None = None
    is_guest: bool = False
    timing: Timing = field(default_factory=Timing)
    launches: int | None = None
    moved: int | None = None
    extra_memory: int | None = None
    compile: float | None = None

    @property
    def step(self) -> Spread | None:
        """Of the times as the host sees them; None where there are none."""
        return spread(self.timing.step) if self.timing.step and self.status in TIMED else None

    @property
    def device(self) -> Spread | None:
        """Of the times on the GPU; None where fewer than ``MOST`` of the steps have one."""
        return spread(self.timing.device) if self.has_device_times and self.status in TIMED else None

    @property
    def times(self) -> Spread | None:
        """Those that count: on the GPU where it has them, else as the host sees them."""
        return self.device or self.step

    @property
    def call(self) -> Spread | None:
        """Of the times until a call returns, on a GPU that is busy; None where there are none."""
        return spread(self.timing.call) if self.timing.call and self.status in TIMED else None

    @property
    def has_device_times(self) -> bool:
        """Whether enough of the steps have a time on the GPU."""
        return len(self.timing.device) >= MOST * max(len(self.timing.step), 1)


@dataclass
class Contest:
    """A workload and its rows."""

    workload: Workload
    device: str
    rows: list[Row] = field(default_factory=list)


@dataclass
class Results:
    """What has been found so far.

    Attributes:
        scale: ``"full"`` or ``"quick"``.
        command: The command line.
        machine: What it ran on.
        drivers: For each driver None if it can run here, else why it cannot.
        copies: The rate of copies, by device.
        contests: Workloads with their rows.
        goals: What the rows say about goals, as JSON holds it.
        skipped: What was not measured, and why.
        code: What is computed from compiled code; None where it was not asked for.
        loads: While each workload was timed, the share of all cores' time that other processes took; None where it is
            not known.
        broken: Sentences about parts that broke.
        complete: Whether it came to its end.
        seconds: How long it took.
    """

    scale: str
    command: list[str]
    machine: Machine
    drivers: dict[str, str | None]
    copies: dict[str, Copy] = field(default_factory=dict)
    contests: list[Contest] = field(default_factory=list)
    goals: list[dict[str, Any]] = field(default_factory=list)
    skipped: list[tuple[str, str]] = field(default_factory=list)
    code: dict[str, Any] | None = None
    loads: list[float | None] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)
    complete: bool = False
    seconds: float = 0.0

    def faults(self, of_guests: bool = True) -> list[str]:
        """What is wrong, a sentence each: contenders that are wrong or broken, and parts that broke.

        Args:
            of_guests: Whether contenders of other libraries count.
        """
        return [
            f"{contest.workload.key}: {row.contender} is {row.status}: {row.why}"
            for contest in self.contests
            for row in contest.rows
            if row.status in ("wrong", "broken") and (of_guests or not row.is_guest)
        ] + self.broken

    @property
    def others_load(self) -> float | None:
        """The mean of ``loads``; None where none is known."""
        known = [load for load in self.loads if load is not None]
        return fmean(known) if known else None

    def as_dict(self) -> dict[str, Any]:
        """All of it, as JSON holds it."""
        return {
            "schema": SCHEMA,
            "scale": self.scale,
            "complete": self.complete,
            "seconds": round(self.seconds, 1),
            "command": self.command,
            "machine": {**self.machine, "others_load": self.others_load},
            "drivers": self.drivers,
            "copy": self.copies,
            "workloads": [_contest(contest, self.copies.get(contest.device)) for contest in self.contests],
            "goals": self.goals,
            "skipped": [{"what": what, "why": why} for what, why in self.skipped],
            "faults": self.faults(),
            "code": self.code,
        }


def _contest(contest: Contest, copy: Copy | None) -> dict[str, Any]:
    workload = contest.workload
    return {
        "key": workload.key,
        "title": workload.title,
        "group": workload.group,
        "device": contest.device,
        "front": workload.front,
        "optimizer": workload.optimizer.name,
        "shapes": workload.shapes.name,
        "tensors": len(workload.shapes.shapes),
        "numel": workload.shapes.numel,
        "formats": workload.formats._asdict(),
        "tail": list(workload.tail),
        "stored": workload.stored,
        "bytes": workload.bytes,
        "rows": [_row(row, workload.bytes, copy) for row in contest.rows],
    }


def _conditions(timing: Timing) -> dict[str, Spread | None] | None:
    """Clocks and power of the GPU around the samples; None for a CPU."""
    if not timing.conditions:
        return None
    found: dict[str, Spread | None] = {}
    for what in ("sm_mhz", "memory_mhz", "power_w"):
        told = [value for condition in timing.conditions if (value := getattr(condition, what)) is not None]
        found[what] = spread(told) if told else None
    return found


def _row(row: Row, moved: int, copy: Copy | None) -> dict[str, Any]:
    rate = None if row.times is None else moved / row.times["median"] / 1e9
    return {
        "contender": row.contender,
        "status": row.status,
        "why": row.why,
        "note": row.note,
        "step": row.step,
        "device": row.device,
        "call": row.call,
        "discarded": row.timing.discarded or (None if row.timing.unwatched else 0),
        "not_queued": row.timing.not_queued,
        "gpu": _conditions(row.timing),
        "launches": row.launches,
        "moved": row.moved,
        "gb_per_s": rate,
        "copy_share": None if rate is None or copy is None else rate / copy["gb_per_s"],
        "extra_memory": row.extra_memory,
        "compile": row.compile,
    }
