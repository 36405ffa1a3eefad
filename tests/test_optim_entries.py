"""The state of a parameter is a dict that gives notice whenever an entry may be another than before.

1. Every way to set or remove an entry gives notice; reading gives none.
2. Copies, pickles and state dicts have plain dicts, which load without gpuopt.
"""

from __future__ import annotations

import copy
import io
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch

import gpuopt
from gpuopt.optim.entries import Entries, Notice

CHANGES: dict[str, Callable[[Entries], Any]] = {
    "set": lambda entries: entries.__setitem__("a", 2),
    "deleted": lambda entries: entries.__delitem__("a"),
    "merged": lambda entries: entries.__ior__({"b": 2}),
    "cleared": lambda entries: entries.clear(),
    "popped": lambda entries: entries.pop("a"),
    "popped, whichever": lambda entries: entries.popitem(),
    "set if missing": lambda entries: entries.setdefault("b", 2),
    "updated": lambda entries: entries.update(b=2),
}


@pytest.mark.parametrize("how", CHANGES)
def test_changes_give_notice(how: str) -> None:
    notice, plain = Notice(), {"a": 1}
    entries = Entries(plain, notice)
    assert CHANGES[how](entries) == CHANGES[how](plain)  # type: ignore[arg-type]
    assert (entries, notice.changed) == (plain, True)


def test_every_method_that_can_change_a_dict_is_known() -> None:
    reading = {"copy", "fromkeys", "get", "items", "keys", "values", "__class_getitem__", "__or__", "__ror__"}
    changing = {name for name in vars(Entries) if name in vars(dict)} - {"__init__", "__doc__"}
    public = {name for name in vars(dict) if not name.startswith("__")} | {"__setitem__", "__delitem__", "__ior__"}
    assert changing >= public - reading


def test_reading_gives_no_notice() -> None:
    notice = Notice()
    entries = Entries({"a": 1}, notice)
    assert (entries["a"], entries.get("b"), list(entries), "a" in entries, dict(entries)) == (
        1,
        None,
        ["a"],
        True,
        {"a": 1},
    )
    assert not notice.changed


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, lambda entries: pickle.loads(pickle.dumps(entries))])
def test_copies_are_plain(copied: Callable[[Any], Any]) -> None:
    notice = Notice()
    made = copied(Entries({"a": 1}, notice))
    assert (type(made), made, notice.changed) == (dict, {"a": 1}, False)


def test_state_dicts_are_plain_also_for_hooks() -> None:
    param = torch.nn.Parameter(torch.ones(3))
    param.grad = torch.ones(3)
    optimizer, seen = gpuopt.Adam([param]), []
    optimizer.register_state_dict_post_hook(lambda _, state_dict: seen.append(type(state_dict["state"][0])))
    optimizer.step()
    assert isinstance(optimizer.state[param], Entries)
    file = io.BytesIO()
    torch.save(optimizer.state_dict(), file)
    file.seek(0)
    assert torch.load(file, weights_only=True)["state"][0].keys() == {"step", "exp_avg", "exp_avg_sq"}
    assert seen == [dict]
