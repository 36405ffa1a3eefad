"""What the page on formats says of state in 8 bits is what committed trainings say.

1. What stands between its comments is what :mod:`gpuopt.bench.docs` makes of them, to the letter.
2. In the mean of the seeds no loss is farther from float32's than seeds are apart, and no step is larger than the goal.
3. A number that was changed by hand is renewed, and a block without a place is refused.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from gpuopt.bench.docs import blocks, main, renewed

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "formats.md"
STATE, EMBEDDING = (ROOT / "bench" / "results" / f"amd-epyc-2-cores-{name}.json" for name in ("state", "embedding"))

Run = dict[str, Any]


@pytest.fixture
def state() -> Run:
    found: Run = json.loads(STATE.read_text())
    return found


@pytest.fixture
def embedding() -> Run:
    found: Run = json.loads(EMBEDDING.read_text())
    return found


def test_the_page_says_what_the_committed_trainings_say(state: Run, embedding: Run) -> None:
    page = PAGE.read_text()
    assert renewed(page, state, embedding) == page
    assert STATE.name in page
    assert EMBEDDING.name in page


def test_losses_are_float32s_to_what_seeds_make_of_it(state: Run) -> None:
    assert len(state["trials"]) == 4
    for trial in state["trials"]:
        assert (trial["complete"], trial["faults"], trial["scale"], len(trial["seeds"])) == (True, [], "full", 3)
        assert trial["numel"] >= 1_000_000
        assert all(abs(row["difference"]) <= trial["spread"] for row in trial["rows"])


def test_steps_are_no_larger_than_the_goal(embedding: Run) -> None:
    assert (embedding["complete"], embedding["faults"], embedding["scale"]) == (True, [], "full")
    ours = [row for trial in embedding["trials"] for row in trial["rows"] if row["optimizer"] == "gpuopt, 8 bits"]
    exact = [row for trial in embedding["trials"] for row in trial["rows"] if row["optimizer"] == "torch, float32"]
    assert len(ours) == len(exact) == 4
    assert all(one["update"] <= embedding["goal"] * other["update"] for one, other in zip(ours, exact, strict=True))


@pytest.mark.parametrize("name", ["state", "embedding"])
def test_a_number_that_was_changed_by_hand_is_renewed(name: str, state: Run, embedding: Run, tmp_path: Path) -> None:
    block = blocks(state, embedding)[name]
    changed = PAGE.read_text().replace(block, block.replace("1", "2"))
    assert changed != PAGE.read_text()
    copy = tmp_path / "page.md"
    copy.write_text(changed)
    main([str(STATE), str(EMBEDDING), str(copy)])
    assert copy.read_text() == PAGE.read_text()
    with pytest.raises(ValueError, match=f"the page must have one place for {name}, between comments, but has 0"):
        renewed(changed.replace(f"<!-- {name} -->", ""), state, embedding)
