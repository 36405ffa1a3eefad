"""The whole run: every workload with its contenders, and results that are kept as they come."""

from __future__ import annotations

import time
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

from gpuopt import backends
from gpuopt.bench.contenders import Contender
from gpuopt.bench.contest import NOT_REACHED, give_back, hold
from gpuopt.bench.launches import count
from gpuopt.bench.meters import meter_for, waiting_for
from gpuopt.bench.order import Order, Watcher
from gpuopt.bench.problem import Problem
from gpuopt.bench.results import Results
from gpuopt.bench.timing import first_line
from gpuopt.bench.workloads import Workload
from gpuopt.machine import copy_rate, cores


def run(order: Order, results: Results, watcher: Watcher, clock: Callable[[], float] = time.perf_counter) -> None:
    """Fills ``results``, which are right and say what they lack, whenever this is interrupted."""
    begun = clock()
    waiting = list(order.workloads)
    compiling = order.code is not None
    try:
        _use_all_cores()
        watcher.begin("copy")
        results.copies[order.device] = copy_rate(order.device)
        meter = meter_for(order.device)
        absent = {contender.name: contender.absent() for contender in order.contenders}
        results.skipped += [(name, why) for name, why in absent.items() if why is not None]
        late = 0
        while waiting:
            workload = waiting.pop(0)
            if clock() - begun > order.budget:
                late += 1
                results.skipped.append((workload.key, f"the {order.budget:g} s of the budget had passed"))
                continue
            try:
                hold(workload, order, absent, meter, results, watcher)
            except Exception as error:  # noqa: BLE001 (whatever it is, the other workloads are to be had)
                results.broken.append(f"{workload.key}: {first_line(error)}")
            give_back(order.device)
            results.seconds = clock() - begun
            watcher.keep()
        if order.device == "cuda":
            _count_launches(order, results, watcher)
        if order.code is not None:
            watcher.begin("compile for GPUs that are not here")
            results.code = _section(order.code, results)
            compiling = False
        results.complete = not late
    finally:
        results.skipped += [(workload.key, NOT_REACHED) for workload in waiting]
        if compiling:
            results.skipped.append(("compiled code", NOT_REACHED))
        results.seconds = clock() - begun


def _count_launches(order: Order, results: Results, watcher: Watcher) -> None:
    """Counts launches on a GPU when all has been timed, since what a profiler leaves behind may slow launches down."""
    contenders = {contender.name: contender for contender in order.contenders}
    for contest in results.contests:
        for row in contest.rows:
            if row.median is not None:
                watcher.begin(f"{contest.workload.title}: launches of {row.contender}")
                try:
                    row.launches = _launches(contest.workload, order.device, contenders[row.contender])
                except Exception as error:  # noqa: BLE001 (its times are to be had all the same)
                    what = f"{contest.workload.key}: launches of {row.contender}"
                    results.skipped.append((what, first_line(error)))
                give_back(order.device)


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
        results.broken.append(f"the section on compiled code: {first_line(error)}")
        return None


def _use_all_cores() -> None:
    """Has PyTorch and Numba compute on as many threads as there are cores for this process."""
    if find_spec("torch") is not None:
        import torch

        torch.set_num_threads(cores())
    if backends.available()["numba"] is None:
        import numba

        numba.set_num_threads(min(cores(), numba.config.NUMBA_NUM_THREADS))
