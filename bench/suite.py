"""The whole run: every workload with its contenders, and results that are kept as they come."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from math import inf
from typing import Any

from gpuopt import backends
from gpuopt.bench import memory
from gpuopt.bench.alone import Alone, alone
from gpuopt.bench.contenders import Contender, Entrant
from gpuopt.bench.contenders.contender import nothing
from gpuopt.bench.launches import count
from gpuopt.bench.meters import Meter, meter_for, waiting_for
from gpuopt.bench.problem import Problem
from gpuopt.bench.results import TIMED, Contest, Results, Row
from gpuopt.bench.timing import Timing, first_line, measure
from gpuopt.bench.workloads import Workload
from gpuopt.machine import OthersLoad, copy_rate, cores


@dataclass(frozen=True)
class Scale:
    """How much is done of each workload.

    Attributes:
        name: ``"full"`` or ``"quick"``.
        seconds: No round of turns but the first few begins later than this.
        alone: Whether memory and first steps are measured, in processes of their own.
    """

    name: str
    seconds: float
    alone: bool


FULL = Scale("full", seconds=12.0, alone=True)
QUICK = Scale("quick", seconds=5.0, alone=False)


NOT_REACHED = "the run ended before"


@dataclass(frozen=True)
class Watcher:
    """Who is told how the run goes on.

    Attributes:
        begin: Gets what is done now.
        show: Gets the contest that goes on now, whose rows change from then on.
        advance: Called when something has changed.
        keep: Called when a workload is done, for results that outlive the process.
    """

    begin: Callable[[str], object] = lambda what: None
    show: Callable[[Contest], object] = lambda contest: None
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
        budget: Seconds after which no further workload is begun.
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


def run(order: Order, results: Results, watcher: Watcher, clock: Callable[[], float] = time.perf_counter) -> None:
    """Fills ``results``, which are right, if not complete, whenever this is interrupted."""
    begun = clock()
    try:
        _use_all_cores()
        watcher.begin("copy")
        results.copies[order.device] = copy_rate(order.device)
        meter = meter_for(order.device)
        absent = {contender.name: contender.absent() for contender in order.contenders}
        results.skipped += [(name, why) for name, why in absent.items() if why is not None]
        late = 0
        for workload in order.workloads:
            if clock() - begun > order.budget:
                late += 1
                results.skipped.append((workload.key, f"the {order.budget:g} s of the budget had passed"))
                continue
            try:
                _contest(workload, order, absent, meter, results, watcher)
            except Exception as error:  # noqa: BLE001 (whatever it is, the other workloads are to be had)
                results.broken.append(f"{workload.key}: {first_line(error)}")
            _give_back(order.device)
            results.seconds = clock() - begun
            watcher.keep()
        if order.code is not None:
            watcher.begin("compile for GPUs that are not here")
            results.code = _section(order.code, results)
        results.complete = not late
    finally:
        results.seconds = clock() - begun


def _contest(
    workload: Workload,
    order: Order,
    absent: dict[str, str | None],
    meter: Meter,
    results: Results,
    watcher: Watcher,
) -> None:
    """Sets up the contenders of a workload, checks them, and times those that are right."""
    contest = Contest(workload, order.device)
    present = []
    for contender in order.contenders:
        why = absent[contender.name]
        if why is None or not contender.guest:
            why = why or contender.refuses(workload)
            row = Row(contender.name, "skipped", why or NOT_REACHED, contender.note, contender.guest)
            contest.rows.append(row)
            if why is None:
                present.append((contender, row))
    why = _impossible(workload, order.device, [contender for contender, _ in present])
    if why is not None:
        results.skipped.append((workload.key, why))
        return
    results.contests.append(contest)
    watcher.show(contest)
    if not present:
        return
    entrants = _set_up(workload, order.device, present, watcher)
    watcher.begin(f"{workload.title}: time")
    load = OthersLoad()
    try:
        measure(
            entrants,
            meter,
            workload.turns,
            steps_per_turn=workload.steps_per_turn,
            seconds=order.scale.seconds,
            advance=watcher.advance,
        )
    finally:
        results.loads.append(load.share())
        for _, row in present:
            if row.timing.problem is not None:
                row.status, row.why = "broken", row.timing.problem
    entrants.clear()
    if order.scale.alone:
        _give_back(order.device)
        for _, row in present:
            if row.status in TIMED:
                watcher.begin(f"{workload.title}: {row.contender} alone")
                found = order.alone(workload, order.device, row.contender)
                row.extra_memory, row.compile = found.extra_memory, found.compile
                if found.why is not None:
                    results.skipped.append((f"{workload.key}: memory and first step of {row.contender}", found.why))


def _impossible(workload: Workload, device: str, present: Sequence[Contender]) -> str | None:
    """Why nothing of a workload can be done: its arrays cannot be made, or not one contender fits into memory."""
    if workload.front == "arrays" and device == "cuda" and backends.available()["cupy"] is not None:
        return backends.available()["cupy"]
    left = memory.available(device)
    least = min((memory.needed_bytes(workload, contender) for contender in present), default=0)
    least += memory.shared_bytes(workload)
    if left is None or least <= left:
        return None
    return f"it needs {_gb(least)} at least, and {_gb(left)} can be had"


def _set_up(
    workload: Workload, device: str, present: Sequence[tuple[Contender, Row]], watcher: Watcher
) -> list[tuple[Entrant, Timing]]:
    """Those that fit into memory and are right, warmed up; fills the rows of the others."""
    left = memory.available(device)
    problem = Problem(workload, device)
    expected = problem.expected()
    left = None if left is None else left - memory.shared_bytes(workload)
    entrants = []
    for contender, row in present:
        needed = memory.needed_bytes(workload, contender)
        if left is not None and needed > left:
            row.why = f"it needs {_gb(needed)}, and {_gb(left)} can be had beside the others"
            continue
        watcher.begin(f"{workload.title}: {contender.name}")
        entrant = _entrant(contender, row, problem, expected, device)
        if entrant is not None:
            entrants.append((entrant, row.timing))
            left = None if left is None else left - needed
        watcher.advance()
    return entrants


def _entrant(
    contender: Contender, row: Row, problem: Problem, expected: dict[str, object], device: str
) -> Entrant | None:
    """The contender warmed up, if it is right; fills its row."""
    wait = waiting_for(device)
    try:
        entrant = contender.set_up(problem)
        for _ in problem.warm_ups():
            entrant.prepare()
            entrant.step()
        wait()
        row.status, row.why = contender.judge(problem.workload, problem.deviation(entrant.outcome(), expected))
        problem.restore()
        if row.status in TIMED:
            row.launches = count(entrant, device)
            return entrant
    except Exception as error:  # noqa: BLE001 (whatever it is, the others are to be timed)
        ran_out = isinstance(error, MemoryError) or "OutOfMemory" in type(error).__name__
        row.status, row.why = "skipped" if ran_out else "broken", first_line(error)
        problem.restore()
    return None


def _section(code: Callable[[], dict[str, Any]], results: Results) -> dict[str, Any] | None:
    """The section on compiled code; None if it broke."""
    try:
        return code()
    except Exception as error:  # noqa: BLE001 (what was timed is to be had all the same)
        results.broken.append(f"the section on compiled code: {first_line(error)}")
        return None


def _use_all_cores() -> None:
    """Has PyTorch compute on as many threads as there are cores, as Numba does of itself."""
    if find_spec("torch") is not None:
        import torch

        torch.set_num_threads(cores())


def _give_back(device: str) -> None:
    """Hands the memory of what is gone back, which pools keep."""
    gc.collect()
    if device == "cuda":
        import torch

        torch.cuda.empty_cache()
        if find_spec("cupy") is not None:
            import cupy

            cupy.get_default_memory_pool().free_all_blocks()


def _gb(size: int) -> str:
    return f"{size / 1e9:.1f} GB"
