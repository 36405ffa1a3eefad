"""What the optimizers for PyTorch refuse.

An error names the parameter by its place and its group, or the setting, and says what was expected and what came.
Nothing has been written then: parameters, gradients, state and step counts have the bits they had, whether it is the
first step or a later one, whatever else is in the optimizer. Once the cause is mended the next step is that of
torch.optim, as if nothing had happened.
"""

from __future__ import annotations

import re
from collections import UserList
from collections.abc import Callable
from typing import Any

import pytest
import torch
from kit.pairs import Pair, drawn, set_grads

import gpuopt

OPTIONS: dict[str, dict[str, Any]] = {
    "Adam": {"lr": 0.01},
    "AdamW": {"lr": 0.01},
    "RMSprop": {"lr": 0.01, "momentum": 0.5, "centered": True},
    "SGD": {"lr": 0.1, "momentum": 0.9, "dampening": 0.2},
    "Adagrad": {"lr": 0.1, "lr_decay": 0.1},
}

each_class = pytest.mark.parametrize("name", OPTIONS)
each_time = pytest.mark.parametrize("steps", [0, 2], ids=["at first", "later"])


def parameters() -> list[torch.nn.Parameter]:
    return [torch.nn.Parameter(drawn(torch.empty(shape), 5)) for shape in [(4,), (), (3, 2)]]


def pair_of(name: str, make: Callable[[], list[torch.nn.Parameter]] = parameters) -> Pair:
    """Two groups: the first parameter, and the others."""
    ours, theirs = make(), make()

    def grouped(params: list[torch.nn.Parameter]) -> list[dict[str, Any]]:
        return [{"params": params[:1]}, {"params": params[1:]}]

    optimizer = getattr(gpuopt, name)(grouped(ours), **OPTIONS[name])
    return Pair(ours, theirs, optimizer, getattr(torch.optim, name)(grouped(theirs), **OPTIONS[name]))


def snapshot(pair: Pair) -> list[dict[str, torch.Tensor]]:
    """Copies of all that has memory; NaN compares equal to none, and is in none of it."""
    everything = [
        {"param": param.data, "grad": param.grad, **pair.optimizer.state.get(param, {})} for param in pair.ours
    ]
    return [
        {key: value.clone() for key, value in entries.items() if value is not None and _readable(value)}
        for entries in everything
    ]


def _readable(tensor: torch.Tensor) -> bool:
    return not tensor.is_sparse and (tensor.numel() == 0 or tensor.untyped_storage().nbytes() > 0)


def assert_refused(pair: Pair, error: type[Exception], message: str) -> None:
    """Demands the error, twice, and that nothing changes."""
    before, states = snapshot(pair), len(pair.optimizer.state)
    for _ in range(2):
        with pytest.raises(error, match=re.escape(message)):
            pair.optimizer.step()
        assert len(pair.optimizer.state) == states
        for entries, old in zip(snapshot(pair), before, strict=True):
            assert entries.keys() == old.keys()
            assert all(torch.equal(entries[key], old[key]) for key in old)


def assert_goes_on(pair: Pair) -> None:
    """Demands that the next steps are torch's."""
    for seed in (10, 11):
        pair.step(seed)
    pair.assert_close()


# Gradients


def _sparse(pair: Pair) -> None:
    pair.ours[2].grad = pair.ours[2].grad.to_sparse()


def _own_memory(pair: Pair) -> None:
    pair.ours[2].grad = pair.ours[2].detach()


def _memory_of_another(pair: Pair) -> None:
    pair.ours[2].grad = pair.ours[0].detach()[:1].expand(3, 2)


def _freed(pair: Pair) -> None:
    pair.ours[2].grad.untyped_storage().resize_(0)


def _negated(pair: Pair) -> None:
    pair.ours[2].grad = torch.zeros(3, 2, dtype=torch.complex64).conj().imag


SPARSE = {
    "Adam": ", please consider SparseAdam instead",
    "AdamW": ", please consider SparseAdam instead",
    "RMSprop": "",
}
"""What is advised instead by those that do not take them; the others are in ``test_optim_sparse.py``."""

GRADS: dict[str, tuple[Callable[[Pair], None], type[Exception], str]] = {
    "own memory": (_own_memory, ValueError, "param 1 of group 1 and grad 1 of group 1 must not share memory"),
    "memory of another": (_memory_of_another, ValueError, "param 0 of group 0 and grad 1 of group 1 must not share"),
    "freed": (_freed, ValueError, "grad 1 of group 1 must have memory, but its storage has been freed"),
    "negated": (_negated, ValueError, "grad 1 of group 1 must not be a view that negates, but is one"),
}


@each_time
@pytest.mark.parametrize("how", GRADS)
@each_class
def test_gradients(name: str, how: str, steps: int) -> None:
    pair = pair_of(name)
    for seed in range(steps):
        pair.step(seed)
    set_grads(pair.ours, 9)
    spoil, error, message = GRADS[how]
    spoil(pair)
    assert_refused(pair, error, message)
    assert_goes_on(pair)


@each_time
@pytest.mark.parametrize("name", SPARSE)
def test_sparse_gradients(name: str, steps: int) -> None:
    pair = pair_of(name)
    for seed in range(steps):
        pair.step(seed)
    set_grads(pair.ours, 9)
    _sparse(pair)
    message = f"{name} does not support sparse gradients{SPARSE[name]} (grad 1 of group 1)"
    assert_refused(pair, RuntimeError, message)
    assert_goes_on(pair)


# Parameters

PARAMS: dict[str, tuple[Callable[[], torch.Tensor], type[Exception], str]] = {
    "integers": (
        lambda: torch.ones(3, dtype=torch.int64),
        TypeError,
        "param 1 of group 1 must be of dtype float32, float64, bfloat16, float16, but is torch.int64",
    ),
    "8 bits": (
        lambda: torch.ones(3).to(torch.float8_e4m3fn),
        TypeError,
        "param 1 of group 1 must be of dtype float32, float64, bfloat16, float16, but is torch.float8_e4m3fn",
    ),
    "meta": (
        lambda: torch.ones(3, device="meta"),
        ValueError,
        "param 1 of group 1 must be in the memory of a CPU or CUDA device, but is on meta",
    ),
    "conjugate": (
        lambda: torch.ones(3, dtype=torch.complex64).conj(),
        ValueError,
        "param 1 of group 1 must not be a view that conjugates, but is one: call resolve_conj()",
    ),
    "negated": (
        lambda: torch.ones(3, dtype=torch.complex64).conj().imag,
        ValueError,
        "param 1 of group 1 must not be a view that negates, but is one: call resolve_neg()",
    ),
    "expanded": (
        lambda: torch.ones(1).expand(3),
        ValueError,
        "param 1 of group 1 must not overlap itself, but its strides are (0,)",
    ),
}


@pytest.mark.parametrize("what", PARAMS)
@each_class
def test_parameters(name: str, what: str) -> None:
    make, error, message = PARAMS[what]
    bad = torch.nn.Parameter(make(), requires_grad=False)
    pair = pair_of(name)
    options = {key: value for key, value in OPTIONS[name].items() if key != "lr"}
    optimizer = getattr(gpuopt, name)([{"params": pair.ours[:1]}, {"params": [pair.ours[1], bad]}], lr=0.1, **options)
    mixed = Pair([pair.ours[0], pair.ours[1]], [], optimizer, pair.expected)
    set_grads(pair.ours, 0)
    bad.grad = torch.empty_like(bad) if bad.device.type == "meta" else torch.ones(3).to(bad.dtype)
    assert_refused(mixed, error, message)
    assert optimizer.state_dict()["state"] == {}
    bad.grad = None
    optimizer.step()
    assert bad.is_meta or torch.equal(bad.detach().to(torch.complex64), make().to(torch.complex64))
    assert bad not in optimizer.state
    assert pair.ours[0] in optimizer.state


@each_time
@pytest.mark.parametrize("left", [0, 20], ids=["freed", "shrunk"])
@each_class
def test_parameters_whose_storage_is_too_small(name: str, left: int, steps: int) -> None:
    pair = pair_of(name)
    for seed in range(steps):
        pair.step(seed)
    set_grads(pair.ours, 9)
    storage, held = pair.ours[2].untyped_storage(), pair.ours[2].detach().clone()
    size = storage.nbytes()
    storage.resize_(left)
    said = "have memory, but its storage has been freed" if not left else "lie within its storage, but needs "
    assert_refused(pair, ValueError, f"param 1 of group 1 must {said}")
    storage.resize_(size)
    pair.ours[2].data.copy_(held)
    assert_goes_on(pair)


@each_class
def test_parameters_that_share_memory(name: str) -> None:
    whole = torch.arange(8.0)
    params = [torch.nn.Parameter(whole[:5]), torch.nn.Parameter(whole[4:])]
    optimizer = getattr(gpuopt, name)([{"params": [("first", params[0])]}, {"params": [("second", params[1])]}])
    set_grads(params, 0)
    message = "param 0 of group 0 ('first') and param 0 of group 1 ('second') must not share memory, but they do"
    assert_refused(Pair(params, [], optimizer, optimizer), ValueError, message)
    assert optimizer.state_dict()["state"] == {}
    params[1].data = params[1].data.clone()
    optimizer.step()


def test_interleaved_parameters_share_no_memory() -> None:
    whole, apart = torch.arange(8.0), torch.arange(8.0)
    ours = [torch.nn.Parameter(whole[::2]), torch.nn.Parameter(whole[1::2])]
    theirs = [torch.nn.Parameter(apart[::2].clone()), torch.nn.Parameter(apart[1::2].clone())]
    pair = Pair(ours, theirs, gpuopt.SGD(ours, lr=0.1), torch.optim.SGD(theirs, lr=0.1))
    assert_goes_on(pair)


@each_class
def test_state_of_another_shape(name: str) -> None:
    pair = pair_of(name)
    pair.step(0)
    state = pair.optimizer.state[pair.ours[2]]
    slot = next(key for key, value in sorted(state.items()) if value.dim())
    right, state[slot] = state[slot], torch.ones(5)
    message = f"{slot} 1 of group 1 must have the shape of param 1 of group 1, (3, 2), but has (5,)"
    assert_refused(pair, ValueError, message)
    state[slot] = right
    assert_goes_on(pair)


@each_time
@pytest.mark.parametrize("how", ["delitem", "pop", "replaced", "none"])
@pytest.mark.parametrize(
    ("name", "entry"),
    [
        ("Adam", "exp_avg"),
        ("Adam", "exp_avg_sq"),
        ("Adam", "step"),
        ("AdamW", "exp_avg_sq"),
        ("RMSprop", "square_avg"),
        ("RMSprop", "grad_avg"),
        ("RMSprop", "momentum_buffer"),
        ("RMSprop", "step"),
        ("Adagrad", "sum"),
        ("Adagrad", "step"),
    ],
)
def test_an_entry_of_state_that_was_deleted(name: str, entry: str, how: str, steps: int) -> None:
    pair = pair_of(name)
    for seed in range(1 + steps):
        pair.step(seed)
    param = pair.ours[2]
    if how == "delitem":
        del pair.optimizer.state[param][entry]
    elif how == "pop":
        pair.optimizer.state[param].pop(entry)
    elif how == "none":
        pair.optimizer.state[param][entry] = None
    elif entry in pair.optimizer.rule.required or entry == "step":
        pair.optimizer.state[param] = {k: v for k, v in pair.optimizer.state[param].items() if k != entry}
    else:
        pytest.skip("an option may be switched on with another state")
    set_grads(pair.ours, 9)
    assert_refused(pair, ValueError, f"state of param 1 of group 1 must have {entry}, but has ")
    pair.optimizer.state[param].clear()
    pair.optimizer.step()
    if name != "RMSprop":
        assert pair.optimizer.state[param]["step"] == 1


# Settings

NO_NUMBERS = ["0.1", None, [0.1], (0.1, 0.2)]
SETTINGS = {
    "Adam": ["lr", "eps", "weight_decay"],
    "AdamW": ["lr", "eps", "weight_decay"],
    "RMSprop": ["lr", "alpha", "eps", "weight_decay", "momentum"],
    "SGD": ["lr", "momentum", "dampening", "weight_decay"],
    "Adagrad": ["lr", "lr_decay", "weight_decay", "eps"],
}
each_setting = pytest.mark.parametrize(("name", "setting"), [(n, setting) for n in SETTINGS for setting in SETTINGS[n]])


@pytest.mark.parametrize("value", NO_NUMBERS, ids=str)
@each_setting
def test_settings_that_are_no_numbers_at_construction(name: str, setting: str, value: Any) -> None:
    said = re.escape(f"must be a number or a tensor of one element, but is {value!r}")
    with pytest.raises(TypeError, match=f"^{setting} {said}$"):
        getattr(gpuopt, name)(parameters(), **{setting: value})
    with pytest.raises(TypeError, match=f"^{setting} of group 0 {said}$"):
        getattr(gpuopt, name)([{"params": parameters(), setting: value}])
    optimizer = getattr(gpuopt, name)(parameters())
    with pytest.raises(TypeError, match=f"^{setting} of group 1 {said}$"):
        optimizer.add_param_group({"params": parameters(), setting: value})
    assert len(optimizer.param_groups) == 1


@each_time
@each_setting
def test_settings_that_are_no_numbers_later(name: str, setting: str, steps: int) -> None:
    pair = pair_of(name)
    for seed in range(steps):
        pair.step(seed)
    set_grads(pair.ours, 9)
    group = pair.optimizer.param_groups[1]
    right, group[setting] = group[setting], "0.1"
    message = f"{setting} of group 1 must be a number or a tensor of one element, but is '0.1'"
    if setting != "momentum":  # by which it is decided what state there is
        assert_refused(pair, TypeError, message)
    group[setting] = right
    assert_goes_on(pair)


SWITCHES = {
    "Adam": ["amsgrad", "maximize", "foreach", "fused"],
    "AdamW": ["amsgrad", "capturable"],
    "RMSprop": ["centered", "maximize"],
    "SGD": ["nesterov", "maximize"],
    "Adagrad": ["maximize", "fused"],
}


@pytest.mark.parametrize(("name", "switch"), [(name, switch) for name in SWITCHES for switch in SWITCHES[name]])
def test_switches_that_are_strings(name: str, switch: str) -> None:
    more = {"momentum": 0.9} if switch == "nesterov" else {}
    for group in ({switch: "False"}, {}):
        given = more if group else more | {switch: "False"}
        with pytest.raises(TypeError, match=f"^{switch} of group 0 must be True or False, but is 'False'$"):
            getattr(gpuopt, name)([{"params": parameters(), **group}], **given)


def test_a_learning_rate_of_two_elements() -> None:
    pair = pair_of("Adam")
    set_grads(pair.ours, 9)
    pair.optimizer.param_groups[1]["lr"] = torch.tensor([0.1, 0.2])
    assert_refused(pair, ValueError, "Tensor lr of group 1 must be 1-element, but has the shape (2,)")


@pytest.mark.parametrize(
    "betas",
    [[0.9, 0.99], UserList([0.9, 0.99]), torch.tensor([0.9, 0.99]).double()],
    ids=["list", "sequence", "tensor"],
)
def test_betas_of_other_sequences(betas: Any) -> None:
    """As configuration files make them."""
    pair, expected = pair_of("AdamW"), pair_of("AdamW")
    for each, given in ((pair, betas), (expected, (0.9, 0.99))):
        for group in each.optimizer.param_groups:
            group["betas"] = given
        for seed in range(3):
            set_grads(each.ours, seed)
            each.optimizer.step()
    gpuopt.AdamW(parameters(), betas=betas)
    for param, wanted in zip(pair.ours, expected.ours, strict=True):
        torch.testing.assert_close(param, wanted)


@pytest.mark.parametrize(
    ("betas", "error", "message"),
    [
        ((0.9, 0.99, 0.999), ValueError, "betas must be two numbers, but is (0.9, 0.99, 0.999)"),
        ((0.9,), ValueError, "betas must be two numbers, but is (0.9,)"),
        (0.9, TypeError, "betas must be two numbers, but is 0.9"),
        ("09", TypeError, "betas must be two numbers, but is '09'"),
        ((0.9, "0.99"), TypeError, "betas[1] must be a number or a tensor of one element, but is '0.99'"),
    ],
    ids=str,
)
@pytest.mark.parametrize("name", ["Adam", "AdamW"])
def test_betas(name: str, betas: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=re.escape(message)):
        getattr(gpuopt, name)(parameters(), betas=betas)
    with pytest.raises(error, match=re.escape(message)):
        getattr(gpuopt, name)([{"params": parameters(), "betas": betas}])
    pair = pair_of(name)
    pair.step(0)
    set_grads(pair.ours, 9)
    right, pair.optimizer.param_groups[1]["betas"] = pair.optimizer.param_groups[1]["betas"], betas
    assert_refused(pair, error, message)
    pair.optimizer.param_groups[1]["betas"] = right
    assert_goes_on(pair)


@each_time
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"lr": float("nan")}, "lr of group 1 must be finite, but is nan"),
        ({"lr": float("inf")}, "lr of group 1 must be finite, but is inf"),
        ({"lr": torch.tensor(float("nan"))}, "lr of group 1 must be finite, but is nan"),
        ({"weight_decay": float("inf")}, "weight_decay of group 1 must be finite, but is inf"),
        ({"lr": 1e300}, "must be within the range of float32, but is "),
        (
            {"differentiable": True},
            "differentiable must be False, since autograd does not see into a fused step; torch.",
        ),
    ],
    ids=str,
)
@each_class
def test_settings_of_groups(name: str, change: dict[str, Any], message: str, steps: int) -> None:
    pair = pair_of(name)
    for seed in range(steps):
        pair.step(seed)
    set_grads(pair.ours, 9)
    group = pair.optimizer.param_groups[1]
    right = {key: group[key] for key in change}
    group.update(change)
    assert_refused(pair, ValueError, message)
    group.update(right)
    assert_goes_on(pair)


@each_class
def test_differentiable_at_construction(name: str) -> None:
    message = (
        "differentiable must be False, since autograd does not see into a fused step; "
        f"torch.optim.{name} can be differentiated"
    )
    for groups in ({"params": parameters(), "differentiable": True}, {"params": parameters()}):
        with pytest.raises(ValueError, match=message):
            getattr(gpuopt, name)([groups], differentiable="differentiable" not in groups)


EXTRAS: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"backend": "cuda"}, ValueError, "backend must be one of numba, numpy, cupy, triton or None, but is 'cuda'"),
    ({"max_grad_norm": -1.0}, ValueError, "max_grad_norm must be a number >= 0 or None, but is -1.0"),
    ({"max_grad_norm": float("nan")}, ValueError, "max_grad_norm must be a number >= 0 or None, but is nan"),
    ({"max_grad_norm": True}, ValueError, "max_grad_norm must be a number >= 0 or None, but is True"),
    ({"max_grad_norm": "1"}, ValueError, "max_grad_norm must be a number >= 0 or None, but is '1'"),
    ({"error_if_nonfinite": 1}, TypeError, "error_if_nonfinite must be True or False, but is 1"),
    ({"zero_grads": None}, TypeError, "zero_grads must be True or False, but is None"),
    ({"master_weights": "yes"}, ValueError, "master_weights must be True, False or '24bit', but is 'yes'"),
    ({"master_weights": 24}, ValueError, "master_weights must be True, False or '24bit', but is 24"),
    ({"stochastic_rounding": 1}, TypeError, "stochastic_rounding must be True or False, but is 1"),
    ({"seed": 1.0}, TypeError, "seed must be a whole number, but is 1.0"),
    ({"seed": True}, TypeError, "seed must be a whole number, but is True"),
    ({"seed": -1}, ValueError, "seed must be at least 0 and below 2^32, but is -1"),
    ({"seed": 1 << 32}, ValueError, "seed must be at least 0 and below 2^32, but is 4294967296"),
    (
        {"error_if_nonfinite": True},
        ValueError,
        "error_if_nonfinite must be False where max_grad_norm is None: give float('inf') to clip nothing",
    ),
    ({"ema_decay": 1.5}, ValueError, "ema_decay must be in [0, 1] or None, but is 1.5"),
    ({"ema_decay": -0.1}, ValueError, "ema_decay must be in [0, 1] or None, but is -0.1"),
    ({"ema_decay": float("nan")}, ValueError, "ema_decay must be in [0, 1] or None, but is nan"),
    ({"state_dtype": torch.int64}, ValueError, "or None, but is torch.int64"),
    ({"state_dtype": "float32"}, ValueError, "or None, but is 'float32'"),
]

each_extra = pytest.mark.parametrize(("extra", "error", "message"), EXTRAS, ids=[str(extra) for extra, _, _ in EXTRAS])


@each_extra
@each_class
def test_extras(name: str, extra: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=re.escape(message)):
        getattr(gpuopt, name)(parameters(), **extra)


@each_time
@each_extra
def test_extras_changed_in_training(extra: dict[str, Any], error: type[Exception], message: str, steps: int) -> None:
    pair = pair_of("Adam")
    for seed in range(steps):
        pair.step(seed)
    set_grads(pair.ours, 9)
    ((name, value),) = extra.items()
    right = getattr(pair.optimizer, name)
    setattr(pair.optimizer, name, value)
    assert_refused(pair, error, message)
    setattr(pair.optimizer, name, right)
    assert_goes_on(pair)


def test_a_backend_for_other_memory() -> None:
    pair = pair_of("Adam")
    set_grads(pair.ours, 0)
    pair.optimizer.backend = "cupy"
    with pytest.raises((RuntimeError, ValueError), match=r"backend 'cupy' (cannot run here: |serves cuda memory, but)"):
        pair.optimizer.step()
    pair.optimizer.backend = None
    assert_goes_on(pair)


UNKNOWN = {
    "Adam": ["decay", "momentum"],
    "AdamW": ["decay", "decoupled_weight_decay"],
    "RMSprop": ["betas", "amsgrad"],
    "SGD": ["betas", "lr_decay"],
    "Adagrad": ["amsgrad", "momentum"],
}


@pytest.mark.parametrize(("name", "keyword"), [(name, keyword) for name in UNKNOWN for keyword in UNKNOWN[name]])
def test_unknown_keywords(name: str, keyword: str) -> None:
    with pytest.raises(TypeError, match=rf"{name}(\.__init__)?\(\) got an unexpected keyword argument '{keyword}'"):
        getattr(gpuopt, name)(parameters(), **{keyword: 0.5})
