"""``python -m gpuopt.bench.readme RESULTS``: the README's tables of step times, from a ``bench.json``."""

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
"""Keys of workloads, and the heads of their columns, of each table."""

MARKS = {"wrong": "wrong", "broken": "broken", "skipped": "none"}


def table(results: Mapping[str, Any], columns: Mapping[str, str]) -> str:
    """Milliseconds per step in Markdown: a row for each contender that was timed on one of the workloads.

    Args:
        results: What ``bench/SCHEMA.md`` describes.
        columns: Heads by the keys of workloads.

    Raises:
        ValueError: A workload is missing.
    """
    workloads = {workload["key"]: workload["rows"] for workload in results["workloads"]}
    missing = [key for key in columns if key not in workloads]
    if missing:
        raise ValueError(f"results must have the workloads {', '.join(columns)}, but have no {', '.join(missing)}")
    cells = {key: {row["contender"]: _cell(row) for row in workloads[key]} for key in columns}
    names = dict.fromkeys(row["contender"] for key in columns for row in workloads[key] if row["step"])
    head = [f"| | {' | '.join(columns.values())} |", "|---" * (1 + len(columns)) + "|"]
    return "\n".join(
        head + [f"| {name} | {' | '.join(cells[key].get(name, 'none') for key in columns)} |" for name in names]
    )


def _cell(row: Mapping[str, Any]) -> str:
    return MARKS[row["status"]] if row["step"] is None else f"{row['step']['median'] * 1e3:.1f}"


def main(arguments: Sequence[str]) -> None:
    """Prints all tables."""
    (path,) = arguments
    results = json.loads(Path(path).read_text())
    print("\n\n".join(table(results, columns) for columns in TABLES.values()))


if __name__ == "__main__":
    main(sys.argv[1:])
