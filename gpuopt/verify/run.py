"""Every comparison of some drivers, in several processes, since compilers take most of the time."""

from __future__ import annotations

import signal
from collections.abc import Iterator, Sequence
from concurrent.futures import BrokenExecutor, Future, ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from multiprocessing import get_context

from gpuopt.kernels.drivers import DRIVERS
from gpuopt.kernels.rules import RULES
from gpuopt.verify.cases import NEUTRAL, cases
from gpuopt.verify.proof import Fault, Outcome, prove
from gpuopt.verify.quick import fewest
from gpuopt.verify.variants import variants

ORACLE = "numpy"
"""The driver that the others are compared with."""


@dataclass(frozen=True)
class Task:
    """All comparisons of one variant on one driver.

    Attributes:
        driver: Its name.
        rule: The variant's rule.
        variant: Its index among :func:`~gpuopt.verify.variants.variants`, since its functions stay in their process.
        left_out: Names of the cases that are left out.
    """

    driver: str
    rule: str
    variant: int
    left_out: tuple[str, ...] = ()


def tasks(drivers: Sequence[str], quick: bool = False) -> list[Task]:
    """What is to be done, driver by driver and rule by rule.

    Quick is no variant more than cover all of :func:`~gpuopt.verify.quick.features`; and the case that has code of its
    own on some drivers, :data:`~gpuopt.verify.cases.NEUTRAL`, for the first of them alone.
    """
    every = variants()
    chosen = fewest(every) if quick else range(len(every))
    return [
        Task(driver, rule, index, (NEUTRAL,) if quick and index != chosen[0] else ())
        for driver in drivers
        for rule in RULES
        for index in chosen
        if every[index].rule.name == rule
    ]


def outcomes(todo: Sequence[Task], seed: int, jobs: int) -> Iterator[tuple[Task, Outcome]]:
    """What comes of each task, as it comes.

    Args:
        todo: The tasks.
        seed: Of all that is drawn.
        jobs: Processes; with 1 it is this one.
    """
    if jobs == 1:
        yield from ((task, perform(task, seed)) for task in todo)
        return
    # Not forked: this process may hold a CUDA context and threads, which do not survive that.
    pool = ProcessPoolExecutor(jobs, get_context("spawn"), _begin)
    try:
        futures: dict[Future[Outcome], Task] = {pool.submit(perform, task, seed): task for task in todo}
        for future in as_completed(futures):
            task = futures[future]
            try:
                yield task, future.result()
            except BrokenExecutor:
                problem = f"a process that ran {task.driver} died; --jobs 1 runs it in the one that you see"
                yield task, Outcome(fault=Fault(str(variants()[task.variant]), "unknown", problem=problem))
    finally:
        pool.shutdown(cancel_futures=True)


def perform(task: Task, seed: int) -> Outcome:
    """Does one task in this process."""
    variant = variants()[task.variant]
    chosen = [case for case in cases(variant, DRIVERS[task.driver].load().TILE) if case.name not in task.left_out]
    return prove(task.driver, variant, chosen, seed)


def _begin() -> None:
    """Lets Ctrl-C end this process at once and without a word: the one that waits for it has them."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
