"""Checkpoints of the optimizers for PyTorch, which are those of torch.optim.

1. Training that is saved and loaded in another process, by weights alone, goes on with the very bits of training that
   was not, whatever the class, the options and the extras.
2. What torch.optim saved gpuopt goes on with, and the other way round, from and to each implementation of torch: close
   to training by torch alone. That holds before the first step and for parameters that have not been stepped too.
3. Every entry of the state keeps its bits and dtype, ``step`` is float32, and the layout becomes the parameter's.
4. Hooks run when they would and see what they would. What torch refuses is refused, and nothing changes then.
5. A state dict can be loaded again, by its own optimizer and by two of them, which then count for themselves.
6. Backends may change between steps, and change no bit.
7. A state dict carries the extras, which torch.optim carries on. Loading restores them, but for what the constructor
   was given otherwise, or was set since: that stays, and is warned of.
8. What is of another rule, or has lost a part of its state, is refused, and nothing changes then.
"""

from __future__ import annotations

import subprocess
import sys
from copy import copy, deepcopy
from pathlib import Path

import pytest
import torch
from kit.checkpoints import (
    END,
    OPTIONS,
    STOP,
    WAYS,
    assert_same,
    bits,
    checkpoint,
    go_on_all,
    groups,
    makes_missing_state,
    new,
    params,
    resume,
    save_all,
    tensors,
    through_a_file,
    train,
    ways,
)
from kit.tolerances import TORCH

import gpuopt
from gpuopt.kernels.drivers import DRIVERS

BACKENDS = [name for name, entry in DRIVERS.items() if entry.device == "cpu" and not entry.unavailable()]
NARROW = (torch.float16, torch.bfloat16)
PAIRS = [(case, way) for case in OPTIONS for way in ways(case)]


@pytest.fixture(scope="module")
def ended(tmp_path_factory):
    """What another process made of what this one saved."""
    folder = tmp_path_factory.mktemp("checkpoints")
    save_all(folder)
    code = (
        f"import sys, pathlib; sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        f"from kit.checkpoints import {go_on_all.__name__} as go_on\ngo_on(pathlib.Path({str(folder)!r}))"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    return torch.load(folder / "ended.pt", weights_only=True)


def uninterrupted(library, case, **arguments):
    optimizer = new(library, case, params(), **arguments)
    train(optimizer, range(END))
    return checkpoint(optimizer)


def assert_close(ours, theirs):
    ours, theirs = tensors(ours), tensors(theirs)
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        rtol, atol = TORCH[str(theirs[name].dtype).removeprefix("torch.")]
        torch.testing.assert_close(tensor, theirs[name], rtol=rtol, atol=atol, msg=lambda m, name=name: f"{name}: {m}")


@pytest.mark.parametrize("case", OPTIONS)
def test_another_process_goes_on_with_the_same_bits(case, ended):
    assert_same(ended[case, "gpuopt", "gpuopt"], uninterrupted(gpuopt, case))


@pytest.mark.parametrize(("case", "way"), PAIRS)
def test_what_torch_saved_goes_on(case, way, ended):
    assert_close(ended[case, way, "gpuopt"], uninterrupted(torch.optim, case, **WAYS[way]))


@pytest.mark.parametrize(("case", "way"), PAIRS)
def test_torch_goes_on_with_what_was_saved(case, way, ended):
    assert_close(ended[case, "gpuopt", way], uninterrupted(torch.optim, case, **WAYS[way]))


EXTRAS = {
    "ema": (torch.float32, {"ema_decay": 0.9}),
    "ema of bf16": (torch.bfloat16, {"ema_decay": 0.9}),
    "master": (torch.bfloat16, {"master_weights": True}),
    "master of 24 bits, and ema": (torch.bfloat16, {"master_weights": "24bit", "ema_decay": 0.9}),
    "stochastic": (torch.bfloat16, {"stochastic_rounding": True, "seed": 7}),
    "stochastic state of a master": (
        torch.bfloat16,
        {"master_weights": True, "stochastic_rounding": True, "state_dtype": torch.bfloat16},
    ),
    "master and ema of fp16": (torch.float16, {"master_weights": True, "ema_decay": 0.9}),
    "bf16 state of fp32": (torch.float32, {"state_dtype": torch.bfloat16}),
    "fp32 state of bf16": (torch.bfloat16, {"state_dtype": torch.float32}),
    "fp64 state of fp32": (torch.float32, {"state_dtype": torch.float64}),
    "bf16 state of a master": (torch.bfloat16, {"master_weights": True, "state_dtype": torch.bfloat16}),
    "fp64": (torch.float64, {}),
    "fp32 state of fp64": (torch.float64, {"state_dtype": torch.float32, "ema_decay": 0.9}),
    "clipped": (torch.float32, {"max_grad_norm": 0.5}),
}


@pytest.mark.parametrize("extra", EXTRAS)
@pytest.mark.parametrize("case", ["Adam-amsgrad", "RMSprop-both", "SGD-dampening", "Adagrad"])
def test_extras_and_dtypes_survive(case, extra):
    dtype, extras = EXTRAS[extra]
    straight = new(gpuopt, case, params(dtype), backend="numpy", **extras)
    train(straight, range(STOP))
    before = through_a_file(checkpoint(straight))
    train(straight, range(STOP, END))

    loaded = new(gpuopt, case, params(dtype), backend="numpy", **extras)
    resume(loaded, through_a_file(before))
    assert_same(checkpoint(loaded), before)
    for param, state in loaded.state.items():
        is_narrow = param.dtype in NARROW
        is_mastered = is_narrow and "master_weights" in extras
        expected = dict.fromkeys(state, extras.get("state_dtype", torch.float32 if is_mastered else param.dtype))
        expected |= {"step": torch.float32, "master_param": torch.float32, "param_remainder": torch.int16}
        if extras.get("master_weights") == "24bit":
            expected["param_remainder"] = torch.int8
        original = "param_remainder" if dtype is torch.bfloat16 else "master_param"
        expected["ema"] = torch.float32 if is_narrow else param.dtype
        assert {"master_param", "param_remainder"} & set(state) == ({original} if is_mastered else set())
        assert ("ema" in state) == ("ema_decay" in extras)
        assert {name: tensor.dtype for name, tensor in state.items()} == {name: expected[name] for name in state}
    train(loaded, range(STOP, END))
    assert_same(checkpoint(loaded), checkpoint(straight))
    if "ema_decay" in extras:
        averages = [state["ema"].to(param.dtype) for param, state in loaded.state.items()]
        with loaded.averaged_weights():
            assert [bits(param) for param in loaded.state] == [bits(average) for average in averages]


def test_extras_do_not_hinder_torch():
    straight = new(torch.optim, "AdamW", params())
    train(straight, range(END))
    ours = new(gpuopt, "AdamW", params(), backend="numpy", ema_decay=0.9, state_dtype=torch.float64)
    train(ours, range(STOP))
    theirs = new(torch.optim, "AdamW", params())
    resume(theirs, through_a_file(checkpoint(ours)))
    train(theirs, range(STOP, END))
    torch.testing.assert_close(
        checkpoint(theirs)["params"][:4], checkpoint(straight)["params"][:4], rtol=TORCH["float32"][0], atol=2e-6
    )


@pytest.mark.parametrize("to_channels_last", [True, False], ids=["to channels-last", "from channels-last"])
def test_state_takes_the_layout_of_the_parameter(to_channels_last):
    def model(channels_last):
        made = torch.nn.Parameter(torch.linspace(-1, 1, 48).reshape(2, 3, 4, 2))
        return torch.nn.Parameter(made.detach().to(memory_format=torch.channels_last)) if channels_last else made

    def optimizer(param):
        return gpuopt.AdamW([param], amsgrad=True, ema_decay=0.5, backend="numpy")

    straight = optimizer(model(not to_channels_last))
    train(straight, range(3))
    saved = through_a_file(checkpoint(straight))
    train(straight, range(3, 6))
    param = model(to_channels_last)
    loaded = optimizer(param)
    resume(loaded, saved)
    train(loaded, range(3, 6))
    assert_same(checkpoint(loaded), checkpoint(straight))
    assert {entry.stride() for name, entry in loaded.state[param].items() if name != "step"} == {param.stride()}


def described(value):
    """A state dict with the bits of its tensors in their places."""
    if isinstance(value, dict):
        return {key: described(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [described(entry) for entry in value]
    return (value.dtype, value.shape, bits(value)) if isinstance(value, torch.Tensor) else value


def test_hooks_see_what_they_would():
    source = new(torch.optim, "Adam", params())
    train(source, range(2))
    seen = {}
    for library in (torch.optim, gpuopt):
        optimizer = new(library, "Adam", params())
        log = seen[library] = []

        def first(_, state_dict, log=log):
            log.append(("first", described(state_dict)))
            groups = [{**group, "lr": 0.5} for group in state_dict["param_groups"]]
            state = {**state_dict["state"], 0: {**state_dict["state"][0], "exp_avg": torch.full((3, 5), 2.0)}}
            return {"param_groups": groups, "state": state}

        def second(_, state_dict, log=log):
            log.append(("second", described(state_dict)))
            state_dict["state"] = {**state_dict["state"], 2: {}}

        def after(self, log=log):
            log.append(("after", described(list(self.state.values())), self.param_groups[0]["lr"]))

        handles = [
            optimizer.register_load_state_dict_pre_hook(second),
            optimizer.register_load_state_dict_pre_hook(first, prepend=True),
            optimizer.register_load_state_dict_post_hook(after),
            optimizer.register_load_state_dict_post_hook(lambda _, log=log: log.append("last")),
            optimizer.register_load_state_dict_post_hook(lambda _, log=log: log.append("at once"), prepend=True),
        ]
        for _ in range(2):
            optimizer.load_state_dict(source.state_dict())
        for handle in handles:
            handle.remove()
        optimizer.load_state_dict(source.state_dict())
        assert not optimizer._optimizer_load_state_dict_pre_hooks
        assert not optimizer._optimizer_load_state_dict_post_hooks
    assert seen[torch.optim] == seen[gpuopt]
    names = [entry if isinstance(entry, str) else entry[0] for entry in seen[gpuopt]]
    assert names == ["first", "second", "at once", "after", "last"] * 2


@pytest.mark.parametrize("case", ["Adam", "SGD-dampening"])
def test_hooks_of_state_dict_run(case):
    optimizer = new(gpuopt, case, params())
    train(optimizer, range(2))
    log = []
    optimizer.register_state_dict_pre_hook(log.append)
    optimizer.register_state_dict_post_hook(lambda self, state_dict: {**state_dict, "more": 1})
    assert optimizer.state_dict()["more"] == 1
    assert log == [optimizer]


def one_group(made):
    return [{"params": made}]


def three_groups(made):
    return [{"params": made[:1]}, {"params": made[1:2]}, {"params": made[2:]}]


def other_sizes(made):
    return [{"params": made[:3]}, {"params": made[3:]}]


@pytest.mark.parametrize("grouped", [one_group, three_groups, other_sizes])
def test_other_groups_are_refused_as_by_torch(grouped):
    def raised_by(library):
        wrong = library.Adam(grouped(params()))
        train(wrong, range(2))
        optimizer = library.Adam(groups(params()))
        train(optimizer, range(3))
        before = through_a_file(checkpoint(optimizer))
        with pytest.raises(ValueError, match="loaded state dict") as raised:
            optimizer.load_state_dict(wrong.state_dict())
        after = checkpoint(optimizer)
        assert_same(after, before)
        assert after["optimizer"]["param_groups"] == before["optimizer"]["param_groups"]
        train(optimizer, range(3, 5))
        straight = library.Adam(groups(params()))
        train(straight, range(5))
        assert_same(checkpoint(optimizer), checkpoint(straight))
        return str(raised.value)

    assert raised_by(gpuopt) == raised_by(torch.optim)


def test_where_torch_fails_midway_state_is_still_of_tensors(monkeypatch):
    def fail(optimizer, state):
        torch.optim.Optimizer.__setstate__(optimizer, state)
        raise KeyError("midway")

    trained, adam = (new(gpuopt, "Adam", params()) for _ in range(2))
    train(trained, range(1))
    monkeypatch.setattr(torch.optim.Adam, "__setstate__", fail)
    with pytest.raises(KeyError, match="midway"):
        adam.load_state_dict(trained.state_dict())
    assert adam.state
    assert all(isinstance(entry, torch.Tensor) for state in adam.state.values() for entry in state.values())


@pytest.mark.parametrize("case", OPTIONS)
def test_a_state_dict_can_be_loaded_again(case):
    straight = new(gpuopt, case, params())
    train(straight, range(STOP))
    saved = through_a_file(checkpoint(straight))
    train(straight, range(STOP, END))

    optimizer = new(gpuopt, case, params())
    for _ in range(2):
        resume(optimizer, through_a_file(saved))
        train(optimizer, range(STOP, END))
        assert_same(checkpoint(optimizer), checkpoint(straight))
    for _ in range(2):
        optimizer.load_state_dict(saved["optimizer"])
    resume(optimizer, saved)
    optimizer.load_state_dict(optimizer.state_dict())
    train(optimizer, range(STOP, STOP + 2))
    optimizer.load_state_dict(optimizer.state_dict())
    train(optimizer, range(STOP + 2, END))
    assert_same(checkpoint(optimizer), checkpoint(straight))


@pytest.mark.parametrize("case", [case for case in OPTIONS if not case.startswith("SGD")])
def test_two_that_loaded_one_state_dict_count_for_themselves(case):
    source = new(gpuopt, case, params())
    train(source, range(STOP))
    loaded = source.state_dict()
    counts = [state["step"].item() for state in loaded["state"].values()]
    pair = [new(gpuopt, case, params()) for _ in range(2)]
    for optimizer in pair:
        optimizer.load_state_dict(loaded)
    train(pair[0], range(STOP, STOP + 1))
    train(pair[1], range(STOP, STOP + 3))
    for optimizer, steps in ((source, 0), (pair[0], 1), (pair[1], 3)):
        assert [state["step"].item() for state in optimizer.state.values()] == [count + steps for count in counts]
    assert [state["step"].item() for state in loaded["state"].values()] == counts


@pytest.mark.parametrize(("case", "way"), PAIRS)
def test_before_the_first_step(case, way):
    if not makes_missing_state(case):
        pytest.skip(f"torch.optim.{OPTIONS[case][0]} cannot step what a checkpoint has no state of")
    ours, theirs = new(gpuopt, case, params()), new(torch.optim, case, params(), **WAYS[way])
    assert ours.state_dict()["state"] == {}
    empty, theirs_empty = through_a_file(checkpoint(ours)), through_a_file(checkpoint(theirs))
    resume(ours, theirs_empty)
    resume(theirs, empty, **WAYS[way])
    train(ours, range(END))
    train(theirs, range(END))
    assert_same(checkpoint(ours), uninterrupted(gpuopt, case))
    assert_same(checkpoint(theirs), uninterrupted(torch.optim, case, **WAYS[way]))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("case", OPTIONS)
def test_parameters_that_were_frozen_until_then(case, dtype):
    if not makes_missing_state(case):
        pytest.skip(f"torch.optim.{OPTIONS[case][0]} cannot step what a checkpoint has no state of")

    def trained(first, second):
        before, after = (
            new(library, case, params(dtype), **({"backend": "numpy"} if library is gpuopt else {}))
            for library in (first, second)
        )
        train(before, range(STOP), without=(0, 3))
        resume(after, through_a_file(checkpoint(before)))
        train(after, range(STOP, END))
        return checkpoint(after)

    expected = trained(torch.optim, torch.optim)
    assert_close(trained(gpuopt, torch.optim), expected)
    assert_close(trained(torch.optim, gpuopt), expected)


def test_older_checkpoints_of_torch():
    """There step counts were numbers, and an absent buffer was None."""
    adam = new(gpuopt, "Adam", params())
    train(adam, range(STOP))
    saved = through_a_file(checkpoint(adam))
    for state in saved["optimizer"]["state"].values():
        state["step"] = int(state["step"])
    loaded = new(gpuopt, "Adam", params())
    resume(loaded, saved)
    train(loaded, range(STOP, END))
    assert_same(checkpoint(loaded), uninterrupted(gpuopt, "Adam"))

    sgd = new(gpuopt, "SGD-dampening", params())
    saved = checkpoint(sgd)
    saved["optimizer"]["state"] = {index: {"momentum_buffer": None} for index in range(5)}
    resume(sgd, saved)
    train(sgd, range(END))
    assert_same(checkpoint(sgd), uninterrupted(gpuopt, "SGD-dampening"))


def test_a_step_count_of_sgd_is_kept_up():
    """It comes from where only the device knew the number of the step, here that all had been skipped."""
    straight = new(gpuopt, "SGD-dampening", params())
    loaded = new(gpuopt, "SGD-dampening", params())
    saved = checkpoint(loaded)
    saved["optimizer"]["state"] = {
        index: {"step": torch.tensor(0.0), "momentum_buffer": torch.zeros_like(param)}
        for index, param in enumerate(saved["params"])
    }
    resume(loaded, saved)
    for step in range(4):
        for optimizer in (straight, loaded):
            train(optimizer, [step], without=range(step % 2))
    assert [state["step"].item() for state in loaded.state.values()] == [2, 3, 4, 4, 4]
    assert_same(
        {**checkpoint(loaded), "optimizer": {"state": {}}}, {**checkpoint(straight), "optimizer": {"state": {}}}
    )


@pytest.mark.parametrize(
    ("case", "dtype", "extras"),
    [(case, torch.float32, {}) for case in OPTIONS]
    + [("AdamW", torch.bfloat16, {"ema_decay": 0.9, "master_weights": True})],
)
def test_backends_may_change_between_steps(case, dtype, extras):
    straight = new(gpuopt, case, params(dtype), backend="numpy", **extras)
    train(straight, range(END))
    changing = new(gpuopt, case, params(dtype), **extras)
    for step in range(END):
        changing.backend = BACKENDS[step // 2 % len(BACKENDS)]
        train(changing, [step])
        if step % 3 == 0:
            resume(changing, through_a_file(checkpoint(changing)))
    assert_same(checkpoint(changing), checkpoint(straight))


# Extras

CARRIED = {
    "max_grad_norm": 0.5,
    "ema_decay": 0.9,
    "zero_grads": True,
    "error_if_nonfinite": True,
    "master_weights": True,
    "stochastic_rounding": True,
    "seed": 3,
    "state_dtype": torch.bfloat16,
}


@pytest.mark.parametrize("case", ["AdamW", "RMSprop-both", "SGD-dampening", "Adagrad"])
def test_extras_are_restored_and_training_goes_on_with_the_same_bits(case):
    straight = new(gpuopt, case, params(torch.bfloat16), **CARRIED)
    train(straight, range(STOP))
    saved = through_a_file(checkpoint(straight))
    train(straight, range(STOP, END))

    loaded = new(gpuopt, case, params(torch.bfloat16))
    resume(loaded, saved)
    assert {name: getattr(loaded, name) for name in CARRIED} == CARRIED
    assert not any(set(CARRIED) & set(group) for group in loaded.param_groups)
    train(loaded, range(STOP, END))
    assert_same(checkpoint(loaded), checkpoint(straight))


@pytest.mark.parametrize("way", WAYS)
def test_torch_carries_extras_on(way):
    optimizer = new(gpuopt, "AdamW", params(), ema_decay=0.9, max_grad_norm=0.5)
    train(optimizer, range(STOP))
    theirs = new(torch.optim, "AdamW", params(), **WAYS[way])
    theirs.load_state_dict(optimizer.state_dict())
    train(theirs, range(STOP, STOP + 1))
    back = new(gpuopt, "AdamW", params())
    back.load_state_dict(through_a_file(theirs.state_dict()))
    assert (back.ema_decay, back.max_grad_norm, back.zero_grads) == (0.9, 0.5, False)


def test_without_extras_a_state_dict_has_the_keys_of_torch():
    ours, theirs = (new(library, "AdamW", params()) for library in (gpuopt, torch.optim))
    ours.backend = "numpy"
    for mine, other in zip(ours.state_dict()["param_groups"], theirs.state_dict()["param_groups"], strict=True):
        assert mine == other


@pytest.mark.parametrize("name", CARRIED)
def test_what_the_constructor_was_told_stays(name):
    extras = {"max_grad_norm": 0.5} if name == "error_if_nonfinite" else {}
    optimizer = new(gpuopt, "AdamW", params(torch.bfloat16), **extras | {name: CARRIED[name]})
    default = getattr(new(gpuopt, "AdamW", params()), name)
    train(optimizer, range(1))
    saved = optimizer.state_dict()
    told = new(gpuopt, "AdamW", params(torch.bfloat16), **extras | {name: default})
    with pytest.warns(
        UserWarning, match=f"^{name} stays .* as this optimizer was told, where the state dict"
    ) as caught:
        told.load_state_dict(saved)
    assert getattr(told, name) == default
    assert caught[0].filename == __file__
    told.load_state_dict(told.state_dict())


def test_what_was_set_since_stays():
    saved = new(gpuopt, "AdamW", params(), ema_decay=0.9, max_grad_norm=1.0).state_dict()
    optimizer = new(gpuopt, "AdamW", params())
    optimizer.ema_decay = 0.5
    with pytest.warns(UserWarning, match=r"^ema_decay stays 0\.5, as this optimizer was told, where .* has 0\.9$"):
        optimizer.load_state_dict(saved)
    assert (optimizer.ema_decay, optimizer.max_grad_norm) == (0.5, 1.0)


def test_what_was_loaded_gives_way_to_what_is_loaded_next():
    first, second, none = (
        new(gpuopt, "AdamW", params(), **extras).state_dict() for extras in ({"ema_decay": 0.9}, {"ema_decay": 0.5}, {})
    )
    optimizer = new(gpuopt, "AdamW", params(), zero_grads=True)
    for saved, expected in ((first, 0.9), (second, 0.5), (none, None), (first, 0.9)):
        optimizer.load_state_dict(saved)
        assert (optimizer.ema_decay, optimizer.zero_grads) == (expected, True)
        optimizer = deepcopy(optimizer)


def test_groups_that_disagree():
    saved = new(gpuopt, "AdamW", params(), ema_decay=0.9).state_dict()
    del saved["param_groups"][1]["ema_decay"]
    with pytest.raises(
        ValueError, match=r"ema_decay must be the same in all groups of a state dict, but is \[0.9, None"
    ):
        new(gpuopt, "AdamW", params()).load_state_dict(saved)


# Of another rule

OF_ANOTHER = [
    ("AdamW", "RMSprop"),
    ("AdamW", "SGD"),
    ("AdamW", "Adagrad"),
    ("RMSprop-both", "AdamW"),
    ("RMSprop", "SGD"),
    ("RMSprop", "Adagrad"),
    ("SGD-momentum", "Adam-amsgrad"),
    ("SGD", "RMSprop"),
    ("SGD", "Adagrad"),
    ("Adagrad", "AdamW"),
    ("Adagrad", "RMSprop"),
    ("Adagrad", "SGD-momentum"),
]


@pytest.mark.parametrize("steps", [0, 1])
@pytest.mark.parametrize("library", [gpuopt, torch.optim], ids=["gpuopt", "torch"])
@pytest.mark.parametrize(("saves", "loads"), OF_ANOTHER)
def test_another_rule_is_refused(saves, loads, library, steps):
    saver, loader = new(library, saves, params()), new(gpuopt, loads, params())
    train(saver, range(steps))
    train(loader, range(1))
    before = deepcopy(checkpoint(loader))
    name = OPTIONS[loads][0]
    with pytest.raises(ValueError, match=f"^state_dict must be of {name}, but its groups have no "):
        loader.load_state_dict(saver.state_dict())
    assert_same(checkpoint(loader), before)


@pytest.mark.parametrize("entry", ["exp_avg", "exp_avg_sq", "step"])
def test_state_that_has_lost_an_entry_is_refused(entry):
    saver, loader = (new(gpuopt, "Adam-amsgrad", params()) for _ in range(2))
    train(saver, range(1))
    saved = saver.state_dict()
    del saved["state"][2][entry]
    with pytest.raises(ValueError, match=f"^state_dict must be of Adam, but state of parameter 2 has no {entry}$"):
        loader.load_state_dict(saved)
    assert not loader.state


@pytest.mark.parametrize(
    ("name", "before", "after"),
    [
        ("RMSprop", {"momentum": 0.0}, {"momentum": 0.9}),
        ("RMSprop", {"centered": False}, {"centered": True}),
        ("Adam", {"amsgrad": False}, {"amsgrad": True}),
    ],
)
def test_an_option_that_was_switched_on_while_a_parameter_was_frozen(name, before, after):
    made = [params(), params()]
    optimizer, loaded = (getattr(gpuopt, name)(each, lr=0.01, **before) for each in made)
    train(optimizer, range(2))
    optimizer.param_groups[0].update(after)
    optimizer.load_state_dict(optimizer.state_dict())
    train(optimizer, range(2, 4), without=[2])
    loaded.load_state_dict(deepcopy(optimizer.state_dict()))
    for one, other in zip(*made, strict=True):
        other.data.copy_(one)
    for each in (optimizer, loaded):
        train(each, range(4, 6))
    assert_same(checkpoint(loaded), checkpoint(optimizer))


def test_state_of_extras_that_nothing_is_said_of():
    """As of a state dict whose groups were made anew."""
    saver = new(gpuopt, "AdamW", params(torch.bfloat16), ema_decay=0.9, master_weights=True)
    train(saver, range(1))
    saved = saver.state_dict()
    for group in saved["param_groups"]:
        del group["ema_decay"], group["master_weights"]
    with pytest.warns(UserWarning, match=r"^the state dict has (ema|param_remainder), but says nothing of ") as caught:
        new(gpuopt, "AdamW", params(torch.bfloat16)).load_state_dict(saved)
    assert [each.filename for each in caught] == [__file__] * 2
    new(gpuopt, "AdamW", params(torch.bfloat16), ema_decay=0.9, master_weights=True).load_state_dict(saved)


def test_an_extra_that_cannot_be():
    saved = new(gpuopt, "AdamW", params(), ema_decay=0.9).state_dict()
    for group in saved["param_groups"]:
        group["ema_decay"] = "x"
    optimizer = new(gpuopt, "AdamW", params())
    with pytest.raises(ValueError, match=r"ema_decay must be in \[0, 1\] or None, but is 'x'"):
        optimizer.load_state_dict(saved)
    assert optimizer.ema_decay is None


def test_a_pickle_from_before_state_dicts_carried_extras():
    optimizer = new(gpuopt, "AdamW", params(), ema_decay=0.9)
    state = optimizer.__getstate__()
    del state["_unsaid"]
    old = gpuopt.AdamW.__new__(gpuopt.AdamW)
    old.__setstate__(state)
    deepcopy(old).load_state_dict(optimizer.state_dict())
    assert old.ema_decay == 0.9


def test_a_copy_has_extras_of_its_own():
    optimizer = new(gpuopt, "AdamW", params())
    other = copy(optimizer)
    other.load_state_dict(new(gpuopt, "AdamW", params(), ema_decay=0.9).state_dict())
    optimizer.load_state_dict(new(gpuopt, "AdamW", params(), ema_decay=0.5).state_dict())
    assert (other.ema_decay, optimizer.ema_decay) == (0.9, 0.5)


def test_a_checkpoint_from_before_there_were_switches_is_loaded():
    saver, loader = (new(gpuopt, "Adam", params()) for _ in range(2))
    train(saver, range(STOP))
    saved = deepcopy(saver.state_dict())
    for group in saved["param_groups"]:
        for name in ("amsgrad", "maximize", "foreach", "capturable", "differentiable", "fused"):
            del group[name]
    loader.load_state_dict(saved)
    assert all(
        torch.equal(loader.state[p]["exp_avg"], saver.state[q]["exp_avg"])
        for p, q in zip(loader.state, saver.state, strict=True)
    )
