"""How many launches a step makes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from gpuopt.bench.contenders.contender import Entrant
from gpuopt.kernels.table import Table

CALLS = ("step", "sum_squares")
"""Functions of a driver that are one launch each, or on a CPU one pass."""


def count(entrant: Entrant, device: str) -> int | None:
    """Kernels that one step launches on a GPU, or calls of gpuopt's driver on a CPU; None where neither is seen."""
    entrant.prepare()
    if device == "cuda":
        return _kernels(entrant)
    if entrant.driver is None:
        return None
    with counted(entrant.driver) as calls:
        entrant.step()
    return len(calls)


@contextmanager
def counted(driver: Any) -> Iterator[list[tuple[str, Table]]]:
    """Which of ``CALLS`` are made in this context, and on what."""
    calls: list[tuple[str, Table]] = []
    originals = {name: getattr(driver, name) for name in CALLS}

    def noting(name: str) -> Any:
        def call(table: Table, *arguments: Any, **keywords: Any) -> Any:
            calls.append((name, table))
            return originals[name](table, *arguments, **keywords)

        return call

    try:
        for name in CALLS:
            setattr(driver, name, noting(name))
        yield calls
    finally:
        for name, original in originals.items():
            setattr(driver, name, original)


def _kernels(entrant: Entrant) -> int | None:
    _profiled(_one_kernel)  # the first profile of a process may miss what runs
    kernels, copies = _profiled(entrant.step)
    return len(kernels) if kernels or copies else None


def _one_kernel() -> None:
    import torch

    torch.ones(1, device="cuda")


def _profiled(run: Callable[[], object]) -> tuple[list[str], list[str]]:
    import torch
    from torch.profiler import ProfilerActivity, profile

    torch.cuda.synchronize()
    with profile(activities=[ProfilerActivity.CUDA]) as profiler:
        run()
        torch.cuda.synchronize()
    return on_device(profiler.events() or ())


def on_device(events: Iterable[Any]) -> tuple[list[str], list[str]]:
    """Names of the kernels, and of the copies and fills, among what PyTorch's profiler saw.

    PyTorch puts a mark around the step of an optimizer, which looks like one more.
    """
    names = [event.name for event in events if event.device_type.name == "CUDA"]
    names = [name for name in names if not name.startswith("Optimizer.")]
    copies = [name for name in names if name.startswith(("Memcpy", "Memset"))]
    return [name for name in names if name not in copies], copies
