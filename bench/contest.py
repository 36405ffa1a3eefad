"""One workload: its contenders are set up, checked, timed in turns, and measured alone."""

from __future__ import annotations

import gc
from collections.abc import Sequence
from importlib.util import find_spec

from gpuopt import backends
from gpuopt.bench import memory
from gpuopt.bench.contenders import Contender, Entrant
from gpuopt.bench.launches import count
from gpuopt.bench.meters import Meter, waiting_for
from gpuopt.bench.order import Order, Watcher
from gpuopt.bench.problem import Problem
from gpuopt.bench.results import BROKE, NOT_REACHED, TIMED, Contest, Results, Row
from gpuopt.bench.timing import Timing, first_line, measure
from gpuopt.bench.traffic import moved
from gpuopt.bench.workloads import Workload
from gpuopt.machine import OthersLoad


def hold(
    workload: Workload,
    order: Order,
    absent: dict[str, str | None],
    meter: Meter,
    results: Results,
    watcher: Watcher,
    seconds: float,
) -> None:
    """Sets up the contenders of a workload, checks them, and times those that are right, for ``seconds``."""
    contest = Contest(workload, order.device)
    present = []
    for contender in order.contenders:
        why = absent[contender.name]
        if why is None or not contender.guest:
            row = Row(contender.name, "skipped", why or contender.refuses(workload), contender.note, contender.guest)
            contest.rows.append(row)
            if row.why is None:
                present.append((contender, row))
    why = _impossible(workload, order.device, [contender for contender, _ in present])
    if why is not None:
        results.skipped.append((workload.key, why))
        return
    results.contests.append(contest)
    if not present:
        return
    why = NOT_REACHED
    try:
        _time(workload, order, present, meter, results, watcher, seconds)
    except Exception as error:
        why = BROKE + first_line(error)
        raise
    finally:
        for _, row in present:
            _explain(row, why)
    if order.scale.alone:
        give_back(order.device)
        for _, row in present:
            if row.step is not None:
                watcher.begin(f"{workload.title}: {row.contender} alone")
                found = order.alone(workload, order.device, row.contender)
                row.extra_memory, row.compile = found.extra_memory, found.compile
                if found.why is not None:
                    results.skipped.append((alone_of(workload, row), found.why))


def alone_of(workload: Workload, row: Row) -> str:
    """What is said to be missing of a row that was not measured alone."""
    return f"{workload.key}: memory and first step of {row.contender}"


def _time(
    workload: Workload,
    order: Order,
    present: Sequence[tuple[Contender, Row]],
    meter: Meter,
    results: Results,
    watcher: Watcher,
    seconds: float,
) -> None:
    entrants = _set_up(workload, order.device, present, watcher)
    watcher.begin(f"{workload.title}: time")
    load = OthersLoad()
    try:
        measure(
            entrants,
            meter,
            workload.turns,
            steps_per_turn=workload.steps_per_turn,
            seconds=seconds,
        )
    finally:
        results.loads.append(load.share())


def _explain(row: Row, otherwise: str) -> None:
    """Says of a row without times why it has none; ``otherwise``, unless it is known."""
    if row.timing.problem is not None:
        row.status, row.why = "broken", row.timing.problem
    elif not row.timing.step and row.why is None:
        discarded = row.timing.discarded
        row.why = f"the GPU was held back in all of its {discarded} samples" if discarded else otherwise


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
            if device == "cpu":
                row.launches, row.moved = count(entrant, device), moved(problem.workload, entrant)
            return entrant
    except Exception as error:  # noqa: BLE001 (whatever it is, the others are to be timed)
        ran_out = isinstance(error, MemoryError) or "OutOfMemory" in type(error).__name__
        row.status, row.why = "skipped" if ran_out else "broken", first_line(error)
        problem.restore()
    return None


def give_back(device: str) -> None:
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
