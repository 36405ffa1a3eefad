"""What a reader is told is so, runs as pasted, and leads somewhere.

1. What stands between comments on a page is what :mod:`gpuopt.bench.docs` makes of committed runs, to the letter, and
   so are the pictures and the reports: no measured number is typed by hand. A block without a place, and a run
   without a workload, are refused. Every run of the benchmark that is committed has a column in the README.
2. Committed runs are whole and without faults, those on a CPU are of one machine, in the mean of the seeds no loss is
   farther from float32's than seeds are apart, no step is larger than the goal, and no contender takes more memory than
   it is said beforehand to need.
3. Every Python snippet of a page runs as pasted, those of a page one after another, with warnings as errors, as by
   ``torchrun`` with one process.
4. Every link leads to a file of the checkout, and to a heading where it names one. Every page is reached from the
   README.
5. The README can be read in a minute: it has 150 lines at most, and eight rows of figures.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from gpuopt.bench import docs
from gpuopt.bench.contenders import contenders
from gpuopt.bench.docs import CPU, GPU, Run, load, made, pages, renewed
from gpuopt.bench.picture import LOOKS, bars, machines, pictures
from gpuopt.bench.results import SCHEMA
from gpuopt.bench.train.formats import SCHEMA as STORED_SCHEMA
from gpuopt.bench.train.results import SCHEMA as TRAINING_SCHEMA
from gpuopt.kernels.formats import FORMATS

ROOT = Path(__file__).resolve().parents[1]
README = ROOT / "README.md"
PAGES = [README, *sorted((ROOT / "docs").glob("*.md"))]
LINKING = [*PAGES, *(ROOT / name for name in ("CONTRIBUTING.md", "CHANGELOG.md", "docker/README.md", "bench/NOTES.md"))]
PLACES = [
    (str(page.relative_to(ROOT)), block) for page in PAGES for block in re.findall(r"<!-- (.*) -->", page.read_text())
]
BLOCKS = [(page, block) for page, block in PLACES if block != "end"]

NEEDS = {"trainers.md": ["transformers", "accelerate"]}
"""Packages that the snippets of a page import besides."""

LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)|(?:src|srcset)=\"([^\"]+)\"")


@pytest.fixture
def runs() -> dict[str, Any]:
    return dict(load())


def of_machine(runs: dict[str, Run], *kinds: str) -> list[Run]:
    return [runs[f"{CPU}-{kind}" if kind else CPU] for kind in kinds]


def test_pages_pictures_and_reports_say_what_the_committed_runs_say(runs: dict[str, Any]) -> None:
    for name, text in made(runs):
        assert (ROOT / name).read_text() == text, f"{name} is not what python -m gpuopt.bench.docs makes"


def test_every_place_is_for_a_block(runs: dict[str, Any]) -> None:
    assert sorted(BLOCKS) == sorted((page, block) for page, blocks in pages(runs).items() for block in blocks)


@pytest.mark.parametrize(("page", "block"), BLOCKS)
def test_a_number_that_was_changed_by_hand_is_renewed(page: str, block: str, runs: dict[str, Any]) -> None:
    text = (ROOT / page).read_text()
    blocks = pages(runs)[page]
    told = blocks[block]
    changed = text.replace(told, re.sub(r"\d", "7", told))
    assert changed != text
    assert renewed(changed, page, blocks) == text
    with pytest.raises(ValueError, match=f"{page} must have one place for {block}, between comments, but has 0"):
        renewed(text.replace(f"<!-- {block} -->", ""), page, blocks)


def test_everything_is_written_where_it_belongs(tmp_path: Path, runs: dict[str, Any]) -> None:
    for name, _ in made(runs):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        if name.endswith(".md"):
            shutil.copy(ROOT / name, tmp_path / name)
    docs.main(tmp_path)
    for name, text in made(runs):
        assert (tmp_path / name).read_text() == text


def test_a_workload_that_is_missing(runs: dict[str, Any]) -> None:
    runs[CPU] = {**runs[CPU], "workloads": runs[CPU]["workloads"][:1]}
    with pytest.raises(ValueError, match=r"results must have the workloads adam/200x100000/fp32, .* but have no adam"):
        docs.step_times(runs[CPU], docs.STEPS["PyTorch"])


def test_every_machine_with_a_committed_run_is_in_the_readme_and_the_picture(runs: dict[str, Any]) -> None:
    other = json.loads(json.dumps(runs[CPU]))
    other["machine"] |= {"cpu": "Another", "cores": 64}
    runs["another"] = other
    head, _, *rows = docs.figures(runs).splitlines()
    names = ["NVIDIA H100 80GB HBM3", "Another, 64 cores", "AMD EPYC, 2 cores"]
    assert [cell.strip() for cell in head.split("|")[3:-1]] == list(machines(runs)) == names
    assert all(row.count("|") == len(names) + 3 for row in rows)
    for _, svg in pictures(runs):
        assert [svg.count(name) for name in ("bytes moved", *names)] == [len(docs.SHOWN)] * 4
    runs["the same"] = runs["another"]
    with pytest.raises(ValueError, match="machines with different names, but two are of Another, 64 cores"):
        machines(runs)


def test_a_machine_that_lacks_a_workload_has_no_bar_and_no_figure(runs: dict[str, Any]) -> None:
    lacking = [each for each in runs[GPU]["workloads"] if each["optimizer"] != "RMSprop"]
    runs[GPU] = {**runs[GPU], "workloads": lacking}
    assert [len(group) for group in bars(runs).values()] == [3, 2, 3]
    (line,) = (line for line in docs.figures(runs).splitlines() if line.startswith("| RMSprop"))
    assert "|  |" in line


def test_pictures_are_pictures_in_their_colours(runs: dict[str, Any]) -> None:
    drawn = dict(pictures(runs))
    assert len(drawn) == len(LOOKS) == 2
    for svg, colours in zip(drawn.values(), LOOKS.values(), strict=True):
        assert ElementTree.fromstring(svg).tag.endswith("svg")
        assert all(colour in svg for colour in colours)
    for group in bars(runs).values():
        assert group[0].of == "bytes moved"
        assert all(0 < bar.share < 1.2 for bar in group)


def test_runs_are_whole_and_right(runs: dict[str, Any]) -> None:
    cpu, trained, stored, state, embedding = of_machine(runs, "", "train", "formats", "state", "embedding")
    assert (cpu["schema"], trained["schema"], runs[GPU]["schema"]) == (SCHEMA, TRAINING_SCHEMA, SCHEMA)
    assert stored["schema"] == STORED_SCHEMA
    assert not runs[GPU]["faults"]
    for run in (cpu, trained, stored, embedding, *state["trials"]):
        assert (run["complete"], run["faults"], run["scale"]) == (True, [], "full")


def test_runs_on_a_cpu_are_of_one_machine(runs: dict[str, Any]) -> None:
    first, *others = of_machine(runs, "", "train", "formats")
    for what in ("cpu", "cores", "python", "versions"):
        assert all(first["machine"][what] == other["machine"][what] for other in others)


def test_losses_are_float32s_to_what_seeds_make_of_it(runs: dict[str, Any]) -> None:
    (state,) = of_machine(runs, "state")
    assert len(state["trials"]) == 4
    for trial in state["trials"]:
        assert len(trial["seeds"]) == 3
        assert trial["numel"] >= 1_000_000
        assert all(abs(row["difference"]) <= trial["spread"] for row in trial["rows"])


def test_steps_are_no_larger_than_the_goal(runs: dict[str, Any]) -> None:
    (embedding,) = of_machine(runs, "embedding")
    ours = [row for trial in embedding["trials"] for row in trial["rows"] if row["optimizer"] == "gpuopt, 8 bits"]
    exact = [row for trial in embedding["trials"] for row in trial["rows"] if row["optimizer"] == "torch, float32"]
    assert len(ours) == len(exact) == 4
    assert all(one["update"] <= embedding["goal"] * other["update"] for one, other in zip(ours, exact, strict=True))


def test_contenders_take_no_more_memory_than_they_are_said_to(runs: dict[str, Any]) -> None:
    temporaries = {contender.name: contender.temporaries for contender in contenders("cpu")}
    for workload in runs[CPU]["workloads"]:
        params = FORMATS[workload["formats"]["param"]].itemsize * workload["numel"]
        for row in workload["rows"]:
            if row["extra_memory"] is not None and params > 1 << 26:
                most = (temporaries[row["contender"]] + 1) * params  # a heap may keep what it has got back
                assert row["extra_memory"] <= most, (workload["key"], row["contender"])


def snippets(page: Path) -> str:
    return "\n".join(re.findall(r"^```python\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE))


@pytest.mark.parametrize("page", [page for page in PAGES if snippets(page)], ids=lambda page: page.name)
def test_snippets_run_as_pasted(page: Path, tmp_path: Path) -> None:
    for package in NEEDS.get(page.name, []):
        if find_spec(package) is None:
            pytest.skip(f"needs {package}")
    script = tmp_path / "pasted.py"
    script.write_text(snippets(page))
    torchrun = {"RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "localhost", "MASTER_PORT": "0"}
    done = subprocess.run(
        [sys.executable, "-W", "error::UserWarning", str(script)],
        cwd=tmp_path,
        env=os.environ | torchrun | {"HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_pages_have_snippets() -> None:
    assert {page.name for page in PAGES if snippets(page)} >= {
        "README.md",
        "adding-a-rule.md",
        "distributed.md",
        "mixed-precision.md",
        "options.md",
        "trainers.md",
    }


def anchors(page: Path) -> set[str]:
    """Names of headings, as GitHub makes them."""
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def links(page: Path) -> list[str]:
    return [one or other for one, other in LINK.findall(page.read_text()) if "://" not in (one or other)]


@pytest.mark.parametrize("page", LINKING, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for link in links(page):
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{page.name} links to {link}, which is not there"
        assert target.is_relative_to(ROOT)
        if anchor:
            assert anchor in anchors(target), f"{page.name} links to {link}, but {target.name} has no such heading"


def test_every_page_is_reached_from_the_readme() -> None:
    reached, new = set(), {README}
    while new:
        reached |= new
        linked = {(page.parent / link.partition("#")[0]).resolve() for page in new for link in links(page)}
        new = {page for page in linked if page.suffix == ".md" and page.exists()} - reached
    assert set(LINKING) <= reached


def test_the_readme_is_short(runs: dict[str, Any]) -> None:
    assert len(README.read_text().splitlines()) <= 150
    assert len(docs.figures(runs).splitlines()) <= 2 + 8
