"""Every measured number in the README is in a result that is committed with it.

The table of step times is the one that :func:`rows` makes of ``bench/results/amd-epyc-2-cores.json``, to the letter.
"""

from __future__ import annotations

import json
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def rows() -> list[str]:
    """The README's table of milliseconds per step, from the committed run."""
    run = json.loads((ROOT / "bench" / "results" / "amd-epyc-2-cores.json").read_text())
    workloads = {workload["key"]: workload["contenders"] for workload in run["speed"]["workloads"]}
    columns = ["adam-large", "rmsprop-large", "adam-many"]
    table = []
    for name in [contender["name"] for contender in workloads[columns[0]]]:
        cells = []
        for column in columns:
            (contender,) = [contender for contender in workloads[column] if contender["name"] == name]
            cells.append("none" if contender.get("median") is None else f"{contender['median'] * 1e3:.1f}")
        table.append(f"| {name} | {' | '.join(cells)} |")
    return table


def test_the_table_of_step_times_is_the_committed_run_s() -> None:
    readme = (ROOT / "README.md").read_text()
    for row in rows():
        assert row in readme
