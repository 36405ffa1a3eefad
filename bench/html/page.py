"""Everything on the page, from the JSON."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from gpuopt.bench.goals import asked, doubt, helped, seen
from gpuopt.bench.html import bars, compiled, curves, machine, training
from gpuopt.bench.html.bars import RANKED, Bars
from gpuopt.bench.html.looks import Look, looks
from gpuopt.bench.html.machine import Fact
from gpuopt.bench.html.numbers import UNKNOWN
from gpuopt.bench.html.plot import Plot
from gpuopt.bench.html.tables import WorkloadTable, workload_table
from gpuopt.bench.html.training import TrainingTask
from gpuopt.bench.noise import BUSY

CLOCKS = {"device": "Time on the GPU", "step": "Host-inclusive time"}


@dataclass(frozen=True)
class Device:
    """What was measured on one device, speed by group; a chart is there only where it has something to show."""

    name: str
    title: str
    speed: list[tuple[str, list[Bars]]]
    times: list[tuple[str, list[Plot]]]
    launches: list[Bars]
    memory: list[Bars]
    tables: list[WorkloadTable]


@dataclass(frozen=True)
class GoalRow:
    """A goal and what the run says of it; ``tone`` is a class of the style sheet."""

    goal: str
    against: str
    at_least: str
    seen: str
    verdict: str
    tone: str


@dataclass(frozen=True)
class Page:
    """What the template shows."""

    title: str
    results: dict[str, Any]
    faults: list[str]
    warnings: list[str]
    facts: list[Fact]
    gpus: list[list[Fact]]
    goals: list[GoalRow]
    devices: list[Device]
    skipped: list[tuple[str, str]]
    code: dict[str, Any] | None
    code_facts: list[str]
    code_summaries: list[compiled.Summary]
    training: list[TrainingTask]
    training_facts: str


def page(results: dict[str, Any], trained: dict[str, Any] | None = None) -> Page:
    """Collects it."""
    workloads = results["workloads"]
    tasks = trained["tasks"] if trained else []
    by_name = looks(row["contender"] for rows in (*workloads, *tasks) for row in rows["rows"])
    gpus = results["machine"]["gpus"]
    return Page(
        title=", ".join(gpu["name"] or UNKNOWN for gpu in gpus) or results["machine"]["cpu"] or "an unknown machine",
        results=results,
        faults=[*_faults(results), *(training.faults(trained) if trained else [])],
        warnings=_warnings(results),
        facts=machine.facts(results),
        gpus=[machine.gpu_facts(gpu) for gpu in gpus],
        goals=[_goal(goal, workloads) for goal in results["goals"]],
        devices=[
            _device(name, [workload for workload in workloads if workload["device"] == name], results, by_name)
            for name in sorted({workload["device"] for workload in workloads}, reverse=True)  # cuda first
        ],
        skipped=_skipped(results),
        code=results["code"],
        code_facts=[*compiled.gpus(results["code"]), *compiled.tools(results["code"])] if results["code"] else [],
        code_summaries=compiled.summaries(results["code"]["kernels"]) if results["code"] else [],
        training=training.tasks(trained, by_name) if trained else [],
        training_facts=training.facts(trained) if trained else "",
    )


def _faults(results: dict[str, Any]) -> list[str]:
    stopped = [] if results["complete"] else ["The run was stopped before its end: what is here is what was done."]
    return [*stopped, *results["faults"]]


def _warnings(results: dict[str, Any]) -> list[str]:
    said = []
    if results["scale"] != "full":
        said.append(
            f"This was a {results['scale']} run: each workload had less time, and neither extra memory nor the first "
            "step was measured."
        )
    if (load := results["machine"]["others_load"] or 0.0) > BUSY:
        said.append(f"Other processes took {load:.0%} of all cores meanwhile: do not trust the times.")
    said += [
        f"{gpu['name'] or UNKNOWN} was throttled meanwhile ({', '.join(gpu['throttled'])})."
        for gpu in results["machine"]["gpus"]
        if gpu["throttled"]
    ]
    discarded = sum(row["discarded"] or 0 for workload in results["workloads"] for row in workload["rows"])
    if discarded:
        said.append(f"{discarded:,} samples were discarded because the GPU was throttled.")
    return said


def _skipped(results: dict[str, Any]) -> list[tuple[str, str]]:
    """What and why: drivers, what was left out as a whole, and rows, those with the same reason together."""
    rows = Counter(
        (row["contender"], row["why"])
        for workload in results["workloads"]
        for row in workload["rows"]
        if row["why"] and row["status"] not in ("wrong", "broken")
    )
    return [
        *((f"driver {name}", why) for name, why in results["drivers"].items() if why),
        *((entry["what"], entry["why"]) for entry in results["skipped"]),
        *((f"{name} in {number} workload{'s' * (number > 1)}", why) for (name, why), number in rows.items()),
    ]


def _device(name: str, workloads: list[dict[str, Any]], results: dict[str, Any], by_name: dict[str, Look]) -> Device:
    copied = results["copy"].get(name)
    copy = copied["gb_per_s"] if copied else None
    groups = curves.series(workloads)
    drawn = _without_the_small(workloads, groups)
    machine_ = results["machine"]
    title = ", ".join(gpu["name"] or UNKNOWN for gpu in machine_["gpus"]) if name == "cuda" else machine_["cpu"]
    times = [
        (heading, [chart for group in groups if (chart := curves.curves(group, clock, copy, by_name))])
        for clock, heading in CLOCKS.items()
    ]
    return Device(
        name=name,
        title=title or name,
        speed=[
            (group, [bars.speed(workload, copy, by_name) for workload in drawn if workload["group"] == group])
            for group in dict.fromkeys(workload["group"] for workload in drawn)
        ],
        times=[(heading, charts) for heading, charts in times if charts],
        # On a CPU nothing is launched; the tables have how often a driver is called.
        launches=_with_bars(drawn, lambda one: bars.launches(one, by_name)) if name == "cuda" else [],
        memory=_with_bars(drawn, lambda one: bars.extra_memory(one, by_name)),
        tables=[workload_table(workload) for workload in workloads],
    )


def _with_bars(workloads: list[dict[str, Any]], chart: Callable[[dict[str, Any]], Bars]) -> list[Bars]:
    return [made for made in map(chart, workloads) if made.bars]


def _without_the_small(workloads: list[dict[str, Any]], groups: list[list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Of each series only the largest that was timed, since its other sizes are in the curves."""
    left_out = []
    for group in groups:
        timed = [workload for workload in group if any(row["status"] in RANKED for row in workload["rows"])]
        kept = (timed or group)[-1]
        left_out += [workload["key"] for workload in group if workload is not kept]
    return [workload for workload in workloads if workload["key"] not in left_out]


def _goal(goal: dict[str, Any], workloads: list[dict[str, Any]]) -> GoalRow:
    titles = {workload["key"]: workload["title"] for workload in workloads}
    verdict, tone = _verdict(goal)
    return GoalRow(
        goal=f"{goal['ours']} on {titles.get(goal['workload'], goal['workload'])}",
        against=goal["against"] or ", ".join(goal["theirs"]),
        at_least=asked(goal) or UNKNOWN,
        seen=UNKNOWN if goal["ratio"] is None else seen(goal),
        verdict=verdict,
        tone=tone,
    )


def _verdict(goal: dict[str, Any]) -> tuple[str, str]:
    if goal["met"] is None:
        return f"not known: {goal['why'] or 'not measured'}", "muted"
    said = f"{doubt(goal)}. {helped(goal)}" if goal["cached"] else doubt(goal)
    return (f"✓ met{said}", "good") if goal["met"] else (f"✗ NOT MET{said}", "bad")
