"""Every measured number in the README is in a result that is committed with it.

1. What stands between its comments is what :mod:`gpuopt.bench.readme` makes of committed runs, to the letter, and so is
   the report beside them.
2. A block without a place, and a run without a workload, are refused.
3. What the committed run says of memory is no more than a contender is said beforehand to need.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from gpuopt.bench.contenders import contenders
from gpuopt.bench.readme import TABLES, blocks, main, renewed
from gpuopt.bench.results import SCHEMA
from gpuopt.bench.train.results import SCHEMA as TRAINING_SCHEMA
from gpuopt.kernels.formats import FORMATS

ROOT = Path(__file__).resolve().parents[1]
RUN = ROOT / "bench" / "results" / "amd-epyc-2-cores.json"
TRAINING = RUN.with_name("amd-epyc-2-cores-train.json")

Run = dict[str, Any]


@pytest.fixture
def results() -> Run:
    found: Run = json.loads(RUN.read_text())
    return found


@pytest.fixture
def training() -> Run:
    found: Run = json.loads(TRAINING.read_text())
    return found


def test_the_readme_says_what_the_committed_runs_say(results: Run, training: Run) -> None:
    readme = (ROOT / "README.md").read_text()
    assert (results["schema"], training["schema"]) == (SCHEMA, TRAINING_SCHEMA)
    for run in (results, training):
        assert run["complete"]
        assert not run["faults"]
        assert run["scale"] == "full"
    assert renewed(readme, results, training) == readme


def test_both_runs_are_of_one_machine(results: Run, training: Run) -> None:
    for what in ("cpu", "cores", "python", "versions"):
        assert results["machine"][what] == training["machine"][what]


def test_a_number_that_was_changed_by_hand_is_renewed_and_the_report_is_made(
    results: Run, training: Run, tmp_path: Path
) -> None:
    readme = (ROOT / "README.md").read_text()
    block = blocks(results, training)["PyTorch"]
    changed = readme.replace(block, block.replace("| 1", "| 2"))
    assert changed != readme
    (tmp_path / "README.md").write_text(changed)
    run = tmp_path / "run.json"
    run.write_text(json.dumps(results))
    main([str(run), str(TRAINING), str(tmp_path / "README.md")])
    assert (tmp_path / "README.md").read_text() == readme
    assert (tmp_path / "run.html").read_text() == RUN.with_suffix(".html").read_text()


@pytest.mark.parametrize("name", ["machine", *TABLES, "goals", "memory", "training"])
def test_every_block_has_one_place(name: str, results: Run, training: Run) -> None:
    readme = (ROOT / "README.md").read_text()
    with pytest.raises(ValueError, match=f"must have one place for {name}, between comments, but has 0"):
        renewed(readme.replace(f"<!-- {name} -->", ""), results, training)


def test_a_workload_that_is_missing(results: Run, training: Run) -> None:
    results["workloads"] = []
    with pytest.raises(ValueError, match=r"results must have the workloads adam/200x100000/fp32, .* but have no adam"):
        blocks(results, training)


def test_contenders_take_no_more_memory_than_they_are_said_to(results: Run) -> None:
    temporaries = {contender.name: contender.temporaries for contender in contenders("cpu")}
    for workload in results["workloads"]:
        params = FORMATS[workload["formats"]["param"]].itemsize * workload["numel"]
        for row in workload["rows"]:
            if row["extra_memory"] is not None and params > 1 << 26:
                most = (temporaries[row["contender"]] + 1) * params  # a heap may keep what it has got back
                assert row["extra_memory"] <= most, (workload["key"], row["contender"])
