"""Processes over gloo that stay, and run one function after another: to start them takes longer than most tests."""

from __future__ import annotations

import gc
import io
import traceback
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from torch import distributed, multiprocessing

PATIENCE = 100.0
"""Seconds that a collective may wait for others, which may be compiling for the first time beside other tests."""

LONGEST = 300.0
"""Seconds that a function may take."""


class FailedError(Exception):
    """What a process raised, when not all were expected to."""


class World:
    """Some processes of one group, the default one, which is told by its rank alone."""

    def __init__(self, size: int, folder: Path, patience: float = PATIENCE) -> None:
        self.size = size
        context = multiprocessing.get_context("spawn")
        pipes = [context.Pipe() for _ in range(size)]
        self._pipes = [here for here, _ in pipes]
        self._processes = [
            context.Process(target=_serve, args=(rank, size, str(folder / "store"), patience, there), daemon=True)
            for rank, (_, there) in enumerate(pipes)
        ]
        for process in self._processes:
            process.start()

    @property
    def is_alive(self) -> bool:
        return all(process.is_alive() for process in self._processes)

    def run(self, function: Callable[..., Any], *arguments: Any) -> list[Any]:
        """What ``function``, of a module, returns in each process; raises if one raises."""
        results = self.outcomes(function, *arguments)
        for rank, result in enumerate(results):
            if isinstance(result, FailedError):
                raise FailedError(f"process {rank}: {result}")
        return results

    def outcomes(self, function: Callable[..., Any], *arguments: Any) -> list[Any]:
        """As :meth:`run`, but with what a process raised in place of what it returns."""
        for pipe in self._pipes:
            pipe.send_bytes(_packed((function, arguments)))
        results = []
        for rank, pipe in enumerate(self._pipes):
            try:
                if not pipe.poll(LONGEST):
                    raise EOFError
                results.append(_unpacked(pipe.recv_bytes()))
            except (EOFError, OSError) as error:
                self.close()
                raise FailedError(f"process {rank} died or hung in {function.__name__}") from error
        return results

    def close(self) -> None:
        for process in self._processes:
            process.kill()
        for process in self._processes:
            process.join()


Worlds = Callable[[int], World]
"""The world of so many processes."""


def _serve(rank: int, size: int, store: str, patience: float, pipe: Any) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group(
        "gloo", init_method=f"file://{store}", rank=rank, world_size=size, timeout=timedelta(seconds=patience)
    )
    while True:
        try:
            function, arguments = _unpacked(pipe.recv_bytes())
        except EOFError:
            return
        try:
            result = function(*arguments)
        except Exception as error:  # noqa: BLE001 (told to the test)
            result = FailedError(f"{type(error).__name__}: {error}\n{traceback.format_exc()}")
        gc.collect()
        pipe.send_bytes(_packed(result))


def _packed(value: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


def _unpacked(data: bytes) -> Any:
    return torch.load(io.BytesIO(data), weights_only=False)
