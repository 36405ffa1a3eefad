"""One line about a round that a person can paste."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gpuopt.bench.ratio import times_as_fast
from gpuopt.bench.workloads import DECISIVE

OURS = ("gpuopt triton", "gpuopt cupy")
THEIRS = ("torch fused", "torch foreach")


def summary(folder: Path, done: Sequence[Mapping[str, Any]]) -> str:
    """What the files of a round say: the device, the decisive rows, and what failed, stage by stage."""
    bench = _json(folder / "bench.json") or {}
    gpus = bench.get("machine", {}).get("gpus") or [{"name": "no GPU known"}]
    copy = bench.get("copy", {}).get("cuda")
    parts = [gpus[0]["name"] + (f", copy {copy['gb_per_s']:,.0f} GB/s" if copy else "")]
    if bench:
        workloads = {each["key"]: each for each in bench["workloads"]}
        parts += [
            _rows(workloads[each.key]) if each.key in workloads else f"{each.key}: {_missing(bench, each.key)}"
            for each in DECISIVE
        ]
    parts += [_failures(stage["stage"], folder) for stage in done]
    bad = [f"{each['stage']} {each['ended']} with {each['code']}" for each in done if failed(each)]
    parts.append(", ".join(bad) if bad else "no stage failed")
    return "; ".join(part for part in parts if part)


def failed(stage: Mapping[str, Any]) -> bool:
    """Whether a stage was not done, or says that something is wrong."""
    return bool(stage["code"]) or stage["ended"] != "done"


def _missing(bench: Mapping[str, Any], key: str) -> str:
    """Why a workload has no rows."""
    said = [each["why"] for each in bench["skipped"] if each["what"] == key]
    said += [fault.partition(": ")[2] for fault in bench["faults"] if fault.startswith(f"{key}: ")]
    return said[0] if said else "not there"


def _rows(workload: Mapping[str, Any]) -> str:
    """Share of the copy's bandwidth of gpuopt's rows, and how many times as fast they are as torch's."""
    rows = {row["contender"]: row for row in workload["rows"]}
    timed = {name: row for name, row in rows.items() if row["step"]}
    said = []
    for name in OURS:
        short = name.split()[1]
        if name not in timed:
            said.append(f"{short} {rows[name]['why'] if name in rows else 'absent'}")
            continue
        share = timed[name]["copy_share"]
        ratios = [f"{times_as_fast(timed[name], timed[other])} {other}" for other in THEIRS if other in timed]
        said.append(" ".join([short, *([] if share is None else [f"{share:.0%}"]), *ratios]))
    return f"{workload['key']}: {', '.join(said)}"


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
        found = _json(folder / "sweeps.json") or {"groups": [], "missing": []}
        bad = [f"{group['subject']}: {row['name']}" for group in found["groups"] for row in group["rows"] if row["why"]]
        return f"sweeps: {len(found['groups'])} groups, {len(found['missing'])} missing" + _named(bad)
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
