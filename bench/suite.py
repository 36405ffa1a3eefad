"""The whole run: every workload with its contenders, and results that are kept as they come."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import partial
from importlib.util import find_spec
from typing import Any

from gpuopt import backends
from gpuopt.bench import contest
from gpuopt.bench.contenders import Contender
from gpuopt.bench.launches import count
from gpuopt.bench.meters import meter_for, waiting_for
from gpuopt.bench.order import Order, Watcher
from gpuopt.bench.problem import Problem
from gpuopt.bench.results import BUDGET_SPENT, NOT_REACHED, Results, Row
from gpuopt.bench.timing import first_line
from gpuopt.bench.workloads import Workload
from gpuopt.machine import copy_rate, cores

CODE = "the section on compiled code"

LAUNCHES = 0.25
"""Share of the budget that counting launches may take beyond it."""


def run(order: Order, results: Results, watcher: Watcher, clock: Callable[[], float] = time.perf_counter) -> None:
    """Fills ``results``, which are right and say what they lack, whenever this is interrupted."""
    begun = clock()

    def is_late(more: float = 0.0) -> bool:
        return clock() - begun > (1 + more) * order.budget

    def keep() -> None:
        results.seconds = clock() - begun
        watcher.keep()

    try:
        _use_all_cores()
        watcher.begin("copy")
        results.copies[order.device] = copy_rate(order.device)
        contest.give_back(order.device)
        meter = meter_for(order.device)
        absent = {contender.name: contender.absent() for contender in order.contenders}
        results.skipped += [(name, why) for name, why in absent.items() if why is not None]
        workloads_begun = clock()
        for left, workload in zip(range(len(order.workloads), 0, -1), order.workloads, strict=True):
            if is_late():
                results.skipped.append((workload.key, BUDGET_SPENT))
                continue
            try:
                try:
                    seconds = order.seconds(clock() - workloads_begun, left)
                    contest.hold(workload, order, absent, meter, results, watcher, seconds)
                finally:
                    contest.give_back(order.device)
            except Exception as error:  # noqa: BLE001 (whatever it is, the other workloads are to be had)
                results.broken.append(f"{workload.key}: {first_line(error)}")
            watcher.advance()
            keep()
        if order.device == "cuda":
            _count_launches(order, results, watcher, partial(is_late, LAUNCHES), keep)
        if order.code is not None:
            watcher.begin("compile for GPUs that are not here")
            results.code = _section(order.code, results)
        results.complete = BUDGET_SPENT not in (why for _, why in results.skipped)
    finally:
        results.skipped += [(what, NOT_REACHED) for what in list(_missing(order, results))]
        results.seconds = clock() - begun


def _missing(order: Order, results: Results) -> Iterator[str]:
    """What was asked for and is not there, and nothing says yet why."""
    explained = {what for what, _ in results.skipped} | {fault.partition(": ")[0] for fault in results.broken}
    held = {each.workload.key for each in results.contests}
    yield from (workload.key for workload in order.workloads if workload.key not in held | explained)
    for each in results.contests:
        if each.workload.key in explained:
            continue
        for row in each.rows:
            lacks = {
                contest.alone_of(each.workload, row): order.scale.alone and row.compile is None,
                _launches_of(each.workload, row): order.device == "cuda" and row.launches is None,
            }
            yield from (what for what, lacking in lacks.items() if lacking and row.step and what not in explained)
    if order.code is not None and results.code is None and CODE not in explained:
        yield CODE


def _count_launches(
    order: Order,
    results: Results,
    watcher: Watcher,
    is_late: Callable[[], bool],
    keep: Callable[[], object],
) -> None:
    """Counts launches on a GPU when all has been timed, since what a profiler leaves behind may slow launches down."""
    contenders = {contender.name: contender for contender in order.contenders}
    for each in results.contests:
        for row in each.rows:
            if row.step is None:
                continue
            why = BUDGET_SPENT
            if not is_late():
                watcher.begin(f"{each.workload.title}: launches of {row.contender}")
                try:
                    row.launches = _launches(each.workload, order.device, contenders[row.contender])
                    contest.give_back(order.device)
                    why = "the profiler saw none"
                except Exception as error:  # noqa: BLE001 (its times are to be had all the same)
                    why = first_line(error)
            if row.launches is None:
                results.skipped.append((_launches_of(each.workload, row), why))
    keep()


def _launches_of(workload: Workload, row: Row) -> str:
    return f"{workload.key}: launches of {row.contender}"


def _launches(workload: Workload, device: str, contender: Contender) -> int | None:
    entrant = contender.set_up(Problem(workload, device))
    entrant.prepare()
    entrant.step()
    waiting_for(device)()
    return count(entrant, device)


def _section(code: Callable[[], dict[str, Any]], results: Results) -> dict[str, Any] | None:
    """The section on compiled code; None if it broke."""
    try:
        return code()
    except Exception as error:  # noqa: BLE001 (what was timed is to be had all the same)
        results.broken.append(f"{CODE}: {first_line(error)}")
        return None


def _use_all_cores() -> None:
    """Has PyTorch and Numba compute on as many threads as there are cores for this process."""
    if find_spec("torch") is not None:
        import torch

        torch.set_num_threads(cores())
    if backends.available()["numba"] is None:
        import numba

        numba.set_num_threads(min(cores(), numba.config.NUMBA_NUM_THREADS))
