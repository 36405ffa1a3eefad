"""What is measured of a contender in a process of its own: the memory that a step takes, and the first step's time."""

from __future__ import annotations

import ctypes
import gc
import multiprocessing
import os
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

from gpuopt.bench.contenders import Entrant, contenders
from gpuopt.bench.meters import waiting_for
from gpuopt.bench.problem import Problem
from gpuopt.bench.timing import first_line
from gpuopt.bench.workloads import Workload
from gpuopt.machine import cores

PATIENCE = 600.0
"""Seconds after which the process is stopped."""

GRACE = 10.0
"""Seconds that it has to end of itself once it has answered, or been told to."""

CACHES = ("NUMBA_CACHE_DIR", "TRITON_CACHE_DIR", "CUPY_CACHE_DIR", "TORCHINDUCTOR_CACHE_DIR")
"""Variables that name the folders of compiled code. Each process has new ones, so that it compiles anew."""

USUAL_STEPS = 3


class Alone(NamedTuple):
    """What was measured. None is what could not be.

    Attributes:
        extra_memory: Most bytes beyond what was there before it that a step, which is not the first, had allocated.
        compile: Seconds of the first step beyond a usual one.
        why: Why nothing was measured.
    """

    extra_memory: int | None = None
    compile: float | None = None
    why: str | None = None


def alone(workload: Workload, device: str, contender: str, patience: float = PATIENCE) -> Alone:
    """Measures a contender in a process that ends with it.

    The process is forked from a server that has imported PyTorch and nothing else has happened in.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch"])
    ours, theirs = context.Pipe(duplex=False)
    with tempfile.TemporaryDirectory() as caches:
        process = context.Process(target=_answer, args=(theirs, workload, device, contender, caches))
        process.start()
        theirs.close()
        try:
            if not ours.poll(patience):
                return Alone(why=f"it took longer than {patience:.0f} s")
            answer: Alone = ours.recv()
            process.join(GRACE)
            return answer
        except EOFError:
            process.join()
            return Alone(why=f"its process ended with {process.exitcode}")
        finally:
            process.terminate()
            process.join(GRACE)
            process.kill()
            process.join()


def _answer(to: Connection, workload: Workload, device: str, name: str, caches: str) -> None:
    # Ctrl-C is for who waits, who then terminates this process. It ends as others do, to clear up after itself.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    for variable in CACHES:
        os.environ[variable] = str(Path(caches) / variable)
        os.makedirs(os.environ[variable])
    os.environ["NUMBA_NUM_THREADS"] = str(cores())
    try:
        with suppress(ModuleNotFoundError):
            import torch

            torch.set_num_threads(cores())
        (contender,) = (each for each in contenders(device) if each.name == name)
        entrant = contender.set_up(Problem(workload, device))
        to.send(observe(entrant, waiting_for(device), peak_of(device, workload.front)))
    except Exception as error:  # noqa: BLE001 (it goes to who asked)
        to.send(Alone(why=first_line(error)))


def observe(
    entrant: Entrant,
    wait: Callable[[], object],
    peak: Callable[[Callable[[], object]], int | None],
    clock: Callable[[], float] = time.perf_counter,
) -> Alone:
    """Takes the first step, some usual ones, and one whose memory is watched.

    Args:
        entrant: Set up, and not stepped yet.
        wait: Returns when all steps are done.
        peak: Calls a function, waits, and returns the most bytes that it had allocated beyond those before.
        clock: Gives the time in seconds.
    """
    times = []
    for _ in range(1 + USUAL_STEPS):
        entrant.prepare()
        wait()
        before = clock()
        entrant.step()
        wait()
        times.append(clock() - before)
    entrant.prepare()
    return Alone(peak(entrant.step), max(times[0] - statistics.median(times[1:]), 0.0))


def peak_of(device: str, front: str) -> Callable[[Callable[[], object]], int | None]:
    """What watches the memory of a device, as :func:`observe` takes it."""
    if device == "cpu":
        return _on_host
    return _by_torch if front == "torch" else _by_cupy


def _on_host(step: Callable[[], object]) -> int | None:
    """By the most of the memory that was resident, which Linux lets a process begin anew."""
    gc.collect()
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
    try:
        Path("/proc/self/clear_refs").write_text("5")
        before = _resident()["VmRSS"]
    except (OSError, KeyError):
        step()
        return None
    step()
    return max(_resident()["VmHWM"] - before, 0)


def _resident() -> dict[str, int]:
    lines = Path("/proc/self/status").read_text().splitlines()
    return {
        name: 1024 * int(value.split()[0])
        for name, _, value in (line.partition(":") for line in lines)
        if name in ("VmHWM", "VmRSS")
    }


def _by_torch(step: Callable[[], object]) -> int:
    import torch

    cuda: Any = torch.cuda
    cuda.synchronize()
    cuda.reset_peak_memory_stats()
    before = cuda.memory_allocated()
    step()
    cuda.synchronize()
    return int(cuda.max_memory_allocated() - before)


def _by_cupy(step: Callable[[], object]) -> int:
    """By what its pool holds after the step, when it held nothing free before."""
    import cupy

    pool, stream = cupy.get_default_memory_pool(), cupy.cuda.get_current_stream()
    stream.synchronize()
    pool.free_all_blocks()
    before = pool.used_bytes()
    step()
    stream.synchronize()
    return int(pool.total_bytes() - before)
