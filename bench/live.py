"""How far a run has come, while it lasts."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from gpuopt.bench.order import Watcher


@contextmanager
def live(workloads: int, console: Console) -> Iterator[Watcher]:
    """Shows it, and leaves nothing behind; on what is no terminal it shows nothing.

    It draws when it is told of something and never meanwhile: a thread that draws takes time from what is timed.

    Args:
        workloads: Number of workloads.
        console: Where to.
    """
    columns = (
        BarColumn(),
        TextColumn("{task.completed:.0f} of {task.total:.0f} workloads"),
        TimeElapsedColumn(),
        TextColumn("{task.description}"),
    )
    hidden = not console.is_terminal
    with Progress(*columns, console=console, auto_refresh=False, transient=True, disable=hidden) as progress:
        task = progress.add_task("", total=workloads)

        def begin(what: str) -> None:
            progress.update(task, description=what, refresh=True)

        yield Watcher(begin, partial(progress.advance, task))
