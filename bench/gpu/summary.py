"""One line about a round that a person can paste."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gpuopt.bench.workloads import DECISIVE

OURS = ("gpuopt triton", "gpuopt cupy")
THEIRS = ("torch fused", "torch foreach")


def summary(folder: Path, done: Sequence[Mapping[str, Any]]) -> str:
    """What the files of a round say: the device, the decisive rows, and what failed, stage by stage."""
    bench = _json(folder / "bench.json") or {}
    gpus = bench.get("machine", {}).get("gpus") or [{"name": "no GPU known"}]
    copy = bench.get("copies", {}).get("cuda")
    parts = [gpus[0]["name"] + (f", copy {copy['gb_per_s']:,.0f} GB/s" if copy else "")]
    workloads = {each["key"]: each for each in bench.get("workloads", [])}
    parts += [_rows(workloads[each.key]) for each in DECISIVE if each.key in workloads]
    parts += [_failures(stage["stage"], folder) for stage in done]
    bad = [f"{each['stage']} {each['ended']} with {each['code']}" for each in done if each["code"]]
    parts.append(", ".join(bad) if bad else "no stage failed")
    return "; ".join(part for part in parts if part)


def _rows(workload: Mapping[str, Any]) -> str:
    """Share of the copy's bandwidth of gpuopt's rows, and how many times as fast they are as torch's."""
    rows = {row["contender"]: row for row in workload["rows"]}
    said = []
    for name in OURS:
        ours = _time(rows.get(name))
        if ours is None:
            said.append(f"{name.split()[1]} {rows[name]['why'] if name in rows else 'absent'}")
            continue
        share = rows[name]["copy_share"]
        ratios = [f"{_time(rows.get(other)) / ours:.2f}x {other}" for other in THEIRS if _time(rows.get(other))]
        said.append(" ".join([name.split()[1], "" if share is None else f"{share:.0%}", *ratios]))
    return f"{workload['key']}: {', '.join(said)}"


def _time(row: Mapping[str, Any] | None) -> Any:
    """The median of a row: on the GPU where it is known, else as the host sees it."""
    times = row and (row["device"] or row["step"])
    return times and times["median"]


def _failures(stage: str, folder: Path) -> str:
    """What a stage's own file says of failures."""
    if stage == "smoke":
        found = _json(folder / "smoke.json") or {"probes": []}
        bad = [probe["name"] for probe in found["probes"] if probe["why"]]
        return f"smoke: {len(found['probes']) - len(bad)} of {len(found['probes'])} pass" + _named(bad)
    if stage == "verify":
        lines = (_json(folder / "verify.json") or {"lines": []})["lines"]
        bad = [f"{line['driver']} {line['rule']}" for line in lines if line["fault"]]
        compared = sum(line["comparisons"] for line in lines)
        return f"verify: {compared:,} comparisons, {len(bad)} faults" + _named(bad)
    if stage == "tests":
        return _tests(folder / "tests.xml")
    if stage == "sweeps":
        groups = (_json(folder / "sweeps.json") or {"groups": []})["groups"]
        bad = [f"{group['subject']}: {row['name']}" for group in groups for row in group["rows"] if row["why"]]
        return f"sweeps: {len(groups)} groups" + _named(bad)
    return ""


def _tests(path: Path) -> str:
    try:
        suites = list(ElementTree.parse(path).getroot().iter("testsuite"))
    except (OSError, ElementTree.ParseError):
        return "tests: no result"
    counts = {
        key: sum(int(suite.get(key, 0)) for suite in suites) for key in ("tests", "failures", "errors", "skipped")
    }
    bad = [
        str(case.get("name"))
        for suite in suites
        for case in suite.iter("testcase")
        if case.find("failure") is not None or case.find("error") is not None
    ]
    passed = counts["tests"] - counts["failures"] - counts["errors"] - counts["skipped"]
    return f"tests: {passed} pass, {len(bad)} fail, {counts['skipped']} skipped" + _named(bad)


def _named(bad: Sequence[str], most: int = 5) -> str:
    if not bad:
        return ""
    more = f" and {len(bad) - most} more" if len(bad) > most else ""
    return f" (not {', '.join(bad[:most])}{more})"


def _json(path: Path) -> Any:
    """What a file holds; None where it is not there or not whole."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
