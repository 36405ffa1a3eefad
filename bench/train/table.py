"""The trainings as tables for a terminal."""

from __future__ import annotations

from collections.abc import Iterator

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from gpuopt.bench.noise import BUSY
from gpuopt.bench.train import embedding, formats
from gpuopt.bench.train.lockstep import TURN, Training
from gpuopt.bench.train.results import Contest, Results, times
from gpuopt.bench.train.ways import REFERENCE

NOTE = (
    f"Contenders take turns of {TURN} steps, from the same weights, on the same batches. model is the forward and the "
    "backward pass; optimizer is clipping, step and zeroing; both are medians. Losses are of held-out data. Deviation "
    f"is the largest difference between a step's loss and that of {REFERENCE}, as a share of it."
)


FORMATS_NOTE = (
    "Losses are of held-out data after the last step, computed in float32 with the values that are stored; state is "
    "float32 where nothing else is said. The columns of seeds say how much higher they are than that of "
    f"{formats.STORED[formats.REFERENCE]} from the same seed, which is that of initial weights, of the order of "
    "batches and of stochastic rounding."
)


EMBEDDING_NOTE = (
    f"The largest change of an element in a step, from the {embedding.FIRST + 1}th on, as a multiple of the learning "
    "rate. Tokens are drawn by Zipf's law, and gradients have zeros for those that are not in a batch. The loss is of "
    f"batches, the mean of the last {embedding.LAST}."
)


def show(results: Results, console: Console) -> None:
    """Prints everything that was found."""
    machine = results.machine
    _head(results, console)
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


def show_formats(results: formats.Results, console: Console) -> None:
    """Prints what each format costs."""
    _head(results, console)
    if any(results.losses.values()):
        console.print(formats_table(results))
        if results.spread is not None:
            console.print(Text(f" The losses of float32 are {results.spread:.4f} apart by seed.\n", style="dim"))
        console.print(Text(FORMATS_NOTE, style="dim"))
    for fault in results.faults:
        console.print(Text(f"WRONG: {fault}", style="bold red"))


def show_embedding(results: embedding.Results, console: Console) -> None:
    """Prints how large steps became."""
    _head(results, console)
    for table in embedding_tables(results):
        console.print(table)
    for optimizer, why in dict.fromkeys((row.optimizer, row.why) for rows in results.rows.values() for row in rows):
        if why is not None:
            console.print(Text(f" {optimizer}: {why}", style="dim"))
    console.print(Text(EMBEDDING_NOTE, style="dim"))
    for fault in results.faults:
        console.print(Text(f"WRONG: {fault}", style="bold red"))


def _head(results: Results | formats.Results | embedding.Results, console: Console) -> None:
    """What it ran on."""
    machine = results.machine
    versions = ", ".join(f"{name} {version or '(none)'}" for name, version in machine["versions"].items())
    gpus = ", ".join(str(gpu["name"]) for gpu in machine["gpus"]) or "no NVIDIA GPU"
    console.print(Text(f"{machine['cpu']}, {machine['cores']} cores; {gpus}; on {results.device}", style="dim"))
    console.print(Text(f"{machine['date']}, commit {machine['commit'] or 'unknown'}; {versions}", style="dim"))


def formats_table(results: formats.Results) -> Table:
    """A row per format: its bytes, the mean of its losses, and what it is above float32 from each seed."""
    found = results.as_dict()
    recipe = found["recipe"]
    table = _table(f"{found['title']}\nlr {recipe['lr']:g}, betas {recipe['betas']}")
    table.add_column("kept as", no_wrap=True)
    for heading in ("bytes", "loss", *(f"seed {seed}" for seed in found["seeds"]), "mean"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in found["rows"]:
        above = [*row["differences"], row["difference"]]
        loss = "" if row["loss"] is None else f"{row['loss']:.4f}"
        cells = ["" if value is None else f"{value:+z.4f}" for value in above]
        table.add_row(row["title"], str(row["bytes"]), loss, *cells)
    return table


def embedding_tables(results: embedding.Results) -> Iterator[Table]:
    """One for each trial, with a row per optimizer: its largest step, and that over the reference's."""
    found = results.as_dict()
    for trial in found["trials"]:
        table = _table(f"An embedding of {found['tokens']:,} rows of {trial['width']}, betas {trial['betas']}")
        table.add_column("optimizer", no_wrap=True)
        for heading in ("largest step\nover lr", f"over that of\n{embedding.REFERENCE}", "in\nstep", "\nloss"):
            table.add_column(heading, justify="right", no_wrap=True)
        table.add_column(f"at most\n{found['goal']:g}", no_wrap=True)
        for row in trial["rows"]:
            if row["loss"] is None:
                table.add_row(row["optimizer"], row["status"], style="dim")
                continue
            step = "" if row["step"] is None else f"{row['step']:,}"
            met = {True: "met", False: "missed", None: ""}[row["met"]]
            loss = f"{row['loss']:.4f}"
            table.add_row(row["optimizer"], _number(row["update"]), _number(row["ratio"]), step, loss, met)
        yield table


def _number(value: float | None) -> str:
    """With three digits, or all before the point."""
    return "" if value is None else f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def contest_table(contest: Contest) -> Table:
    """A row per contender: those that reached the goal, the fastest first, then the others."""
    table = _table(contest.task.title)
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


def _table(title: str) -> Table:
    return Table(title=title, box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), title_style="bold", title_justify="left")
