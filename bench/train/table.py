"""The trainings as tables for a terminal."""

from __future__ import annotations

from collections.abc import Iterator

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from gpuopt.bench.noise import BUSY
from gpuopt.bench.train.lockstep import TURN, Training
from gpuopt.bench.train.results import Contest, Results, times
from gpuopt.bench.train.ways import REFERENCE

NOTE = (
    f"Contenders take turns of {TURN} steps, from the same weights, on the same batches. model is the forward and the "
    "backward pass; optimizer is clipping, step and zeroing; both are medians. Losses are of held-out data. Deviation "
    f"is the largest difference between a step's loss and that of {REFERENCE}, as a share of it."
)


def show(results: Results, console: Console) -> None:
    """Prints everything that was found."""
    machine = results.machine
    versions = ", ".join(f"{name} {version or '(none)'}" for name, version in machine["versions"].items())
    gpus = ", ".join(str(gpu["name"]) for gpu in machine["gpus"]) or "no NVIDIA GPU"
    console.print(Text(f"{machine['cpu']}, {machine['cores']} cores; {gpus}; on {results.device}", style="dim"))
    console.print(Text(f"{machine['date']}, commit {machine['commit'] or 'unknown'}; {versions}", style="dim"))
    for contest in results.contests:
        console.print(contest_table(contest))
        for line in _why_not(contest):
            console.print(line)
        console.print(_bits(contest))
    if results.contests:
        console.print(Text(NOTE, style="dim"))
    if (machine["others_load"] or 0) > BUSY:
        message = f"Other processes took {machine['others_load']:.0%} of the CPU meanwhile: do not trust the times."
        console.print(Text(message, style="bold red"))
    for fault in results.faults():
        console.print(Text(f"WRONG: {fault}", style="bold red"))


def contest_table(contest: Contest) -> Table:
    """A row per contender: those that reached the goal, the fastest first, then the others."""
    table = Table(
        title=contest.task.title,
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        title_style="bold",
        title_justify="left",
    )
    table.add_column("contender", no_wrap=True)
    for heading in (
        f"loss {contest.task.goal:g}\nafter s",
        "and\nsteps",
        "model\nms",
        "optimizer\nms",
        "its\nshare",
        "final\nloss",
        "devia-\ntion",
    ):
        table.add_column(heading, justify="right", no_wrap=True)
    ranked = contest.ranked()
    for training in ranked + [other for other in contest.trainings if other not in ranked]:
        table.add_row(*_cells(contest, training))
    return table


def _cells(contest: Contest, training: Training) -> list[Text]:
    status, _ = contest.judged(training)
    if status != "trained":
        style = "dim" if status == "skipped" else "bold red"
        return [Text(training.contender, style=style), Text(status, style=style)]
    seen, reached, deviation = times(training), contest.goal_of(training), contest.deviation(training)
    return [
        Text(cell)
        for cell in (
            training.contender,
            f"{reached.seconds:,.2f}" if reached else "never",
            f"{reached.step:,}" if reached else "",
            f"{seen[0]['median'] * 1e3:,.2f}" if seen else "",
            f"{seen[1]['median'] * 1e3:,.2f}" if seen else "",
            f"{seen[2]:.1%}" if seen else "",
            f"{training.curve[-1].loss:.4f}" if training.curve else "",
            "" if deviation is None else f"{deviation:.0e}",
        )
    ]


def _why_not(contest: Contest) -> Iterator[Text]:
    """A line for each contender that could not run here or did not reach the goal."""
    for training in contest.trainings:
        status, why = contest.judged(training)
        if status == "skipped":
            yield Text(f" {training.contender} is skipped: {why}", style="dim")
        elif status == "trained" and (missed := contest.missed(training)):
            yield Text(f" {training.contender} did not reach the loss: {missed}", style="dim")


def _bits(contest: Contest) -> Text:
    names = " and ".join(training.contender for training in contest.trainings if training.ours and training.digest)
    match contest.same_bits():
        case True:
            return Text(f" Same bits in all parameters at the end: {names}\n", style="green")
        case False:
            return Text(f" DIFFERENT BITS in the parameters at the end: {names}\n", style="bold red")
        case _:
            return Text(" Fewer than two of gpuopt's drivers trained to the end: no bits to compare\n", style="dim")
