"""State in 8 bits of the optimizers for PyTorch, by ``state_dtype="8bit"``.

1. It is for every class whose rule has no sum, and takes a byte and a thirty-second for an element of a slot, as codes
   and scales under names of their own. A sum is refused.
2. A step is the oracle's: values of codes and scales, the relation of the rule's slots restored, the rule in the
   compute dtype, what of that is stored, and codes and scales of it by
   the random bits of their places, block by block in the order of the parameter's memory; of every shape and layout.
3. All else that an optimizer does it does beside it: what changes no bit of other steps changes none here, and an
   original of 32 bits has the bits of a float32 parameter.
4. State is converted, to 8 bits and back, where ``state_dtype`` is changed or a checkpoint has it otherwise: to the
   nearest codes, and back without loss. What there was stays as it was, and stays in place where the step does nothing.
5. Checkpoints and copies go on with the bits of a run that was not interrupted. ``state_dict_as`` is what torch.optim
   loads; what that saves loads here.
6. State that is no such, sparse gradients, and values that there cannot be, are refused in a sentence before anything
   is written.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable
from copy import deepcopy
from typing import Any

import numpy as np
import pytest
import torch
from kit.checkpoints import through_a_file
from kit.pairs import bits, drawn, set_grads
from kit.tolerances import TORCH

import gpuopt
from gpuopt import eight_bit, optim
from gpuopt.kernels import blocks, prologue
from gpuopt.kernels.drivers import DRIVERS
from gpuopt.kernels.formats import EIGHT_BIT
from gpuopt.kernels.prologue import prologue_at
from gpuopt.kernels.random import key_at, random_bits, slot_key
from gpuopt.kernels.rules import adam, rmsprop, sgd
from gpuopt.plan import MOST_NUMEL

BACKENDS = [name for name, entry in DRIVERS.items() if entry.device == "cpu"]

OPTIONS: dict[str, dict[str, Any]] = {
    "Adam": {"lr": 0.01, "betas": (0.8, 0.9), "eps": 1e-6, "weight_decay": 0.1, "amsgrad": True},
    "AdamW": {"lr": 0.01, "betas": (0.8, 0.9), "eps": 1e-6, "weight_decay": 0.1},
    "RMSprop": {"lr": 0.01, "alpha": 0.9, "eps": 1e-6, "momentum": 0.5, "centered": True},
    "SGD": {"lr": 0.1, "momentum": 0.9, "dampening": 0.2},
}

HYPER: dict[str, Callable[[int], tuple[float, ...]]] = {
    "Adam": lambda step: adam.hyper_at(step, 0.01, 0.8, 0.9, 1e-6),
    "AdamW": lambda step: adam.hyper_at(step, 0.01, 0.8, 0.9, 1e-6),
    "RMSprop": lambda step: rmsprop.hyper_at(step, 0.01, 0.9, 1e-6, 0.5),
    "SGD": lambda step: sgd.hyper_at(step, 0.1, 0.9, 0.2),
}

PROLOGUE: dict[str, Any] = {
    "Adam": prologue_at(0.01, 0.1),
    "AdamW": prologue_at(0.01, 0.1, decoupled=True),
    "RMSprop": prologue_at(0.01, 0.0),
    "SGD": prologue_at(0.1, 0.0),
}

LAYOUTS: dict[str, Callable[[], torch.Tensor]] = {
    "many": lambda: torch.zeros(5, 70),
    "none": lambda: torch.zeros(0, 3),
    "of no dimension": lambda: torch.zeros(()),
    "1": lambda: torch.zeros(1),
    "127": lambda: torch.zeros(127),
    "128": lambda: torch.zeros(128),
    "129": lambda: torch.zeros(129),
    "channels last": lambda: torch.zeros(2, 3, 5, 7).to(memory_format=torch.channels_last),
    "transposed": lambda: torch.zeros(13, 20).t(),
    "with gaps": lambda: torch.zeros(20, 26)[:, ::2],
}

each_class = pytest.mark.parametrize("name", OPTIONS)


def slots_of(name: str) -> tuple[str, ...]:
    """The state slots that the options of a class use."""
    rule = getattr(gpuopt, name).rule
    return rule.required if name == "AdamW" else rule.slots


def parameters(dtype: torch.dtype = torch.float32) -> list[torch.nn.Parameter]:
    made = [make() for make in LAYOUTS.values()]
    for seed, tensor in enumerate(made):
        tensor.copy_(drawn(tensor, seed))
    return [torch.nn.Parameter(tensor.to(dtype)) for tensor in made]


def new(name: str, params: list[torch.nn.Parameter], **extras: Any) -> optim.Fused:
    optimizer: optim.Fused = getattr(gpuopt, name)(
        params, **{**OPTIONS[name], "state_dtype": "8bit", "backend": "numpy", **extras}
    )
    return optimizer


def train(optimizer: torch.optim.Optimizer, steps: range) -> None:
    for step in steps:
        set_grads([param for group in optimizer.param_groups for param in group["params"]], step)
        optimizer.step()


def trained(name: str, steps: int = 3, dtype: torch.dtype = torch.float32, **extras: Any) -> optim.Fused:
    optimizer = new(name, parameters(dtype), **extras)
    train(optimizer, range(steps))
    return optimizer


def everything(optimizer: torch.optim.Optimizer, without: tuple[str, ...] = ()) -> list[dict[str, bytes]]:
    params = [param for group in optimizer.param_groups for param in group["params"]]
    states = [dict(optimizer.state.get(param, {})) for param in params]
    return [
        {"param": bits(param)} | {key: bits(value) for key, value in state.items() if key not in without}
        for param, state in zip(params, states, strict=True)
    ]


def in_order(tensor: torch.Tensor) -> np.ndarray[Any, Any]:
    """The elements in the order of memory, as a copy."""
    axes = sorted(range(tensor.dim()), key=lambda axis: -tensor.stride(axis))
    return tensor.detach().permute(axes).reshape(-1).clone().numpy()


# What it is for, and what it takes


def test_every_class_has_it_or_refuses_it() -> None:
    for name in optim.__all__:
        chosen = getattr(optim, name)
        if not hasattr(chosen, "rule"):
            continue
        fits = set(chosen.rule.kinds.values()) <= set(EIGHT_BIT)
        assert fits == (name in OPTIONS)
        if not fits:
            message = f"^state_dtype must not be '8bit' for {name}, whose sum only grows, so that what is added to it"
            with pytest.raises(ValueError, match=message):
                chosen(parameters(), state_dtype="8bit")


def test_a_sum_is_refused_in_training_too() -> None:
    params = parameters()
    optimizer = gpuopt.Adagrad(params)
    train(optimizer, range(1))
    before = everything(optimizer)
    optimizer.state_dtype = "8bit"
    with pytest.raises(ValueError, match="must not be '8bit' for Adagrad"):
        optimizer.step()
    assert everything(optimizer) == before
    optimizer.state_dtype = None
    optimizer.step()


@each_class
def test_names_dtypes_layouts_and_bytes(name: str) -> None:
    optimizer = trained(name)
    for param in optimizer.param_groups[0]["params"]:
        state = dict(optimizer.state[param])
        assert state.pop("step") == 3
        assert sorted(state) == sorted(each for slot in slots_of(name) for each in eight_bit.names_of(slot))
        for slot in slots_of(name):
            codes, scales = (state[each] for each in eight_bit.names_of(slot))
            assert (codes.dtype, codes.shape) == (torch.uint8, param.shape)
            assert codes.stride() == torch.empty_like(param).stride()
            assert (scales.dtype, tuple(scales.shape)) == (torch.float32, (-(-param.numel() // 128),))
    whole = torch.nn.Parameter(torch.ones(1 << 12))
    whole.grad = torch.ones_like(whole)
    optimizer = new(name, [whole])
    optimizer.step()
    taken = sum(tensor.nbytes for key, tensor in optimizer.state[whole].items() if key != "step")
    assert taken / whole.numel() == len(slots_of(name)) * (1 + 4 / 128)


# A step


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("backend", BACKENDS)
@each_class
def test_a_step_is_the_oracles(name: str, backend: str, dtype: torch.dtype) -> None:
    params, seed = parameters(dtype), 11
    optimizer = new(name, params, backend=backend, seed=seed)
    rule, compute = optimizer.rule, np.float64 if dtype is torch.float64 else np.float32
    formats = {slot: EIGHT_BIT[rule.kinds[slot]] for slot in slots_of(name)}
    expected = [in_order(param) for param in params]
    stored = [
        {slot: (np.zeros(p.size, np.uint8), np.zeros(-(-p.size // 128), np.float32)) for slot in formats}
        for p in expected
    ]
    for step in range(1, 5):
        train(optimizer, range(step, step + 1))
        keys = np.array(key_at(step, seed), np.uint32).reshape(2, 1)
        hyper, before = np.array(HYPER[name](step), compute), np.array(PROLOGUE[name], compute)
        for index, param in enumerate(params):
            grad = torch.empty_like(param).copy_(param.grad)
            p, g = prologue.numpy_form(expected[index], in_order(grad), before)
            values = [
                blocks.load(formats[slot], stored[index][slot]).astype(compute) if slot in formats else None
                for slot in rule.slots
            ]
            with np.errstate(all="ignore"):
                if rule.relation is not None:
                    values = rule.relation.numpy_restore(hyper, *values)
                expected[index], *values = rule.numpy_form(p, g, hyper, *values)
                if rule.relation is not None and rule.relation.numpy_reduce is not None:
                    values = rule.relation.numpy_reduce(hyper, *values)
            place = index * MOST_NUMEL + np.arange(p.size)
            low, high = place.astype(np.uint32), (place >> 32).astype(np.uint32)
            for number, (slot, value) in enumerate(zip(rule.slots, values, strict=True), start=2):
                if value is not None:
                    random = random_bits(number)(low, high, slot_key(*keys, number))
                    stored[index][slot] = blocks.store(formats[slot], value, random)
                    codes, scales = (optimizer.state[param][each] for each in eight_bit.names_of(slot))
                    assert in_order(codes).tobytes() == stored[index][slot][0].tobytes(), (slot, index)
                    assert in_order(scales).tobytes() == stored[index][slot][1].tobytes(), (slot, index)
            assert in_order(param).tobytes() == expected[index].tobytes(), index


def test_a_variance_is_not_negative_where_gradients_are_constant() -> None:
    """As the difference of two averages in 8 bits is within a few steps."""
    param = torch.nn.Parameter(torch.zeros(512))
    optimizer = new("RMSprop", [param], momentum=0.0)
    for _ in range(50):
        param.grad = torch.linspace(-1, 1, 512)
        optimizer.step()
        assert param.isfinite().all()


# All else beside it


SAME: dict[str, dict[str, Any]] = {
    "an average": {"ema_decay": 0.5},
    "a norm that is large enough": {"max_grad_norm": 1e9},
    "zeroed gradients": {"zero_grads": True},
    "rounding of what is not there": {"stochastic_rounding": True},
    "originals of what is wide": {"master_weights": True},
    "a fused step": {"fused": True},
}


@pytest.mark.parametrize("extra", SAME)
@each_class
def test_what_changes_no_bit(name: str, extra: str) -> None:
    assert everything(trained(name, **SAME[extra]), ("ema",)) == everything(trained(name))


@each_class
def test_the_seed_changes_bits(name: str) -> None:
    assert everything(trained(name, seed=1)) != everything(trained(name))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@each_class
def test_an_original_is_stepped_as_a_float32_parameter(name: str, dtype: torch.dtype) -> None:
    narrow = parameters(dtype)
    wide = [torch.nn.Parameter(torch.empty_like(param, dtype=torch.float32).copy_(param.detach())) for param in narrow]
    ours, theirs = new(name, narrow, master_weights=True), new(name, wide)
    for seed in range(3):
        set_grads(narrow, seed)
        for param, other in zip(narrow, wide, strict=True):
            other.grad = param.grad.float()
        ours.step()
        theirs.step()
    for param, other in zip(narrow, wide, strict=True):
        assert bits(ours.master_weight(param)) == bits(other)
        for key, value in theirs.state[other].items():
            assert bits(ours.state[param][key]) == bits(value)


MIXED: dict[str, dict[str, Any]] = {
    "24 bits": {"master_weights": "24bit", "ema_decay": 0.5, "max_grad_norm": 0.1, "zero_grads": True},
    "rounded stochastically": {"stochastic_rounding": True, "ema_decay": 0.5},
    "bfloat16 alone": {},
    "capturable": {"capturable": True, "max_grad_norm": 0.5},
}


@pytest.mark.parametrize("case", MIXED)
@each_class
def test_bfloat16_parameters(name: str, case: str) -> None:
    """Which go where they go with state of float32, but for what rounding does to both."""
    ours = trained(name, 4, torch.bfloat16, **MIXED[case])
    theirs = trained(name, 4, torch.bfloat16, **{**MIXED[case], "state_dtype": torch.float32})
    start = parameters(torch.bfloat16)
    for param, other, old in zip(*(o.param_groups[0]["params"] for o in (ours, theirs)), start, strict=True):
        if param.numel() > 100:
            moved, wanted = (o.master_weight(p).double() - old.detach() for o, p in ((ours, param), (theirs, other)))
            assert (moved - wanted).norm() < 0.3 * wanted.norm()


@each_class
def test_gradients_of_another_dtype_or_layout_that_come_and_go(name: str) -> None:
    ours, theirs = new(name, parameters()), new(name, parameters())
    for step in range(4):
        for optimizer in (ours, theirs):
            params = optimizer.param_groups[0]["params"]
            set_grads(params, step)
            for index, param in enumerate(params):
                if step % 3 == index % 3:
                    param.grad = None
                elif optimizer is ours and param.dim() == 2:
                    param.grad = param.grad.t().contiguous().t()
        before = everything(ours)
        ours.step()
        theirs.step()
        after = everything(ours)
        assert after == everything(theirs)
        assert all(after[index] == before[index] for index in range(len(before)) if step % 3 == index % 3)


@each_class
def test_groups(name: str) -> None:
    """Of which one comes later."""
    params = parameters()
    optimizer = new(name, params[:4])
    train(optimizer, range(2))
    optimizer.add_param_group({"params": params[4:], "lr": 0.02})
    train(optimizer, range(2, 4))
    assert {int(state["step"]) for state in optimizer.state.values()} == {2, 4}
    assert all(
        name.endswith(("_codes", "_scales")) for state in optimizer.state.values() for name in set(state) - {"step"}
    )


def test_an_option_that_is_switched_on_later_has_a_slot_of_zeros_then() -> None:
    params = parameters()
    optimizer = new("AdamW", params)
    train(optimizer, range(2))
    held = optimizer.state[params[0]]["exp_avg_codes"]
    optimizer.param_groups[0]["amsgrad"] = True
    train(optimizer, range(2, 3))
    state = optimizer.state[params[0]]
    assert state["exp_avg_codes"] is held
    assert bits(state["max_exp_avg_sq_scales"]) == bits(state["exp_avg_sq_scales"])


def test_complex_parameters_keep_their_own_dtype() -> None:
    params = [torch.nn.Parameter(torch.ones(3, dtype=torch.complex64)), torch.nn.Parameter(torch.ones(3))]
    optimizer = new("AdamW", params)
    train(optimizer, range(2))
    train(optimizer, range(2, 3))
    assert optimizer.state[params[0]]["exp_avg"].dtype is torch.complex64
    assert optimizer.state[params[1]]["exp_avg_codes"].dtype is torch.uint8
    again = new("AdamW", params)
    again.load_state_dict(optimizer.state_dict())
    train(again, range(1))


# Conversion


@pytest.mark.parametrize("fails", [False, True], ids=["at once", "after steps that do nothing"])
@each_class
def test_state_becomes_8_bits(name: str, fails: bool) -> None:
    params = parameters()
    optimizer = new(name, params, state_dtype=None)
    train(optimizer, range(3))
    held = [dict(optimizer.state[param]) for param in params]
    before = everything(optimizer)
    saved = deepcopy(optimizer.state_dict())
    optimizer.state_dtype = "8bit"
    set_grads(params, 3)
    if fails:
        optimizer.found_inf = torch.ones(())
        optimizer.step()
        assert everything(optimizer) == before
        del optimizer.found_inf
        optimizer.param_groups[0]["lr"] = float("nan")
        with pytest.raises(ValueError, match="lr of group 0 must be finite, but is nan"):
            optimizer.step()
        assert everything(optimizer) == before
        optimizer.param_groups[0]["lr"] = OPTIONS[name]["lr"]
    loaded = new(name, [torch.nn.Parameter(_copy(param)) for param in params])
    loaded.load_state_dict(saved)
    assert all("_codes" in "".join(state) for state in loaded.state.values())
    for each in (optimizer, loaded):
        train(each, range(3, 4))
    assert everything(optimizer) == everything(loaded)
    for param, tensors, old in zip(params, held, before, strict=True):
        slots = {key: bits(value) for key, value in tensors.items() if key != "step"}
        assert slots == {key: value for key, value in old.items() if key in slots}
        assert set(slots).isdisjoint(optimizer.state[param])


@each_class
def test_state_becomes_values_again(name: str) -> None:
    optimizer = trained(name)
    params = optimizer.param_groups[0]["params"]
    kinds = {slot: EIGHT_BIT[optimizer.rule.kinds[slot]] for slot in slots_of(name)}
    wanted = [{slot: _values(optimizer.state[param], slot, kind) for slot, kind in kinds.items()} for param in params]
    for values in wanted:
        if "grad_avg" in values:  # beside which the variance is stored
            values["square_avg"] = values["square_avg"] + values["grad_avg"] * values["grad_avg"]
    before = everything(optimizer)
    saved = optimizer.state_dict_as(torch.float32)["state"]
    for index, values in enumerate(wanted):
        assert all(in_order(saved[index][slot]).tobytes() == value.tobytes() for slot, value in values.items())
    loaded = new(name, [torch.nn.Parameter(_copy(param)) for param in params], state_dtype=None)
    loaded.load_state_dict(optimizer.state_dict_as(torch.float32))
    optimizer.state_dtype = None
    optimizer.found_inf = torch.ones(())
    train(optimizer, range(3, 4))
    assert everything(optimizer) == before
    del optimizer.found_inf
    for each in (optimizer, loaded):
        train(each, range(3, 4))
    for param, other in zip(params, loaded.param_groups[0]["params"], strict=True):
        for slot in kinds:
            assert optimizer.state[param][slot].dtype is torch.float32
            assert bits(optimizer.state[param][slot]) == bits(loaded.state[other][slot])
        assert not any("_codes" in key or "_scales" in key for key in optimizer.state[param])


def _copy(param: torch.Tensor) -> torch.Tensor:
    """A parameter of the same layout, with gaps or not."""
    copy = torch.empty_strided(param.shape, param.stride(), dtype=param.dtype)
    return copy.copy_(param.detach())


def _values(state: Any, slot: str, format: Any) -> np.ndarray[Any, Any]:
    codes, scales = (state[each] for each in eight_bit.names_of(slot))
    return eight_bit.decode(in_order(codes), in_order(scales), format)


@each_class
def test_nothing_is_lost_by_converting_to_and_fro(name: str) -> None:
    """But of centered RMSprop, whose variance and mean, as they are stored, are added and parted again."""
    options = {"centered": False} if name == "RMSprop" else {}
    straight, turned = trained(name, **options), trained(name, **options)
    turned.load_state_dict(turned.state_dict_as(torch.float32))
    assert everything(turned) == everything(straight)
    for optimizer in (straight, turned):
        train(optimizer, range(3, 5))
    assert everything(turned) == everything(straight)


def test_centering_that_is_switched_off_leaves_the_mean_of_squares() -> None:
    """Of which the variance was stored."""
    ours, theirs = (trained("RMSprop", state_dtype=dtype, momentum=0.0) for dtype in ("8bit", None))
    for optimizer in (ours, theirs):
        for seed in range(3, 9):
            for param in optimizer.param_groups[0]["params"]:
                param.grad = 1 + 0.1 * drawn(param, seed)
            optimizer.step()
        optimizer.param_groups[0]["centered"] = False
        before = [param.detach().clone() for param in optimizer.param_groups[0]["params"]]
        optimizer.step()
        optimizer.moved = [p.detach() - was for p, was in zip(optimizer.param_groups[0]["params"], before, strict=True)]
    assert "grad_avg_codes" not in ours.state[ours.param_groups[0]["params"][0]]
    for one, other in zip(ours.moved, theirs.moved, strict=True):
        torch.testing.assert_close(one, other, rtol=0.15, atol=0)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_values_of_other_dtypes_are_converted(dtype: torch.dtype) -> None:
    optimizer = trained("AdamW", state_dtype=dtype)
    optimizer.state_dtype = "8bit"
    train(optimizer, range(3, 4))
    assert {value.dtype for state in optimizer.state.values() for value in state.values()} == {
        torch.uint8,
        torch.float32,
    }
    optimizer.state_dtype = dtype
    train(optimizer, range(4, 5))
    dtypes = {key: value.dtype for state in optimizer.state.values() for key, value in state.items()}
    assert dtypes == {"step": torch.float32, "exp_avg": dtype, "exp_avg_sq": dtype}


def test_a_parameter_that_changes_its_layout() -> None:
    """Its state is encoded anew, in the order of its memory, from the values that it has."""
    param = torch.nn.Parameter(drawn(torch.empty(4, 6, 5, 7), 0))
    optimizer = new("AdamW", [param])
    train(optimizer, range(2))
    before = optimizer.state_dict_as(torch.float32)["state"][0]["exp_avg"]
    param.data = param.detach().to(memory_format=torch.channels_last)
    optimizer.param_groups[0]["betas"] = (1.0 - 2**-20, 1.0 - 2**-20)  # so that averages stay
    param.grad = torch.zeros_like(param)
    optimizer.step()
    after = optimizer.state_dict_as(torch.float32)["state"][0]["exp_avg"]
    assert optimizer.state[param]["exp_avg_codes"].is_contiguous(memory_format=torch.channels_last)
    assert ((after - before).abs() <= before.abs() / 4 + 4e-6 * before.abs().max()).all()


def test_an_overflow_at_first_leaves_nothing() -> None:
    for plain in (False, True):
        params = parameters()
        optimizer = new("AdamW", params)
        if plain:
            other = new("AdamW", parameters(), state_dtype=None)
            train(other, range(1))
            optimizer.state_dtype = None
            optimizer.load_state_dict({**other.state_dict(), "param_groups": optimizer.state_dict()["param_groups"]})
            optimizer.state_dtype = "8bit"
        before = everything(optimizer)
        set_grads(params, 0)
        params[0].grad.view(-1)[0] = float("inf")
        scaler = gpuopt.GradScaler("cpu", init_scale=2.0)
        scaler.scale(torch.ones(()))
        scaler.step(optimizer)
        assert everything(optimizer) == before
        train(optimizer, range(1))
        assert all("exp_avg_codes" in optimizer.state[param] for param in params)


# Checkpoints


def _loaded(optimizer: optim.Fused, name: str) -> optim.Fused:
    params = [torch.nn.Parameter(_copy(param)) for param in optimizer.param_groups[0]["params"]]
    again: optim.Fused = getattr(gpuopt, name)(params, backend="numpy")
    again.load_state_dict(through_a_file(optimizer.state_dict()))
    assert again.state_dtype == "8bit"
    return again


AGAIN: dict[str, Callable[[optim.Fused, str], optim.Fused]] = {
    "state dict": _loaded,
    "copy": lambda optimizer, _: deepcopy(optimizer),
    "pickle": lambda optimizer, _: pickle.loads(pickle.dumps(optimizer)),
}


@pytest.mark.parametrize("how", AGAIN)
@each_class
def test_a_resumed_run_has_the_same_bits(name: str, how: str) -> None:
    optimizer = trained(name, ema_decay=0.5, seed=5)
    again = AGAIN[how](optimizer, name)
    assert everything(again) == everything(optimizer)
    for each in (optimizer, again):
        train(each, range(3, 6))
    assert everything(again) == everything(optimizer)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@each_class
def test_torch_goes_on_with_what_state_dict_as_gives(name: str, dtype: torch.dtype) -> None:
    optimizer = trained(name, ema_decay=0.5, max_grad_norm=1e9)
    saved = through_a_file(optimizer.state_dict_as(dtype))
    assert {
        value.dtype for entries in saved["state"].values() for key, value in entries.items() if key in slots_of(name)
    } == {dtype}
    assert not any("_codes" in key or "_scales" in key for entries in saved["state"].values() for key in entries)
    pairs = []
    for library in (gpuopt, torch.optim):
        params = [torch.nn.Parameter(_copy(param)) for param in optimizer.param_groups[0]["params"]]
        other = getattr(library, name)(params)
        other.load_state_dict(deepcopy(saved))
        other.param_groups[0]["lr"] = OPTIONS[name]["lr"]
        if library is gpuopt:
            assert other.state_dtype is None
            other.state_dtype = torch.float32
        train(other, range(3, 5))
        pairs.append(params)
    rtol, atol = TORCH["bfloat16" if dtype is torch.bfloat16 else "float32"]
    for param, wanted in zip(*pairs, strict=True):
        torch.testing.assert_close(param, wanted, rtol=rtol, atol=max(atol, 1e-3 if dtype is torch.bfloat16 else atol))


@each_class
def test_what_torch_saved_goes_on(name: str) -> None:
    theirs = parameters()
    torchs = getattr(torch.optim, name)(theirs, **OPTIONS[name])
    train(torchs, range(3))
    optimizer = new(name, [torch.nn.Parameter(_copy(param)) for param in theirs])
    optimizer.load_state_dict(through_a_file(torchs.state_dict()))
    assert optimizer.state_dtype == "8bit"
    for index, param in enumerate(optimizer.param_groups[0]["params"]):
        state = torchs.state[theirs[index]]
        for slot in slots_of(name):
            format = EIGHT_BIT[optimizer.rule.kinds[slot]]
            values = state[slot] - state["grad_avg"] ** 2 if slot == "square_avg" else state[slot]
            wanted = eight_bit.encode(in_order(torch.empty_like(param).copy_(values)), format)
            codes, scales = (optimizer.state[param][each] for each in eight_bit.names_of(slot))
            assert in_order(codes).tobytes() == wanted[0].tobytes()
            assert in_order(scales).tobytes() == wanted[1].tobytes()
    train(optimizer, range(3, 5))


@pytest.mark.parametrize("name", ["AdamW", "RMSprop"])
def test_torch_does_not_take_codes_for_values(name: str) -> None:
    optimizer = trained(name)
    params = parameters()
    torchs = getattr(torch.optim, name)(params)
    torchs.load_state_dict(optimizer.state_dict())
    set_grads(params, 0)
    with pytest.raises(KeyError, match=slots_of(name)[0]):
        torchs.step()
    with pytest.raises(ValueError, match=r"exp_avg_codes|square_avg_codes"):
        optimizer.load_state_dict(torchs.state_dict())  # which has cast them


def test_sparse_state_of_torch_is_for_a_step_to_refuse() -> None:
    params = [torch.nn.Parameter(torch.ones(4, 2)) for _ in range(2)]
    torchs = torch.optim.SGD(params[:1], momentum=0.9)
    params[0].grad = torch.ones(4, 2).to_sparse(1)
    torchs.step()
    optimizer = new("SGD", params[1:])
    optimizer.load_state_dict(torchs.state_dict())
    set_grads(params[1:], 0)
    with pytest.raises(RuntimeError, match="must be dense, as its gradient is, but is sparse"):
        optimizer.step()


@pytest.mark.parametrize("state_dtype", [None, torch.bfloat16])
def test_state_dict_as_of_state_that_is_not_in_8_bits_is_the_state_dict(state_dtype: torch.dtype | None) -> None:
    optimizer = trained("AdamW", state_dtype=state_dtype)
    assert str(optimizer.state_dict_as(torch.bfloat16)) == str(optimizer.state_dict())


@pytest.mark.parametrize("dtype", [torch.float16, torch.float8_e4m3fn, torch.int8, "float32", None])
def test_state_dict_as_what_has_no_room_for_squares_is_refused(dtype: Any) -> None:
    optimizer = trained("AdamW", 1)
    with pytest.raises(ValueError, match=r"^dtype must be torch.float32, torch.float64 or torch.bfloat16, but is "):
        optimizer.state_dict_as(dtype)


def test_squares_beside_a_mean_in_codes_are_parted_from_it() -> None:
    """As where somebody puts values in the place of codes."""
    optimizer = trained("RMSprop", momentum=0.0)
    params = optimizer.param_groups[0]["params"]
    wanted = everything(optimizer)
    for param, state in zip(params, optimizer.state_dict_as(torch.float32)["state"].values(), strict=True):
        own = optimizer.state[param]
        del own["square_avg_codes"], own["square_avg_scales"]
        own["square_avg"] = state["square_avg"]
    saved = optimizer.state_dict()
    for param in params:
        param.grad = None
    params[0].grad = torch.zeros_like(params[0])
    optimizer.load_state_dict(saved)
    found = everything(optimizer)
    for one, other in zip(found, wanted, strict=True):
        near = (
            np.frombuffer(one["square_avg_scales"], np.float32),
            np.frombuffer(other["square_avg_scales"], np.float32),
        )
        np.testing.assert_allclose(*near, rtol=1e-5)


def test_what_does_not_fit_is_refused_by_the_step_and_nothing_has_changed_before() -> None:
    saved = trained("RMSprop").state_dict_as(torch.float32)
    saved["state"][0]["grad_avg"] = torch.zeros(7)
    optimizer = new("RMSprop", parameters())
    optimizer.load_state_dict(saved)
    before = [param.detach().clone() for param in optimizer.param_groups[0]["params"]]
    with pytest.raises(ValueError, match="grad_avg"):
        train(optimizer, range(1))
    assert all(map(torch.equal, before, optimizer.param_groups[0]["params"]))


def test_sgd_of_torch_starts_a_new_momentum_of_codes() -> None:
    """Which it does not ask for, where there is none of its name."""
    optimizer = trained("SGD")
    theirs = torch.optim.SGD(parameters(), lr=0.1, momentum=0.9)
    theirs.load_state_dict(optimizer.state_dict())
    train(theirs, range(1))
    assert all("momentum_buffer" in state for state in theirs.state.values())


# Refusals


WRONG: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "no scales": (lambda s: s.pop("exp_avg_scales"), "exp_avg_scales"),
    "no codes": (lambda s: s.pop("exp_avg_codes"), "exp_avg_codes"),
    "codes that were cast": (
        lambda s: s.update(exp_avg_codes=s["exp_avg_codes"].float()),
        "exp_avg_codes of .* must be a tensor of uint8, but is of torch.float32",
    ),
    "codes that are no tensor": (lambda s: s.update(exp_avg_codes=3), "must be a tensor of uint8, but is 3"),
    "scales of another dtype": (
        lambda s: s.update(exp_avg_scales=s["exp_avg_scales"].double()),
        r"exp_avg_scales of .* must be a tensor of float32 and shape \(3,\), an entry for every 128 codes, but is of ",
    ),
    "too few scales": (
        lambda s: s.update(exp_avg_scales=s["exp_avg_scales"][:2]),
        r"exp_avg_scales of .* must be a tensor of float32 and shape \(3,\), .* but is of .* and shape \(2,\)",
    ),
}


@pytest.mark.parametrize("case", WRONG)
@pytest.mark.parametrize("loads", [True, False])
def test_state_that_is_no_such(case: str, loads: bool) -> None:
    change, message = WRONG[case]
    optimizer = trained("AdamW")
    saved = deepcopy(optimizer.state_dict())
    before = everything(optimizer)
    if loads:
        change(saved["state"][0])
        with pytest.raises(ValueError, match=message):
            optimizer.load_state_dict(saved)
        assert everything(optimizer) == before
        train(optimizer, range(3, 4))
        return
    change(optimizer.state[optimizer.param_groups[0]["params"][0]])
    params = [bits(param) for param in optimizer.param_groups[0]["params"]]
    for _ in range(2):
        with pytest.raises(ValueError, match=message):
            optimizer.step()
    assert [bits(param) for param in optimizer.param_groups[0]["params"]] == params


def test_half_a_slot_that_a_rule_does_not_require() -> None:
    optimizer = trained("SGD")
    saved = deepcopy(optimizer.state_dict())
    del saved["state"][0]["momentum_buffer_scales"]
    message = "state of parameter 0 must have momentum_buffer_codes and momentum_buffer_scales or neither, but has no"
    with pytest.raises(ValueError, match=message):
        optimizer.load_state_dict(saved)


def test_codes_of_another_shape() -> None:
    optimizer = trained("AdamW")
    param = optimizer.param_groups[0]["params"][0]
    optimizer.state[param]["exp_avg_codes"] = torch.zeros(70, 5, dtype=torch.uint8)
    with pytest.raises(ValueError, match=r"exp_avg 0 of group 0 must have the shape of param .*\(5, 70\), but has"):
        optimizer.step()


@pytest.mark.parametrize("value", ["8 bit", "float32", 8, b"8bit"])
def test_what_is_no_dtype(value: Any) -> None:
    with pytest.raises(ValueError, match=r"^state_dtype must be torch\.float32, .*, '8bit' or None, but is "):
        gpuopt.AdamW(parameters(), state_dtype=value)


def test_sparse_gradients() -> None:
    param = torch.nn.Parameter(torch.ones(300, 2))
    param.grad = torch.ones_like(param)
    optimizer = new("SGD", [param])
    optimizer.step()
    before = everything(optimizer)
    param.grad = torch.ones(300, 2).to_sparse(1)
    with pytest.raises(RuntimeError, match=r"momentum_buffer must not be in 8 bits where a gradient is sparse"):
        optimizer.step()
    optimizer.state_dtype = None
    with pytest.raises(RuntimeError, match=r"momentum_buffer must not be in 8 bits where a gradient is sparse"):
        optimizer.step()
    assert everything(optimizer) == before
    fresh = new("SGD", [param])
    with pytest.raises(RuntimeError, match=r"state_dtype must be None where a gradient is sparse .* but is 8bit"):
        fresh.step()
