"""The state of a parameter, and that of an optimizer, note what others do to them.

1. Every way to set or remove an entry is noted as a change of that parameter's, and every way to read one as lending
   it: whoever has it may put other memory under it at any later time, and that is found out at the next step.
   Reading keys lends nothing. State that is missing is made, and noted.
2. Copies, pickles and state dicts have plain dicts, which load without gpuopt.
3. A step of parameters whose state nobody has read asks nothing of it.
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
from gpuopt import watched
from gpuopt.optim import selection
from gpuopt.watched import Entries, States, Touched


def entries() -> Entries:
    return Entries({"a": 1}, 7, Touched())


def states() -> States:
    return States({"a": 1})


def merged(entries: Any) -> dict[str, Any]:
    into = {"b": 2}
    into.update(entries)
    return into


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

READS: dict[str, Callable[[Any], Any]] = {
    "by key": lambda entries: entries["a"],
    "if there": lambda entries: entries.get("a"),
    "items": lambda entries: list(entries.items()),
    "values": lambda entries: list(entries.values()),
    "merged into a new one": lambda entries: entries | {"b": 2},
    "merged behind another": lambda entries: {"b": 2} | entries,
    "copied": lambda entries: entries.copy(),
    "copied by the module": copy.copy,
    "a dict of it": dict,
    "unpacked": lambda entries: {**entries},
    "into another": merged,
}


@pytest.mark.parametrize("how", CHANGES)
def test_changes_of_entries_are_noted(how: str) -> None:
    made, plain = entries(), {"a": 1}
    assert CHANGES[how](made) == CHANGES[how](plain)
    assert made == plain
    assert (made.touched.changed, made.is_lent, made.touched.news) == ({7}, True, True)


@pytest.mark.parametrize("how", CHANGES)
def test_changes_of_states_are_noted(how: str) -> None:
    made, plain = states(), {"a": 1}
    assert CHANGES[how](made) == CHANGES[how](plain)
    assert (made, made.touched.replaced) == (plain, True)


@pytest.mark.parametrize("how", READS)
def test_what_is_read_is_lent(how: str) -> None:
    made, plain = entries(), {"a": 1}
    assert READS[how](made) == READS[how](plain)
    assert (made.touched.changed, made.is_lent, made.touched.news) == (set(), True, True)


def test_every_method_of_dict_is_known() -> None:
    public = {name for name in vars(dict) if not name.startswith("__")}
    public |= {"__setitem__", "__delitem__", "__ior__", "__getitem__", "__or__", "__ror__", "__iter__"}
    assert {name for name in vars(Entries) if name in vars(dict)} >= public - {"fromkeys", "keys"}
    reading = {"copy", "fromkeys", "get", "items", "keys", "values", "__getitem__", "__or__", "__ror__", "__iter__"}
    assert {name for name in vars(States) if name in vars(dict)} >= public - reading


def test_an_entry_that_stays_is_never_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """An interrupt while a dict becomes another must not cost state."""
    made = Entries({"a": 1, "b": 2}, 7, Touched())

    def interrupted(entries: Any) -> Any:
        raise KeyboardInterrupt

    other = Entries({"a": 3, "c": 4}, 8, Touched())
    with monkeypatch.context() as patch:
        patch.setattr(watched, "plain", interrupted)
        with pytest.raises(KeyboardInterrupt):
            made.become(other)
    assert made == {"a": 1, "b": 2}
    made.become(other)
    assert (made, made.index, made.touched) == ({"a": 3, "c": 4}, 8, other.touched)
    assert not made.is_lent


def test_keys_lend_nothing() -> None:
    made = entries()
    assert (list(made), list(made.keys()), "a" in made, len(made), made == {"a": 1}) == (["a"], ["a"], True, 1, True)
    assert not made.touched.news


def test_states_that_are_read_are_not_replaced() -> None:
    made = states()
    assert (made["a"], made.get("b"), list(made), dict(made)) == (1, None, ["a"], {"a": 1})
    assert not made.touched.replaced


def test_state_that_is_missing_is_made() -> None:
    made = States({})
    assert (made["a"], made) == ({}, {"a": {}})
    assert made.touched.replaced


@pytest.mark.parametrize("make", [entries, states])
@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, lambda entries: pickle.loads(pickle.dumps(entries))])
def test_copies_are_plain(make: Callable[[], Any], copied: Callable[[Any], Any]) -> None:
    got = copied(make())
    assert type(got) in (dict, OrderedDict, defaultdict)
    assert got == {"a": 1}


@pytest.mark.parametrize("lent", [False, True])
def test_state_is_asked_only_where_it_was_read(lent: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    params = [torch.nn.Parameter(torch.ones(3)) for _ in range(2)]
    for param in params:
        param.grad = torch.ones(3)
    optimizer = gpuopt.Adam(params)
    optimizer.step()
    average = dict.__getitem__(optimizer.state[params[0]], "exp_avg")
    if lent:
        assert optimizer.state[params[0]]["exp_avg"] is average
    asked: list[int] = []
    address_of = torch.Tensor.data_ptr
    monkeypatch.setattr(selection, "address_of", lambda tensor: (asked.append(id(tensor)), address_of(tensor))[1])
    optimizer.step()
    assert (id(average) in asked) is lent
    assert id(dict.__getitem__(optimizer.state[params[1]], "exp_avg")) not in asked


def test_the_dict_of_a_parameter_stays_the_same() -> None:
    param = torch.nn.Parameter(torch.ones(3))
    param.grad = torch.zeros(3)
    optimizer = gpuopt.SGD([param], lr=1.0, momentum=0.5)
    optimizer.step()
    state = optimizer.state[param]
    for value in (2.0, 4.0):
        state["momentum_buffer"] = torch.full((3,), value)
        optimizer.step()
        assert optimizer.state[param] is state
        assert torch.equal(state["momentum_buffer"], torch.full((3,), value / 2))


def test_what_was_read_is_known_for_good() -> None:
    """Also when all rows are made anew."""
    params = [torch.nn.Parameter(torch.ones(3)) for _ in range(2)]
    for param in params:
        param.grad = torch.zeros(3)
    optimizer = gpuopt.SGD([params[0]], lr=0.0, momentum=0.5)
    optimizer.step()
    buffer = optimizer.state[params[0]]["momentum_buffer"]
    optimizer.add_param_group({"params": [params[1]]})
    optimizer.step()
    buffer.data = torch.full((3,), 4.0)
    optimizer.step()
    assert torch.equal(buffer, torch.full((3,), 2.0))


def test_what_was_read_once_may_be_put_elsewhere_later() -> None:
    param = torch.nn.Parameter(torch.ones(3))
    param.grad = torch.ones(3)
    optimizer = gpuopt.SGD([param], lr=0.0, momentum=0.5)
    optimizer.step()
    buffer = optimizer.state[param]["momentum_buffer"]
    for _ in range(2):
        optimizer.step()
        buffer.data = torch.full((3,), 4.0)
        optimizer.step()
        assert torch.equal(buffer, torch.full((3,), 3.0))


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
    got = loaded(Entries({"a": torch.ones(2)}, 0, Touched()))
    assert isinstance(got, dict)
    assert torch.equal(got["a"], torch.ones(2))


def loaded(saved: Any) -> Any:
    file = io.BytesIO()
    torch.save(saved, file)
    file.seek(0)
    return torch.load(file, weights_only=True)
