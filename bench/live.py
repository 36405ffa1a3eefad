"""The run as it goes on: the workload's table, and how far the whole has come."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from gpuopt.bench.order import Watcher
from gpuopt.bench.results import Contest
from gpuopt.bench.tables import contest_table


class _Screen:
    """What is on the terminal just now."""

    def __init__(self, workloads: int, console: Console) -> None:
        self._progress = Progress(
            BarColumn(),
            TextColumn("{task.completed:.0f} of {task.total:.0f} workloads"),
            TimeElapsedColumn(),
            TextColumn("{task.description}"),
            console=console,
        )
        self._task = self._progress.add_task("", total=workloads)
        self._contest: Contest | None = None
        self._shown = 0

    def begin(self, what: str) -> None:
        self._progress.update(self._task, description=what)

    def show(self, contest: Contest) -> None:
        self._contest = contest
        self._progress.update(self._task, completed=self._shown)
        self._shown += 1

    def __rich__(self) -> RenderableType:
        return Group(*([] if self._contest is None else [contest_table(self._contest)]), self._progress)


@contextmanager
def live(workloads: int, console: Console) -> Iterator[Watcher]:
    """Shows a run while it lasts, and leaves nothing behind; on what is no terminal it shows nothing.

    It draws when it is told of something and never meanwhile: a thread that draws takes time from what is timed.

    Args:
        workloads: Number of workloads.
        console: Where to.
    """
    if not console.is_terminal:
        yield Watcher()
        return
    screen = _Screen(workloads, console)
    with Live(screen, console=console, auto_refresh=False, transient=True) as shown:

        def begin(what: str) -> None:
            screen.begin(what)
            shown.refresh()

        yield Watcher(begin, screen.show, shown.refresh)
