"""Every measured number in the README is in a result that is committed with it.

The tables of step times are those that :func:`rows` makes of ``bench/results/amd-epyc-2-cores.json``, to the letter.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

TABLES = {
    "PyTorch": [
        "torch-adam-large",
        "torch-rmsprop-large",
        "torch-adam-many",
        "torch-rmsprop-many",
        "torch-tail-large",
    ],
    "arrays": ["adam-large", "rmsprop-large", "adam-many"],
}
"""Workloads in the columns of each table."""


def rows(columns: list[str]) -> list[str]:
    """A table of milliseconds per step, from the committed run."""
    run = json.loads((ROOT / "bench" / "results" / "amd-epyc-2-cores.json").read_text())
    workloads = {workload["key"]: workload["contenders"] for workload in run["speed"]["workloads"]}
    table = []
    for name in [contender["name"] for contender in workloads[columns[0]]]:
        cells = []
        for column in columns:
            (contender,) = [contender for contender in workloads[column] if contender["name"] == name]
            cells.append("none" if contender.get("median") is None else f"{contender['median'] * 1e3:.1f}")
        table.append(f"| {name} | {' | '.join(cells)} |")
    return table


@pytest.mark.parametrize("columns", TABLES.values(), ids=TABLES)
def test_the_tables_of_step_times_are_the_committed_run_s(columns: list[str]) -> None:
    readme = (ROOT / "README.md").read_text()
    assert "\n".join(rows(columns)) in readme
