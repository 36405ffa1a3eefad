"""Every measured number in the README is in a result that is committed with it.

1. What stands between its comments is what :mod:`gpuopt.bench.readme` makes of a committed run, to the letter.
2. A block without a place, and a run without a workload, are refused.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from gpuopt.bench.readme import TABLES, blocks, main, renewed
from gpuopt.bench.results import SCHEMA

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def results() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((ROOT / "bench" / "results" / "amd-epyc-2-cores.json").read_text())
    return found


def test_the_readme_says_what_the_committed_run_says(results: dict[str, Any]) -> None:
    readme = (ROOT / "README.md").read_text()
    assert results["schema"] == SCHEMA
    assert results["complete"]
    assert not results["faults"]
    assert renewed(readme, results) == readme


def test_a_number_that_was_changed_by_hand_is_renewed(results: dict[str, Any], tmp_path: Path) -> None:
    readme = (ROOT / "README.md").read_text()
    block = blocks(results)["PyTorch"]
    changed = readme.replace(block, block.replace("| 1", "| 2"))
    assert changed != readme
    (tmp_path / "run.json").write_text(json.dumps(results))
    (tmp_path / "README.md").write_text(changed)
    main([str(tmp_path / "run.json"), str(tmp_path / "README.md")])
    assert (tmp_path / "README.md").read_text() == readme


@pytest.mark.parametrize("name", ["machine", *TABLES, "goals"])
def test_every_block_has_one_place(name: str, results: dict[str, Any]) -> None:
    readme = (ROOT / "README.md").read_text()
    with pytest.raises(ValueError, match=f"must have one place for {name}, between comments, but has 0"):
        renewed(readme.replace(f"<!-- {name} -->", ""), results)


def test_a_workload_that_is_missing(results: dict[str, Any]) -> None:
    results["workloads"] = []
    with pytest.raises(ValueError, match=r"results must have the workloads adam/200x100000/fp32, .* but have no adam"):
        blocks(results)
