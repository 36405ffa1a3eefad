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
from gpuopt.bench.readme import FORMAT_ROWS, TABLES, blocks, formats, main, renewed
from gpuopt.bench.results import SCHEMA
from gpuopt.bench.train.formats import SCHEMA as STORED_SCHEMA
from gpuopt.bench.train.results import SCHEMA as TRAINING_SCHEMA
from gpuopt.bench.workloads import FORMAT_SETS
from gpuopt.kernels.formats import FORMATS

ROOT = Path(__file__).resolve().parents[1]
RUN = ROOT / "bench" / "results" / "amd-epyc-2-cores.json"
TRAINING = RUN.with_name("amd-epyc-2-cores-train.json")
STORED = RUN.with_name("amd-epyc-2-cores-formats.json")
GPU = RUN.with_name("nvidia-h100-80gb-hbm3.json")

Run = dict[str, Any]


@pytest.fixture
def results() -> Run:
    found: Run = json.loads(RUN.read_text())
    return found


@pytest.fixture
def training() -> Run:
    found: Run = json.loads(TRAINING.read_text())
    return found


@pytest.fixture
def stored() -> Run:
    found: Run = json.loads(STORED.read_text())
    return found


@pytest.fixture
def gpu() -> Run:
    found: Run = json.loads(GPU.read_text())
    return found


def test_the_readme_says_what_the_committed_runs_say(results: Run, training: Run, stored: Run, gpu: Run) -> None:
    readme = (ROOT / "README.md").read_text()
    assert (results["schema"], training["schema"], gpu["schema"]) == (SCHEMA, TRAINING_SCHEMA, SCHEMA)
    assert stored["schema"] == STORED_SCHEMA
    assert not gpu["faults"]
    for run in (results, training, stored):
        assert run["complete"]
        assert not run["faults"]
        assert run["scale"] == "full"
    assert renewed(readme, results, training, stored, gpu) == readme


def test_runs_on_a_cpu_are_of_one_machine(results: Run, training: Run, stored: Run) -> None:
    for what in ("cpu", "cores", "python", "versions"):
        assert results["machine"][what] == training["machine"][what] == stored["machine"][what]


@pytest.mark.parametrize(("name", "of"), [("PyTorch", "| 1"), ("gpu", "%")])
def test_a_number_that_was_changed_by_hand_is_renewed_and_reports_are_made(
    name: str, of: str, results: Run, training: Run, stored: Run, gpu: Run, tmp_path: Path
) -> None:
    readme = (ROOT / "README.md").read_text()
    block = blocks(results, training, stored, gpu)[name]
    changed = readme.replace(block, block.replace(of, f"2{of}"))
    assert changed != readme
    (tmp_path / "README.md").write_text(changed)
    run, gpu_run = tmp_path / "run.json", tmp_path / "gpu.json"
    run.write_text(json.dumps(results))
    gpu_run.write_text(json.dumps(gpu))
    main([str(run), str(TRAINING), str(STORED), str(gpu_run), str(tmp_path / "README.md")])
    assert (tmp_path / "README.md").read_text() == readme
    for made, committed in ((run, RUN), (gpu_run, GPU)):
        assert made.with_suffix(".html").read_text() == committed.with_suffix(".html").read_text()


@pytest.mark.parametrize(
    "name", ["machine", *TABLES, "formats", "goals", "memory", "training", "formats training", "gpu machine", "gpu"]
)
def test_every_block_has_one_place(name: str, results: Run, training: Run, stored: Run, gpu: Run) -> None:
    readme = (ROOT / "README.md").read_text()
    with pytest.raises(ValueError, match=f"must have one place for {name}, between comments, but has 0"):
        renewed(readme.replace(f"<!-- {name} -->", ""), results, training, stored, gpu)


def test_a_workload_that_is_missing(results: Run, training: Run, stored: Run, gpu: Run) -> None:
    results["workloads"] = []
    with pytest.raises(ValueError, match=r"results must have the workloads adam/200x100000/fp32, .* but have no adam"):
        blocks(results, training, stored, gpu)


def test_every_set_of_formats_is_a_row_with_its_bytes(results: Run) -> None:
    by_key = {workload["key"]: workload for workload in results["workloads"]}
    by_key["adamw/one-24/split24"]["rows"] = by_key["adamw/one-24/fp32"]["rows"]
    _, _, *rows = [line.strip("| ").split(" | ") for line in formats(results).splitlines()]
    cells = {head: cells for head, *cells in rows}
    assert list(cells) == list(FORMAT_ROWS.values())
    plain, split = cells["float32"], cells["bfloat16 + 8 bits, state in float32"]
    assert [plain[:2], split[:2]] == [["12", "28"], ["11", "24"]]
    assert plain[2:] == split[2:]
    assert set(FORMAT_ROWS) == {f"adamw/one-24/{name}" for name in FORMAT_SETS}


def test_contenders_take_no_more_memory_than_they_are_said_to(results: Run) -> None:
    temporaries = {contender.name: contender.temporaries for contender in contenders("cpu")}
    for workload in results["workloads"]:
        params = FORMATS[workload["formats"]["param"]].itemsize * workload["numel"]
        for row in workload["rows"]:
            if row["extra_memory"] is not None and params > 1 << 26:
                most = (temporaries[row["contender"]] + 1) * params  # a heap may keep what it has got back
                assert row["extra_memory"] <= most, (workload["key"], row["contender"])
