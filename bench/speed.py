"""The workloads that contenders are timed on, against each other and in one run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec

from gpuopt import arrays
from gpuopt.bench import contenders
from gpuopt.bench.machine import cores
from gpuopt.bench.timing import Timing, measure


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
    """

    key: str
    optimizer: str
    tensors: int
    numel: int
    rounds: int
    seconds: float = 12.0
    rest: float = 0.015

    @property
    def title(self) -> str:
        """What tables call it."""
        if self.tensors == 1:
            return f"{self.optimizer}, {self.numel:,} float32 elements"
        return f"{self.optimizer}, {self.tensors:,} tensors of {self.numel:,} float32 elements"

    @property
    def least_bytes(self) -> int:
        """Bytes that any code must move in a step: it reads every slot, and writes all but the gradient."""
        slots = 2 + len(getattr(arrays, self.optimizer).rule.required)
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
    made = contenders.contenders(job, begun, lambda name: begin(f"{workload.title}: set up {name}"))
    begin(f"{workload.title}: time")
    return measure(made, workload.rounds, rest=workload.rest, seconds=workload.seconds, advance=advance)
