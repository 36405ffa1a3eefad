"""The workloads that contenders are timed on, against each other and in one run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from typing import NamedTuple

from gpuopt import arrays
from gpuopt.bench import contenders, torch_contenders
from gpuopt.bench.contenders import Job, Start
from gpuopt.bench.timing import Contender, Timing, measure
from gpuopt.machine import cores


class Contest(NamedTuple):
    """How an optimizer is stepped.

    Attributes:
        title: What tables call it, with the optimizer's name to be filled in.
        contenders: Sets up the contenders.
        averages: Number of averages of the parameters that a step keeps.
    """

    title: str
    contenders: Callable[[Job, Start, Callable[[str], None]], list[Contender]]
    averages: int = 0


CONTESTS = {
    "update": Contest("{}", contenders.contenders),
    "step": Contest("{} for PyTorch", torch_contenders.steps),
    "tail": Contest("unscale, clip, {} and EMA for PyTorch", torch_contenders.tails, averages=1),
}


@dataclass(frozen=True)
class Workload:
    """One optimizer on one list of float32 tensors.

    Attributes:
        key: What goals call it.
        optimizer: Key of :data:`gpuopt.bench.contenders.JOBS`.
        tensors: Number of tensors.
        numel: Elements of each.
        rounds: Turns of each contender.
        seconds: Time for the rounds, see :func:`gpuopt.bench.timing.measure`.
        rest: Seconds before each turn.
        contest: Key of :data:`CONTESTS`.
    """

    key: str
    optimizer: str
    tensors: int
    numel: int
    rounds: int
    seconds: float = 12.0
    rest: float = 0.015
    contest: str = "update"

    @property
    def title(self) -> str:
        """What tables call it."""
        what = CONTESTS[self.contest].title.format(self.optimizer)
        if self.tensors == 1:
            return f"{what}, {self.numel:,} float32 elements"
        return f"{what}, {self.tensors:,} tensors of {self.numel:,} float32 elements"

    @property
    def least_bytes(self) -> int:
        """Bytes that any code must move in a step: it reads every slot, and writes all but the gradient."""
        slots = 2 + len(getattr(arrays, self.optimizer).rule.required) + CONTESTS[self.contest].averages
        return (2 * slots - 1) * 4 * self.tensors * self.numel


def use_all_cores() -> None:
    """Has PyTorch compute on as many threads as there are cores, as Numba does of itself."""
    if find_spec("torch") is not None:
        import torch

        torch.set_num_threads(cores())


def run(workload: Workload, begin: Callable[[str], None], advance: Callable[[], None]) -> list[Timing]:
    """Sets up all contenders and times them.

    Args:
        workload: What on.
        begin: Told what is done now.
        advance: Called after each round.
    """
    use_all_cores()
    job = contenders.JOBS[workload.optimizer]
    begun = contenders.start(job, [workload.numel] * workload.tensors)
    made = CONTESTS[workload.contest].contenders(job, begun, lambda name: begin(f"{workload.title}: set up {name}"))
    begin(f"{workload.title}: time")
    return measure(made, workload.rounds, rest=workload.rest, seconds=workload.seconds, advance=advance)
