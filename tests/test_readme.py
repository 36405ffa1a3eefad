"""Every measured number in the README is in a result that is committed with it.

The tables of step times are those that :mod:`gpuopt.bench.readme` makes of ``bench/results/amd-epyc-2-cores.json``, to
the letter.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gpuopt.bench.readme import TABLES, table
from gpuopt.bench.results import SCHEMA

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.parametrize("columns", TABLES.values(), ids=TABLES)
def test_the_tables_of_step_times_are_the_committed_run_s(columns: dict[str, str]) -> None:
    results = json.loads((ROOT / "bench" / "results" / "amd-epyc-2-cores.json").read_text())
    assert results["schema"] == SCHEMA
    assert table(results, columns) in (ROOT / "README.md").read_text()
