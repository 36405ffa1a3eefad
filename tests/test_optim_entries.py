"""The state of a parameter, and that of an optimizer, give notice whenever an entry may be another than before.

1. Every way to set or remove an entry gives notice; reading gives none. State that is missing is made, with notice.
2. Copies, pickles and state dicts have plain dicts, which load without gpuopt.
"""

from __future__ import annotations

import copy
import io
import pickle
from collections import OrderedDict, defaultdict
from collections.abc import Callable
from typing import Any

import pytest
import torch

import gpuopt
from gpuopt.optim.entries import Entries, Notice, States

KINDS: dict[str, Callable[[], Any]] = {
    "entries": lambda: Entries({"a": 1}, Notice()),
    "states": lambda: States({"a": 1}),
}

each_kind = pytest.mark.parametrize("kind", KINDS)

CHANGES: dict[str, Callable[[Any], Any]] = {
    "set": lambda entries: entries.__setitem__("a", 2),
    "deleted": lambda entries: entries.__delitem__("a"),
    "merged": lambda entries: entries.__ior__({"b": 2}),
    "cleared": lambda entries: entries.clear(),
    "popped": lambda entries: entries.pop("a"),
    "popped, whichever": lambda entries: entries.popitem(),
    "set if missing": lambda entries: entries.setdefault("b", 2),
    "updated": lambda entries: entries.update(b=2),
}


@each_kind
@pytest.mark.parametrize("how", CHANGES)
def test_changes_give_notice(kind: str, how: str) -> None:
    made, plain = KINDS[kind](), {"a": 1}
    assert CHANGES[how](made) == CHANGES[how](plain)
    assert (made, made.notice.changed) == (plain, True)


@pytest.mark.parametrize("kind", [Entries, States])
def test_every_method_that_can_change_a_dict_is_known(kind: type) -> None:
    reading = {"copy", "fromkeys", "get", "items", "keys", "values"}
    changing = {name for name in vars(kind) if name in vars(dict)}
    public = {name for name in vars(dict) if not name.startswith("__")} | {"__setitem__", "__delitem__", "__ior__"}
    assert changing >= public - reading


@each_kind
def test_reading_gives_no_notice(kind: str) -> None:
    made = KINDS[kind]()
    assert (made["a"], made.get("b"), list(made), dict(made)) == (1, None, ["a"], {"a": 1})
    assert not made.notice.changed


def test_state_that_is_missing_is_made() -> None:
    states = States({})
    assert (states["a"], states) == ({}, {"a": {}})
    assert states.notice.changed


@each_kind
@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, lambda entries: pickle.loads(pickle.dumps(entries))])
def test_copies_are_plain(kind: str, copied: Callable[[Any], Any]) -> None:
    made = KINDS[kind]()
    got = copied(made)
    assert type(got) in (dict, OrderedDict, defaultdict)
    assert (got, made.notice.changed) == ({"a": 1}, False)


def test_state_dicts_are_plain_also_for_hooks() -> None:
    param = torch.nn.Parameter(torch.ones(3))
    param.grad = torch.ones(3)
    optimizer, seen = gpuopt.Adam([param]), []
    optimizer.register_state_dict_post_hook(lambda _, state_dict: seen.append(type(state_dict["state"][0])))
    optimizer.step()
    assert isinstance(optimizer.state[param], Entries)
    assert loaded(optimizer.state_dict())["state"][0].keys() == {"step", "exp_avg", "exp_avg_sq"}
    assert seen == [dict]


def test_entries_load_as_what_is_safe_also_by_themselves() -> None:
    got = loaded(Entries({"a": torch.ones(2)}))
    assert isinstance(got, dict)
    assert torch.equal(got["a"], torch.ones(2))


def loaded(saved: Any) -> Any:
    file = io.BytesIO()
    torch.save(saved, file)
    file.seek(0)
    return torch.load(file, weights_only=True)
