"""Results as tables for a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from rich import box
from rich.console import Console, Group, JustifyMethod, RenderableType
from rich.table import Table
from rich.text import Text

from gpuopt import output
from gpuopt.bench.code import table as code_table
from gpuopt.bench.compare import THRESHOLD, Change
from gpuopt.bench.contenders import Contender
from gpuopt.bench.goals import OF_A_COPY, SHARE, all_helped, asked, doubt, seen
from gpuopt.bench.noise import BUSY
from gpuopt.bench.results import BROKE, NOT_REACHED, TIMED, Contest, Results, Row
from gpuopt.bench.workloads import GROUPS, Workload

CAPTION = (
    "Milliseconds per step, the median, and = for the oracle's bits, ~ for its numbers within tolerance; ± half of "
    "what lies between fastest and slowest tenth; and the share of the rate of a copy. A CPU also reads what a copy "
    "overwrites, which is not counted: a step, which overwrites what it has read, can have more than all of it. How "
    "many samples there are, launches, memory and first steps are in the JSON and in the report."
)

MARKS = {"exact": "=", "close": "~"}

FAULTS = {status: Text(status.upper(), style="bold red") for status in ("wrong", "broken")}


FORMATS = "formats"
"""The group whose table also says how many bytes there are, and compares with :data:`BASE` in float32."""

BASE = "torch fused"

FORMATS_CAPTION = (
    "Below a workload, the bytes per parameter that are stored, gradients left out, and that a step moves; below a "
    f"time, how many times as fast it is as {BASE} in fp32."
)

GOALS_CAPTION = (
    f"How many times as fast. Of large tensors at least {SHARE:.0%} of what the bytes that each moves allow; who moves "
    f"more does not count as faster than memory, which has {OF_A_COPY:g} times the rate of a copy, or more if gpuopt "
    "has. Of small ones, where calls take the time, what any CPU should show."
)


def show(results: Results, console: Console) -> None:
    """Prints everything that was found."""
    console.print(head(results))
    for group, title in GROUPS.items():
        contests = [contest for contest in results.contests if contest.workload.group == group]
        if contests:
            output.show(group_table(title, contests, results), console)
    if results.contests:
        console.print(Text(CAPTION, style="dim"))
    if results.code is not None:
        console.print(code_table.tables(results.code))
    if results.goals:
        titles = {contest.workload.key: contest.workload.title for contest in results.contests}
        output.show(goals_table(results.goals, titles), console)
        for line in (*all_helped(results.goals, titles), GOALS_CAPTION):
            console.print(Text(line, style="dim"))
    console.print(notes(results))


def head(results: Results) -> RenderableType:
    """The machine, and how fast it copies."""
    machine = results.machine
    versions = ", ".join(f"{name} {version or '(none)'}" for name, version in machine["versions"].items())
    gpus = ", ".join(f"{gpu['name']}, driver {gpu['driver']}" for gpu in machine["gpus"]) or "no NVIDIA GPU"
    copies = ", ".join(f"{device} {copy['gb_per_s']:,.1f} GB/s" for device, copy in results.copies.items())
    lines = [
        f"{machine['cpu']}, {machine['cores']} cores; {gpus}; copy: {copies or 'not measured'}",
        f"{machine['date']}, commit {machine['commit'] or 'unknown'}; Python {machine['python']}, {versions}",
    ]
    return Group(*(Text(line, style="dim") for line in lines))


def group_table(title: str, contests: Sequence[Contest], results: Results) -> Table:
    """A row per workload, a column per contender that was timed, is wrong or broke on any of them."""
    names = dict.fromkeys(
        row.contender
        for contest in contests
        for row in contest.rows
        if row.step is not None or row.status in ("wrong", "broken")
    )
    has_formats = contests[0].workload.group == FORMATS
    table = _table(title, FORMATS_CAPTION if has_formats else None)
    table.padding = 0
    table.add_column("")
    for name in names:
        table.add_column(name.replace(" ", "\n", 1), justify="right", no_wrap=True)
    for contest in contests:
        rows = {row.contender: row for row in contest.rows}
        copy = results.copies.get(contest.device)
        head = Text(contest.workload.title)
        cells = [cell(rows[name], contest, copy and copy["gb_per_s"]) if name in rows else Text() for name in names]
        if has_formats:
            numel = contest.workload.shapes.numel
            head.append(
                f"\n{contest.workload.stored / numel:g} stored, {contest.workload.bytes / numel:g} moved", "dim"
            )
            base = _base(contest, contests)
            for name, text in zip(names, cells, strict=True):
                own = rows[name].times if name in rows else None
                if base is not None and own is not None:
                    text.append(f"\n{base / own['median']:.2f}x", "dim")
        table.add_row(head, *cells)
    return table


def _base(contest: Contest, contests: Sequence[Contest]) -> float | None:
    """Median of :data:`BASE` on the same tensors in fp32; None where it has none."""
    plain = replace(contest.workload, formats_name="fp32")
    rows = (row for other in contests if other.workload == plain for row in other.rows if row.contender == BASE)
    times = next((row.times for row in rows), None)
    return times and times["median"]


def cell(row: Row, contest: Contest, copy: float | None) -> Text:
    """The median, its verdict, its spread, and its share of the rate of a copy; or what is wrong."""
    times = row.times
    if times is None:
        return FAULTS.get(row.status, Text("-", style="dim"))
    by_host = "h" if contest.device == "cuda" and row.device is None else ""
    text = Text(f"{milliseconds(times['median'])}{by_host} {MARKS[row.status]}")
    text.append(f"\n±{(times['p90'] - times['p10']) / 2 / times['median']:.0%}", style="dim")
    if copy is not None:
        text.append(f"\n{contest.workload.bytes / times['median'] / 1e9 / copy:.0%}", style="dim")
    return text


def milliseconds(seconds: float) -> str:
    """Three digits that count, as far as they go."""
    value = seconds * 1e3
    return f"{value:.3f}" if value < 1 else f"{value:.2f}" if value < 10 else f"{value:,.1f}"


def goals_table(goals: Sequence[Mapping[str, Any]], titles: Mapping[str, str]) -> Table:
    """A row per goal, with the title of its workload."""
    table = _table("Goals")
    for heading in ("workload", "", "against"):
        table.add_column(heading)
    for heading in ("x, at least", "seen"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("")
    for goal in goals:
        table.add_row(
            titles[goal["workload"]],
            goal["ours"],
            goal["against"] or ", ".join(goal["theirs"]),
            asked(goal),
            "" if goal["ratio"] is None else seen(goal),
            _met(goal),
        )
    return table


def changes_table(changes: Sequence[Change], width: int) -> Table:
    """What has changed since an older run; what has not is only counted."""
    same = sum(change.verdict == "same" for change in changes)
    caption = f"{same} of {len(changes)} rows are the same, within {THRESHOLD:.0%} or their own spread."
    table = _table("Compared with the older run", caption)
    table.padding = (0, 1, 0, 0)
    for heading in ("", "before", "after", "ratio"):
        table.add_column(heading, justify="right" if heading else "left", no_wrap=True)
    table.add_column("")
    longest = max((len(change.workload) for change in changes), default=0)
    for change in changes:
        if change.verdict != "same":
            before, after, key = change.before, change.after, change.workload
            table.add_row(
                (f"{key:{longest}}  " if width >= output.WIDE else f"{key}\n  ") + change.contender,
                milliseconds(before),
                "" if after is None else milliseconds(after),
                "" if after is None else f"{after / before:.2f}",
                Text(
                    change.verdict if change.why is None else f"{change.verdict}: {change.why}",
                    style="bold red" if change.verdict in ("slower", "lost") else "green",
                ),
            )
    return table


def registry_tables(workloads: Sequence[Workload], contenders: Sequence[Contender], width: int) -> list[Table]:
    """What can be asked for; where there is room, with sizes, which most keys have too."""
    first, second = _table("Workloads"), _table("Contenders")
    for heading in ("key", "what", "tensors", "elements")[: 4 if width >= output.WIDE else 2]:
        side: JustifyMethod = "left" if heading in ("key", "what") else "right"
        first.add_column(heading, justify=side, no_wrap=heading == "key")
    for workload in workloads:
        cells = workload.key, workload.title, f"{len(workload.shapes.shapes):,}", f"{workload.shapes.numel:,}"
        first.add_row(*cells[: len(first.columns)])
    for heading in ("name", "here", "note"):
        second.add_column(heading, no_wrap=heading == "name")
    for contender in contenders:
        second.add_row(contender.name, contender.absent() or "yes", contender.note)
    return [first, second]


def notes(results: Results) -> RenderableType:
    """What was skipped and why, what is wrong, and what spoils the times."""
    reasons = _by_reason(_skipped(results))
    lines = [Text(f"skipped {', '.join(whats)}: {why}", style="dim") for why, whats in reasons.items()]
    lines += [Text(note, style="dim") for note in dict.fromkeys(_remarks(results))]
    load = results.others_load or 0.0
    if load > BUSY:
        lines.append(
            Text(f"Other processes took {load:.0%} of the CPU meanwhile: do not trust the times.", style="bold red")
        )
    lines += [Text(fault, style="bold red") for fault in results.faults()]
    return Group(*lines)


def _skipped(results: Results) -> Iterator[tuple[str, str]]:
    absent = {what for what, _ in results.skipped}
    yield from results.skipped
    for contest in results.contests:
        for row in contest.rows:
            if row.why and (row.status in TIMED or row.why == NOT_REACHED or row.why.startswith(BROKE)):
                yield f"{contest.workload.key}: {row.contender}", row.why
            elif row.status == "skipped" and row.why and row.contender not in absent:
                yield row.contender, row.why


def _by_reason(skipped: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    """For each reason what was skipped for it, once each."""
    reasons: dict[str, list[str]] = {}
    for what, why in dict.fromkeys(skipped):
        reasons.setdefault(why, []).append(what)
    return reasons


def _remarks(results: Results) -> Iterator[str]:
    for contest in results.contests:
        for row in contest.rows:
            if row.note and row.step is not None:
                yield f"{row.contender}: {row.note}"
            if row.timing.discarded:
                yield f"{contest.workload.key}: {row.timing.discarded} throttled samples of {row.contender} discarded"
            if row.timing.not_queued:
                yield (
                    f"{contest.workload.key}: {row.timing.not_queued} steps of {row.contender} could not be queued "
                    "whole before they began: they have no time on the GPU. Where that is so of more than a "
                    "tenth of a contender's, its times are the host's, marked h"
                )


def _met(goal: Mapping[str, Any]) -> Text:
    if goal["met"] is None:
        return Text(goal["why"] or "", style="dim")
    text = Text("met", style="green") if goal["met"] else Text("NOT MET", style="bold red")
    return text.append(doubt(goal), style="dim")


def _table(title: str, caption: str | None = None) -> Table:
    return Table(
        title=title,
        caption=caption,
        box=box.SIMPLE_HEAD,
        title_style="bold",
        title_justify="left",
        caption_style="dim",
        caption_justify="left",
    )
