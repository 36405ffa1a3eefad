"""``python -m gpuopt.bench.readme RESULTS README``: puts what a ``bench.json`` says between the README's comments.

What is between ``<!-- NAME -->`` and ``<!-- end -->``, for a name of :func:`blocks`, is made here and not by hand.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

TABLES: dict[str, dict[str, str]] = {
    "PyTorch": {
        "adam/200x100000/fp32": "Adam, 200 tensors of 100,000",
        "rmsprop/200x100000/fp32": "RMSprop, the same",
        "adam/1000x64/fp32": "Adam, 1,000 tensors of 64",
        "rmsprop/1000x64/fp32": "RMSprop, the same",
        "adamw/200x100000/fp32/clip-ema": "tail, 200 tensors of 100,000",
    },
    "arrays": {
        "arrays/adam/one-20m/fp32": "Adam, 20M elements",
        "arrays/rmsprop/one-20m/fp32": "RMSProp, 20M elements",
        "arrays/adam/1000x64/fp32": "Adam, 1,000 tensors of 64",
    },
}
"""Keys of workloads, and the heads of their columns, of each table of step times."""

MARKS = {"wrong": "wrong", "broken": "broken", "skipped": "none"}


def renewed(readme: str, results: Mapping[str, Any]) -> str:
    """A README with what ``results``, which ``bench/SCHEMA.md`` describes, say.

    Raises:
        ValueError: It has no place for a block, or ``results`` lack a workload.
    """
    for name, block in blocks(results).items():
        begin, end = f"<!-- {name} -->\n", "<!-- end -->"
        before, *rest = readme.split(begin)
        if len(rest) != 1 or end not in rest[0]:
            raise ValueError(f"the README must have one place for {name}, between comments, but has {len(rest)}")
        readme = before + begin + block + "\n" + end + rest[0].partition(end)[2]
    return readme


def blocks(results: Mapping[str, Any]) -> dict[str, str]:
    """In Markdown: the machine, the tables of step times, and the goals."""
    tables = {name: step_times(results, columns) for name, columns in TABLES.items()}
    return {"machine": machine(results), **tables, "goals": goals(results)}


def machine(results: Mapping[str, Any]) -> str:
    """One line: what the run was on, when, and how fast a copy was."""
    head, copy = results["machine"], results["copy"]["cpu"]["gb_per_s"]
    versions = ", ".join(f"{name} {head['versions'][name]}" for name in ("torch", "numpy", "numba"))
    return (
        f"{head['cpu']}, {head['cores']} cores, {head['date'][:10]}; {versions}; a copy, read and written, "
        f"at {copy:.1f} GB/s, without what the CPU reads because it is about to be overwritten."
    )


def step_times(results: Mapping[str, Any], columns: Mapping[str, str]) -> str:
    """Milliseconds per step: a row for each contender that was timed on one of the workloads."""
    workloads = _workloads(results, columns)
    cells = {key: {row["contender"]: _cell(row) for row in workloads[key]["rows"]} for key in columns}
    names = dict.fromkeys(row["contender"] for key in columns for row in workloads[key]["rows"] if row["step"])
    return _table(
        ["", *columns.values()], [[name, *(cells[key].get(name, "none") for key in columns)] for name in names]
    )


def goals(results: Mapping[str, Any]) -> str:
    """A row per goal: what was to be so many times faster than what, and was it."""
    keys = dict.fromkeys(goal["workload"] for goal in results["goals"])
    titles = {key: workload["title"] for key, workload in _workloads(results, keys).items()}
    rows = [
        [
            titles[goal["workload"]],
            goal["ours"],
            goal["against"] or ", ".join(goal["theirs"]),
            f"{goal['at_least']:g}",
            goal["why"] or f"{goal['ratio']:.2f}",
            {True: "met", False: "**missed**", None: ""}[goal["met"]],
        ]
        for goal in results["goals"]
    ]
    return _table(["", "", "against", "times as fast, at least", "seen", ""], rows)


def _workloads(results: Mapping[str, Any], keys: Mapping[str, Any]) -> dict[str, Any]:
    found = {workload["key"]: workload for workload in results["workloads"]}
    missing = [key for key in keys if key not in found]
    if missing:
        raise ValueError(f"results must have the workloads {', '.join(keys)}, but have no {', '.join(missing)}")
    return found


def _cell(row: Mapping[str, Any]) -> str:
    return MARKS[row["status"]] if row["step"] is None else f"{row['step']['median'] * 1e3:.3g}"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [f"| {' | '.join(cells)} |" for cells in (head, *rows)]
    return "\n".join([lines[0], "|---" * len(head) + "|", *lines[1:]])


def main(arguments: Sequence[str]) -> None:
    """Renews the README in place."""
    results, readme = map(Path, arguments)
    readme.write_text(renewed(readme.read_text(), json.loads(results.read_text())))


if __name__ == "__main__":
    main(sys.argv[1:])
