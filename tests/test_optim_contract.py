"""The optimizers for PyTorch keep what torch.optim promises beyond its equations.

With the same gradients they give what torch.optim gives, within ``kit.tolerances.TORCH``, and the same keys of state:

1. Whatever is done to groups between steps, by hand or by any scheduler: settings are read at each step.
2. Whatever is done to tensors between steps: gradients come, go, move and change their strides; parameters and state
   are replaced or written to. A parameter without a gradient keeps its bits, its state and its step count.
3. For tensors of any strides, alignment and size, of real and complex dtypes, together in one optimizer.
4. Closures, hooks, names, copies, pickles and ``zero_grad`` work as ever, and autograd sees that parameters change.

The options of the classes are the matter of ``test_optim_catalogue.py``.
"""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from kit.pairs import Pair, bits, drawn, set_grads
from torch.optim import lr_scheduler

import gpuopt

OPTIONS: dict[str, dict[str, Any]] = {
    "Adam": {"lr": 0.01, "amsgrad": True},
    "AdamW": {"lr": 0.01},
    "RMSprop": {"lr": 0.01, "momentum": 0.5, "centered": True},
    "SGD": {"lr": 0.1, "momentum": 0.9, "dampening": 0.2},
    "Adagrad": {"lr": 0.1, "lr_decay": 0.1, "initial_accumulator_value": 0.1},
}

each_class = pytest.mark.parametrize("name", OPTIONS)


def three() -> list[torch.nn.Parameter]:
    return [torch.nn.Parameter(drawn(torch.empty(shape), 5)) for shape in [(3, 4), (), (6,)]]


def pair_of(name: str, make: Callable[[], list[torch.nn.Parameter]] = three, **options: Any) -> Pair:
    options = OPTIONS[name] | options
    ours, theirs = make(), make()
    return Pair(ours, theirs, getattr(gpuopt, name)(ours, **options), getattr(torch.optim, name)(theirs, **options))


def state_bits(optimizer: torch.optim.Optimizer, param: torch.Tensor) -> dict[str, bytes]:
    return {key: bits(value) for key, value in optimizer.state.get(param, {}).items()}


def all_bits(optimizer: torch.optim.Optimizer) -> list[Any]:
    params = [param for group in optimizer.param_groups for param in group["params"]]
    return [(bits(param), state_bits(optimizer, param)) for param in params]


# Groups


@each_class
def test_settings_changed_by_hand(name: str) -> None:
    pair = pair_of(name)
    changes = [
        {"lr": 0.03},
        {"weight_decay": 0.2},
        {"maximize": True, "weight_decay": 0.0},
        {
            "Adam": {"betas": (0.5, 0.6)},
            "AdamW": {"betas": (0.5, 0.6), "eps": 0.1},
            "RMSprop": {"alpha": 0.5, "momentum": 0.1},
            "SGD": {"momentum": 0.2, "dampening": 0.0, "nesterov": True},
            "Adagrad": {"lr_decay": 1.0, "eps": 0.1},
        }[name],
        {"lr": 0.0},
    ]
    for seed, change in enumerate(changes):
        pair.step(seed)
        for _, optimizer in pair.both():
            optimizer.param_groups[0].update(change)
    pair.step(9)
    pair.assert_close()


def test_momentum_switched_on_and_off() -> None:
    pair = pair_of("SGD", momentum=0.0, dampening=0.0)
    for seed, change in enumerate([{}, {"momentum": 0.9, "dampening": 0.5}, {}, {"momentum": 0.0}, {"momentum": 0.5}]):
        for _, optimizer in pair.both():
            optimizer.param_groups[0].update(change)
        pair.step(seed)
        pair.assert_close()


@each_class
def test_a_group_added_in_training(name: str) -> None:
    options = OPTIONS[name]
    first = torch.nn.Parameter(torch.ones(3))
    late, fresh = torch.nn.Parameter(torch.ones(4)), torch.nn.Parameter(torch.ones(4))
    optimizer = getattr(gpuopt, name)([first], **options)
    set_grads([first], 0)
    optimizer.step()
    optimizer.add_param_group({"params": [late], "lr": 0.5})
    alone = getattr(torch.optim, name)([fresh], **{**options, "lr": 0.5})  # torch.optim.Adagrad cannot add groups
    for seed in range(2):
        set_grads([late], seed)
        set_grads([fresh], seed)
        optimizer.step()
        alone.step()
    Pair([late], [fresh], optimizer, alone).assert_close()
    assert [state["step"] for state in optimizer.state.values() if "step" in state] in ([], [3, 2])


SCHEDULERS: dict[str, Callable[[Any], Any]] = {
    "LambdaLR": lambda o: lr_scheduler.LambdaLR(o, lambda epoch: 0.9**epoch),
    "MultiplicativeLR": lambda o: lr_scheduler.MultiplicativeLR(o, lambda _: 0.7),
    "StepLR": lambda o: lr_scheduler.StepLR(o, 2),
    "MultiStepLR": lambda o: lr_scheduler.MultiStepLR(o, [1, 3]),
    "ConstantLR": lambda o: lr_scheduler.ConstantLR(o, 0.5, 3),
    "LinearLR": lr_scheduler.LinearLR,
    "ExponentialLR": lambda o: lr_scheduler.ExponentialLR(o, 0.5),
    "PolynomialLR": lambda o: lr_scheduler.PolynomialLR(o, 4, 2.0),
    "CosineAnnealingLR": lambda o: lr_scheduler.CosineAnnealingLR(o, 4),
    "CosineAnnealingWarmRestarts": lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, 2),
    "CyclicLR": lambda o: lr_scheduler.CyclicLR(o, 0.01, 0.1, 2, cycle_momentum="lr_decay" not in o.defaults),
    "OneCycleLR": lambda o: lr_scheduler.OneCycleLR(o, 0.1, 8, cycle_momentum="lr_decay" not in o.defaults),
    "SequentialLR": lambda o: lr_scheduler.SequentialLR(
        o, [lr_scheduler.ConstantLR(o), lr_scheduler.ExponentialLR(o, 0.5)], [2]
    ),
    "ChainedScheduler": lambda o: lr_scheduler.ChainedScheduler(
        [lr_scheduler.ConstantLR(o), lr_scheduler.ExponentialLR(o, 0.5)], o
    ),
    "ReduceLROnPlateau": lambda o: lr_scheduler.ReduceLROnPlateau(o, patience=0),
}


@pytest.mark.parametrize("scheduler", SCHEDULERS)
@each_class
def test_schedulers(name: str, scheduler: str) -> None:
    pair = pair_of(name)
    schedulers = [SCHEDULERS[scheduler](optimizer) for _, optimizer in pair.both()]
    for seed in range(6):
        pair.step(seed)
        for each in schedulers:
            each.step(*([1.0] if scheduler == "ReduceLROnPlateau" else []))
    pair.assert_close()
    changing = ("lr", "momentum", "betas")
    ours, theirs = ([group.get(key) for key in changing] for (group,) in (o.param_groups for _, o in pair.both()))
    assert ours == theirs


@each_class
def test_a_learning_rate_tensor_changed_in_place(name: str) -> None:
    pair = pair_of(name)
    for _, optimizer in pair.both():
        optimizer.param_groups[0]["lr"] = torch.tensor(0.1)
    for seed in range(4):
        pair.step(seed)
        for _, optimizer in pair.both():
            optimizer.param_groups[0]["lr"].mul_(0.5)
    pair.assert_close()


# Tensors that come, go and move


@each_class
def test_what_has_no_gradient_keeps_its_bits(name: str) -> None:
    pair = pair_of(name)
    absent = [(), (0,), (1,), (0, 1, 2), (), (2,), ()]
    for seed, indices in enumerate(absent):
        set_grads(pair.ours, seed)
        for index in indices:
            pair.ours[index].grad = None
        before = all_bits(pair.optimizer)
        pair.step_again()
        after = all_bits(pair.optimizer)
        assert [index for index in range(3) if before[index] == after[index]] == list(indices)
    pair.assert_close()


@each_class
def test_parameters_that_never_had_a_gradient_have_no_state(name: str) -> None:
    pair = pair_of(name)
    set_grads(pair.ours, 0)
    pair.ours[1].grad = None
    pair.step_again()
    assert pair.ours[1] not in pair.optimizer.state
    pair.assert_close()


@each_class
def test_before_the_first_step_there_is_no_state(name: str) -> None:
    optimizer = pair_of(name).optimizer
    assert optimizer.state_dict()["state"] == {}
    optimizer.step()
    assert optimizer.state_dict()["state"] == {}


@each_class
def test_frozen_parameters(name: str) -> None:
    pair = pair_of(name)
    for seed in range(4):
        for params, _ in pair.both():
            params[0].requires_grad_(seed % 2 == 0)
            for param in params:
                param.grad = None
            sum((param * drawn(param, seed)).sum() for param in params).backward()
        pair.optimizer.step()
        pair.expected.step()
    pair.assert_close()


@pytest.mark.parametrize("swapped", [False, True])
def test_modules_converted_between_steps(swapped: bool) -> None:
    """Also where PyTorch swaps the parameters themselves, which it refuses if anything else holds them."""
    torch.manual_seed(0)
    ours, grad = torch.nn.Linear(3, 2), torch.ones(2, 3, dtype=torch.float64)
    theirs = copy.deepcopy(ours)
    flag = torch.__future__.get_swap_module_params_on_conversion()
    torch.__future__.set_swap_module_params_on_conversion(swapped)
    try:
        for module, library in ((ours, gpuopt), (theirs, torch.optim)):
            optimizer = library.SGD([module.weight], lr=0.5)
            for dtype in (torch.float32, torch.float64, torch.float32):
                module.zero_grad()
                module.to(dtype)
                module.weight.grad = grad.to(dtype)
                optimizer.step()
    finally:
        torch.__future__.set_swap_module_params_on_conversion(flag)
    assert torch.equal(ours.weight, theirs.weight)


REPLACED: dict[str, Callable[[torch.nn.Parameter], None]] = {
    "by a copy": lambda p: setattr(p, "data", p.data.clone()),
    "by a view": lambda p: setattr(p, "data", torch.stack([p.data, p.data])[1]),
    "by its transpose": lambda p: setattr(p, "data", p.data.t()),
    "by a part": lambda p: setattr(p, "data", p.data[:2]),
    "by another dtype": lambda p: setattr(p, "data", p.data.double()),
    "in place": lambda p: p.data.mul_(2),
}


@pytest.mark.parametrize("how", REPLACED)
def test_parameters_replaced(how: str) -> None:
    """Without state, which would not fit; and gradients are new, as torch demands."""
    pair = pair_of("SGD", lambda: [torch.nn.Parameter(drawn(torch.empty(4, 4), 0))], momentum=0.0, dampening=0.0)
    pair.step(0)
    for params, _ in pair.both():
        params[0].grad = None
        REPLACED[how](params[0])
    pair.theirs[0].data.copy_(pair.ours[0].data)
    beyond = pair.ours[0].data.as_strided((8,), (1,), 8)
    before = beyond.clone()
    pair.step(1)
    pair.step(2)
    pair.assert_close()
    if how == "by a part":
        assert torch.equal(beyond, before)


@pytest.mark.parametrize("how", ["by its transpose", "by a copy", "by a view", "in place"])
def test_parameters_replaced_under_their_gradients(how: str) -> None:
    pair = pair_of("SGD", lambda: [torch.nn.Parameter(drawn(torch.empty(4, 4), 0))], momentum=0.0, dampening=0.0)
    set_grads(pair.ours, 0)
    for _ in range(3):
        pair.step_again()
        for params, _ in pair.both():
            REPLACED[how](params[0])
    pair.assert_close()


@each_class
def test_parameters_with_state_replaced(name: str) -> None:
    pair = pair_of(name)
    for seed in range(4):
        pair.step(seed)
        for params, _ in pair.both():
            params[0].data = params[0].data.clone() if seed % 2 else torch.stack([params[0].data] * 2, dim=-1)[..., 1]
    pair.assert_close()


STATE_CHANGES: dict[str, Callable[[dict[str, torch.Tensor], str], None]] = {
    "an entry": lambda state, key: state.update({key: state[key] * 0.5}),
    "an entry in place": lambda state, key: state[key].mul_(0.5),
    "an entry by another order of axes": lambda state, key: state.update({key: state[key].t().contiguous().t()}),
    "the data of an entry": lambda state, key: setattr(state[key], "data", state[key].data * 0.5),
}


@pytest.mark.parametrize("how", STATE_CHANGES)
@each_class
def test_state_changed(name: str, how: str) -> None:
    pair = pair_of(name)
    for seed in range(4):
        pair.step(seed)
        for params, optimizer in pair.both():
            state = optimizer.state[params[0]]
            for key in sorted(state):
                if key != "step" or how in ("an entry", "an entry in place"):
                    STATE_CHANGES[how](state, key)
                    if key == "step":
                        state[key].copy_(torch.ceil(state[key]))
    pair.assert_close()


@each_class
def test_the_whole_state_of_a_parameter_replaced(name: str) -> None:
    pair = pair_of(name)
    pair.step(0)
    pair.step(1)
    for params, optimizer in pair.both():
        optimizer.state[params[0]] = {
            key: torch.full((3, 4), 0.25) if value.dim() else torch.tensor(7.0)
            for key, value in optimizer.state[params[0]].items()
        }
    pair.step(2)
    pair.assert_close()


GRADS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "contiguous": lambda g: g.contiguous(),
    "channels last": lambda g: g.contiguous(memory_format=torch.channels_last),
    "transposed": lambda g: g.transpose(0, 3).contiguous().transpose(0, 3),
    "expanded": lambda g: g[:, :, :1, :1].expand(g.shape),
    "gapped": lambda g: torch.stack([g, g], dim=-1)[..., 0],
    "misaligned": lambda g: torch.cat([g.new_zeros(1), g.flatten()])[1:].view(g.shape),
    "flipped memory": lambda g: g.flip(2).contiguous(memory_format=torch.channels_last),
}


@pytest.mark.parametrize("channels_last", [False, True], ids=["contiguous", "channels last"])
@each_class
def test_gradients_of_other_strides(name: str, channels_last: bool) -> None:
    memory_format = torch.channels_last if channels_last else torch.contiguous_format

    def make() -> list[torch.nn.Parameter]:
        return [torch.nn.Parameter(drawn(torch.empty(2, 3, 4, 5), 0).contiguous(memory_format=memory_format))]

    pair = pair_of(name, make)
    for seed, grad in enumerate([*GRADS.values(), *GRADS.values()]):
        pair.ours[0].grad = grad(drawn(pair.ours[0], seed))
        pair.step_again()
    pair.assert_close()
    for entry in pair.optimizer.state[pair.ours[0]].values():
        assert not entry.dim() or entry.stride() == pair.ours[0].stride()


@each_class
def test_gradients_that_miss_the_alignment_of_their_elements(name: str) -> None:
    pair = pair_of(name, lambda: [torch.nn.Parameter(drawn(torch.empty(9), 0)) for _ in range(2)])
    for seed, missed in enumerate([0, 0, 1, 1, 3, 0, 2]):
        set_grads(pair.ours, seed)
        memory = bytearray(9 * 4 + 8)
        grad = torch.frombuffer(memory, dtype=torch.float32, count=9, offset=missed)
        pair.ours[1].grad = grad.copy_(pair.ours[1].grad)
        pair.step_again()
        (selection,) = pair.optimizer._rows._selections[None]
        assert selection._rows.packs_grads == (missed > 0)
    pair.assert_close()


@each_class
def test_gradients_moved_at_every_step(name: str) -> None:
    pair = pair_of(name)
    kept = []
    for seed in range(5):
        pair.step(seed)
        kept.append([param.grad for param in pair.ours])  # so that no address comes again
        pair.optimizer.zero_grad(set_to_none=True)
    pair.assert_close()


def odd() -> list[torch.nn.Parameter]:
    return [
        torch.nn.Parameter(tensor)
        for tensor in (
            torch.empty(0),
            torch.empty(3, 0, 2),
            torch.tensor(1.5),
            drawn(torch.empty(3, 4), 1).t(),
            drawn(torch.empty(10, 8), 2)[:, ::2],
            drawn(torch.empty(33), 3)[1:],
            drawn(torch.empty(4, 3, 5, 2), 4).contiguous(memory_format=torch.channels_last),
            drawn(torch.empty(6, dtype=torch.float64), 5),
            drawn(torch.empty(5, 2, dtype=torch.complex64), 6),
            drawn(torch.empty(2, 5, dtype=torch.complex128), 7).t(),
        )
    ]


@each_class
def test_odd_tensors(name: str) -> None:
    pair = pair_of(name, odd)
    for seed in range(4):
        set_grads(pair.ours, seed)
        if seed % 2:
            for param in pair.ours:
                assert param.grad is not None
                if param.is_complex():
                    param.grad = param.grad.conj()
        pair.step_again()
    pair.assert_close()
    assert pair.ours[8].grad.is_conj()


@pytest.mark.filterwarnings("ignore:ComplexHalf:UserWarning")
def test_half_precision_complex_numbers_are_pairs_of_float16() -> None:
    halves = torch.nn.Parameter(drawn(torch.empty(7, 2), 0).half())
    param = torch.nn.Parameter(torch.view_as_complex(halves.detach().clone()))
    grad = drawn(torch.empty(7, 2), 1).half()
    optimizers = [gpuopt.Adam([param], lr=0.1), gpuopt.Adam([halves], lr=0.1)]
    param.grad, halves.grad = torch.view_as_complex(grad), grad
    for optimizer in optimizers:
        optimizer.step()
    assert torch.equal(torch.view_as_real(param), halves)


@each_class
def test_parameters_that_are_first_on_the_meta_device(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.__future__, "_swap_module_params_on_conversion", True)
    with torch.device("meta"):
        model = torch.nn.Linear(4, 3)
    optimizer = getattr(gpuopt, name)(model.parameters(), **OPTIONS[name])
    model.to_empty(device="cpu")
    ours = list(model.parameters())
    assert optimizer.param_groups[0]["params"][0] is ours[0]
    with torch.no_grad():
        for param in ours:
            param.fill_(0.5)
    theirs = [torch.nn.Parameter(torch.full_like(param, 0.5)) for param in ours]
    pair = Pair(ours, theirs, optimizer, getattr(torch.optim, name)(theirs, **OPTIONS[name]))
    for seed in range(2):
        pair.step(seed)
    pair.assert_close()


# What surrounds a step


@each_class
def test_a_closure_is_evaluated_with_gradients_and_its_loss_returned(name: str) -> None:
    pair = pair_of(name)
    losses = []
    for params, optimizer in pair.both():

        def closure(params: Any = params, optimizer: Any = optimizer) -> torch.Tensor:
            assert torch.is_grad_enabled()
            optimizer.zero_grad()
            loss = sum((param**2).sum() for param in params)
            loss.backward()
            return loss

        with torch.no_grad():
            losses.append([optimizer.step(closure).item(), optimizer.step(closure=closure).item()])
            assert not torch.is_grad_enabled()
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    assert pair.optimizer.step() is None
    pair.expected.step()
    pair.assert_close()


def test_hooks_of_a_step() -> None:
    param = torch.nn.Parameter(torch.ones(2))
    param.grad = torch.ones(2)
    optimizer = gpuopt.SGD([param], lr=0.5)
    seen: list[Any] = []
    handles = [
        optimizer.register_step_pre_hook(lambda o, args, _: seen.append((o, args, param.tolist()))),
        optimizer.register_step_pre_hook(lambda o, _, kwargs: ((o, lambda: "another loss"), kwargs)),
        optimizer.register_step_post_hook(lambda o, *_: seen.append((o, param.tolist()))),
    ]
    assert optimizer.step(None) == "another loss"
    assert seen == [(optimizer, (optimizer, None), [1.0, 1.0]), (optimizer, [0.5, 0.5])]
    for handle in handles:
        handle.remove()
    assert optimizer.step() is None
    assert len(seen) == 2


def test_hooks_of_state_dicts() -> None:
    pair = pair_of("Adam")
    pair.step(0)
    seen: list[str] = []
    loaded = {}
    optimizer = pair.optimizer
    optimizer.register_state_dict_pre_hook(lambda o: seen.append("before saving"))
    optimizer.register_state_dict_post_hook(lambda o, saved: {**saved, "note": "kept"})
    optimizer.register_load_state_dict_pre_hook(
        lambda o, given: {**given, "param_groups": [{**given["param_groups"][0], "lr": 0.25}]}
    )
    optimizer.register_load_state_dict_post_hook(lambda o: loaded.update(o.state[pair.ours[0]]))
    saved = optimizer.state_dict()
    assert saved["note"] == "kept"
    optimizer.load_state_dict(saved)
    assert seen == ["before saving"]
    assert optimizer.param_groups[0]["lr"] == 0.25
    assert torch.equal(loaded["exp_avg"], saved["state"][0]["exp_avg"])


@pytest.mark.parametrize("set_to_none", [True, False])
def test_zero_grad(set_to_none: bool) -> None:
    pair = pair_of("Adam")
    for seed in range(3):
        pair.step(seed)
        pair.optimizer.zero_grad(set_to_none=set_to_none)
        assert all(p.grad is None if set_to_none else not p.grad.any() for p in pair.ours)
    for params, _ in pair.both():
        for param in params:
            param.grad = torch.zeros_like(param)
    pair.step_again()
    pair.assert_close()


@pytest.mark.parametrize(
    "copied", [copy.deepcopy, lambda both: pickle.loads(pickle.dumps(both))], ids=["deepcopy", "pickle"]
)
@each_class
def test_copies_go_on_identically(name: str, copied: Callable[[Any], Any]) -> None:
    extras = {"max_grad_norm": 1.0, "ema_decay": 0.9, "zero_grads": True, "backend": "numpy"}
    params = three()
    optimizer = getattr(gpuopt, name)(params, **OPTIONS[name], **extras)
    for seed in range(3):
        set_grads(params, seed)
        optimizer.step()
    other_params, other = copied((params, optimizer))
    assert type(other) is type(optimizer)
    assert {key: getattr(other, key) for key in extras} == extras
    assert all_bits(other) == all_bits(optimizer)
    before = all_bits(optimizer)
    for seed in range(3, 6):
        set_grads(other_params, seed)
        other.step()
    assert all_bits(optimizer) == before
    for seed in range(3, 6):
        set_grads(params, seed)
        optimizer.step()
    assert all_bits(other) == all_bits(optimizer)


@each_class
def test_named_parameters(name: str) -> None:
    model = torch.nn.Linear(3, 2)
    twin = copy.deepcopy(model)
    optimizer = getattr(gpuopt, name)(model.named_parameters(), **OPTIONS[name])
    expected = getattr(torch.optim, name)(twin.named_parameters(), **OPTIONS[name])
    pair = Pair(list(model.parameters()), list(twin.parameters()), optimizer, expected)
    pair.step(0)
    pair.step(1)
    pair.assert_close()
    names = [o.state_dict()["param_groups"][0]["param_names"] for o in (optimizer, expected)]
    assert names == [["weight", "bias"]] * 2


@each_class
def test_autograd_sees_the_write(name: str) -> None:
    param = torch.nn.Parameter(torch.ones(3))
    optimizer = getattr(gpuopt, name)([param], **OPTIONS[name])
    for _ in range(2):  # the first step plans, the second does not
        loss = (param * param).sum()
        param.grad = torch.ones(3)
        optimizer.step()
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            loss.backward()


@each_class
def test_it_is_an_optimizer_of_torch(name: str) -> None:
    optimizer, expected = getattr(gpuopt, name)(three()), getattr(torch.optim, name)(three())
    assert isinstance(optimizer, getattr(torch.optim, name))
    assert optimizer.defaults == expected.defaults
    assert repr(optimizer).startswith(f"{name} (\nParameter Group 0\n")


def test_the_same_memory_seen_otherwise() -> None:
    """A gradient of the same address and dtype, but transposed, is another."""
    grad = drawn(torch.empty(4, 4), 1)
    param = torch.nn.Parameter(torch.zeros(4, 4))
    optimizer = gpuopt.SGD([param], lr=1.0)
    for _ in range(3):
        param.grad = grad
        optimizer.step()
    grad.data = grad.data.t()
    optimizer.step()
    torch.testing.assert_close(param.detach(), -3 * grad.t() - grad)


def test_the_same_memory_of_another_dtype() -> None:
    grad = torch.ones(4, dtype=torch.float16)
    param = torch.nn.Parameter(torch.zeros(4, dtype=torch.float16))
    optimizer = gpuopt.SGD([param], lr=1.0)
    for _ in range(3):
        param.grad = grad
        optimizer.step()
    grad.data = grad.data.view(torch.bfloat16)
    optimizer.step()
    assert torch.equal(param, -3 - torch.ones(4, dtype=torch.float16).view(torch.bfloat16).half())


@pytest.mark.parametrize("steps", [1, 3])
def test_the_same_memory_negated(steps: int) -> None:
    grad = drawn(torch.empty(4, 4), 1)
    param = torch.nn.Parameter(torch.zeros(4, 4))
    optimizer = gpuopt.SGD([param], lr=1.0)
    for _ in range(steps):
        param.grad = grad
        optimizer.step()
    param.grad = torch._neg_view(grad)
    with pytest.raises(ValueError, match="grad 0 of group 0 must not be a view that negates"):
        optimizer.step()
