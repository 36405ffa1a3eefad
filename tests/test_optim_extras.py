"""What the optimizers for PyTorch do in the same pass is what PyTorch does in passes of its own.

1. ``backend`` chooses one by name.
2. ``max_grad_norm`` steps as after ``torch.nn.utils.clip_grad_norm_``, within ``kit.tolerances.TORCH``, whatever the
   norm is, and leaves the gradients as they are; ``last_grad_norm`` is what that function returns.
3. ``zero_grads`` leaves gradients of zero and otherwise changes no bit.
4. ``ema_decay`` gives the average of ``torch.optim.swa_utils`` with ``get_ema_multi_avg_fn``, and changes no bit of the
   rest. ``averaged_weights`` puts it in place of the parameters, and those back whatever happens.
5. ``master_weights`` steps as torch.optim does over float32 parameters, which are rounded once. Where a parameter was
   written to since, its original follows, and in nothing else.
6. ``state_dtype`` is that of new state, and the step in it is that in float32 but for the rounding of state.

Extras are attributes, which may be changed between steps.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import pytest
import torch
from kit.pairs import Pair, drawn, set_grads
from kit.tolerances import TORCH
from torch.nn.utils import clip_grad_norm_
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

import gpuopt
from gpuopt.kernels.drivers import DRIVERS

BACKENDS = [name for name, entry in DRIVERS.items() if entry.device == "cpu"]

OPTIONS: dict[str, dict[str, Any]] = {
    "Adam": {"lr": 0.01},
    "AdamW": {"lr": 0.01, "weight_decay": 0.1},
    "RMSprop": {"lr": 0.01, "momentum": 0.5, "centered": True},
    "SGD": {"lr": 0.1, "momentum": 0.9, "dampening": 0.2},
    "Adagrad": {"lr": 0.1, "initial_accumulator_value": 0.1},
}

each_class = pytest.mark.parametrize("name", OPTIONS)
each_backend = pytest.mark.parametrize("backend", BACKENDS)


def parameters(dtype: torch.dtype = torch.float32) -> list[torch.nn.Parameter]:
    return [torch.nn.Parameter(drawn(torch.empty(shape, dtype=dtype), 5)) for shape in [(3, 4), (), (5, 7)]]


def pair_of(name: str, *, dtype: torch.dtype = torch.float32, **extras: Any) -> Pair:
    ours, theirs = parameters(dtype), parameters(dtype)
    optimizer = getattr(gpuopt, name)(ours, **OPTIONS[name], **extras)
    return Pair(ours, theirs, optimizer, getattr(torch.optim, name)(theirs, **OPTIONS[name]))


def snapshot(optimizer: torch.optim.Optimizer) -> list[Any]:
    """Copies of all parameters and their state."""
    params = [param for group in optimizer.param_groups for param in group["params"]]
    return [{"param": param, **optimizer.state[param]} for param in params]


def assert_same_bits(first: torch.optim.Optimizer, second: torch.optim.Optimizer) -> None:
    """In all that the second has."""
    for one, other in zip(snapshot(first), snapshot(second), strict=True):
        assert all(torch.equal(one[key], other[key]) for key in other)


# Backends


@each_backend
def test_a_backend_by_name(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    driver = DRIVERS[backend].load()
    calls = []
    monkeypatch.setattr(driver, "step", lambda table, *_: calls.append(table) if table.numel else None)
    params = parameters()
    set_grads(params, 0)
    optimizer = gpuopt.SGD(params, lr=0.1, backend=backend)
    optimizer.step()
    assert len(calls) == 1
    optimizer.backend = next(name for name in BACKENDS if name != backend)
    optimizer.step()
    assert len(calls) == 1


# Clipping


@pytest.mark.parametrize("max_norm", [0.0, 0.01, 1e6, float("inf")])
@each_class
def test_clipping(name: str, max_norm: float) -> None:
    pair = pair_of(name, max_grad_norm=max_norm)
    for seed in range(4):
        set_grads(pair.ours, seed)
        set_grads(pair.theirs, seed)
        norm = clip_grad_norm_(pair.theirs, max_norm)
        grads = [param.grad.clone() for param in pair.ours if param.grad is not None]
        pair.optimizer.step()
        pair.expected.step()
        assert all(torch.equal(p.grad, grad) for p, grad in zip(pair.ours, grads, strict=True))
        assert pair.optimizer.last_grad_norm.shape == ()
        torch.testing.assert_close(pair.optimizer.last_grad_norm, norm)
    pair.assert_close()


@each_backend
def test_all_groups_and_dtypes_have_one_norm(backend: str) -> None:
    params = [*parameters(), *parameters(torch.float64)]
    optimizer = gpuopt.SGD([{"params": [param]} for param in params], lr=1.0, max_grad_norm=1.0, backend=backend)
    before = [param.detach().clone() for param in params]
    set_grads(params, 0)
    optimizer.step()
    norm = torch.cat([param.grad.flatten().double() for param in params if param.grad is not None]).norm()
    assert optimizer.last_grad_norm.dtype == torch.float64
    torch.testing.assert_close(optimizer.last_grad_norm, norm)
    for param, old in zip(params, before, strict=True):
        torch.testing.assert_close(param.detach(), old - (param.grad / (norm + 1e-6)).to(param.dtype))


@pytest.mark.parametrize("bad", [float("inf"), float("-inf"), float("nan")])
@each_class
def test_a_norm_that_is_not_finite(name: str, bad: float) -> None:
    pair = pair_of(name, max_grad_norm=1.0)
    for seed in range(3):
        for params, optimizer in pair.both():
            set_grads(params, seed)
            if seed == 1:
                params[0].grad[1, 2] = bad
            if optimizer is pair.expected:
                norm = clip_grad_norm_(params, 1.0)
            optimizer.step()
        torch.testing.assert_close(pair.optimizer.last_grad_norm, norm, equal_nan=True)
    pair.assert_close()


@pytest.mark.parametrize("steps", [0, 2], ids=["at first", "later"])
@pytest.mark.parametrize("bad", [float("inf"), float("nan")])
@each_class
def test_an_error_if_the_norm_is_not_finite(name: str, bad: float, steps: int) -> None:
    pair = pair_of(name, max_grad_norm=1e9, error_if_nonfinite=True)
    for seed in range(steps):
        pair.step(seed)
    before = [{key: value.clone() for key, value in entries.items()} for entries in snapshot(pair.optimizer)]
    set_grads(pair.ours, 0)
    pair.ours[2].grad[0, 0] = bad
    with pytest.raises(RuntimeError, match=r"The total norm of order 2\.0 for gradients .* is non-finite"):
        pair.optimizer.step()
    for entries, old in zip(snapshot(pair.optimizer), before, strict=True):
        assert entries.keys() == old.keys()
        assert all(torch.equal(entries[key], old[key]) for key in old)
    pair.step(7)
    pair.assert_close()


def test_gradients_of_zero_are_not_clipped() -> None:
    pair = pair_of("AdamW", max_grad_norm=1.0)
    for params, optimizer in pair.both():
        for param in params:
            param.grad = torch.zeros_like(param)
        optimizer.step()
    assert pair.optimizer.last_grad_norm == 0
    pair.assert_close()


def test_clipping_comes_and_goes() -> None:
    pair = pair_of("Adam")
    for seed, limit in enumerate([None, 0.1, 10.0, None]):
        pair.optimizer.max_grad_norm = limit
        for params, optimizer in pair.both():
            set_grads(params, seed)
            if optimizer is pair.expected and limit is not None:
                clip_grad_norm_(params, limit)
            optimizer.step()
    pair.assert_close()


# Zeroing


@each_backend
@each_class
def test_gradients_are_zeroed_in_place(name: str, backend: str) -> None:
    made = [torch.ones(3), torch.ones(4, 6)[:, :3], torch.ones(2, dtype=torch.complex64)]
    params, others = ([torch.nn.Parameter(tensor.clone()) for tensor in made] for _ in range(2))
    zeroing = getattr(gpuopt, name)(params, **OPTIONS[name], zero_grads=True, backend=backend)
    plain = getattr(gpuopt, name)(others, **OPTIONS[name], backend=backend)
    for seed in range(3):
        for each in (params, others):
            set_grads(each, seed)
            each[1].grad = drawn(torch.empty(4, 6), seed)[:, 1::2]
            if seed == 1:
                each[2].grad = each[2].grad.conj()
        held = [param.grad for param in params]
        zeroing.step()
        plain.step()
        assert not any(param.grad.resolve_conj().any() for param in params)
        assert all(param.grad is grad for param, grad in zip(params, held, strict=True)) or seed == 1
    assert_same_bits(zeroing, plain)


def test_autograd_sees_that_gradients_are_zeroed() -> None:
    param = torch.nn.Parameter(torch.ones(3))
    param.grad = torch.ones(3)
    product = (param.grad * torch.ones(3, requires_grad=True)).sum()
    gpuopt.SGD([param], zero_grads=True).step()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        product.backward()


# Averages


@pytest.mark.parametrize("decay", [0.0, 0.9, 1.0])
@each_class
def test_averages(name: str, decay: float) -> None:
    model, twin = torch.nn.Linear(5, 3), torch.nn.Linear(5, 3)
    twin.load_state_dict(model.state_dict())
    plain_model = torch.nn.Linear(5, 3)
    plain_model.load_state_dict(model.state_dict())
    optimizer = getattr(gpuopt, name)(model.parameters(), **OPTIONS[name], ema_decay=decay)
    plain = getattr(gpuopt, name)(plain_model.parameters(), **OPTIONS[name])
    expected = getattr(torch.optim, name)(twin.parameters(), **OPTIONS[name])
    average = AveragedModel(twin, multi_avg_fn=get_ema_multi_avg_fn(decay))
    average.update_parameters(twin)
    pair = Pair(list(model.parameters()), list(twin.parameters()), optimizer, expected)
    for seed in range(4):
        pair.step(seed)
        set_grads(list(plain_model.parameters()), seed)
        plain.step()
        average.update_parameters(twin)
    pair.assert_close(own=["ema"])
    assert_same_bits(optimizer, plain)
    trained = [param.detach().clone() for param in model.parameters()]
    rtol, atol = TORCH["float32"]
    with optimizer.averaged_weights():
        for param, wanted in zip(model.parameters(), average.module.parameters(), strict=True):
            assert torch.equal(param, optimizer.state[param]["ema"])
            torch.testing.assert_close(param, wanted, rtol=rtol, atol=atol)
    assert all(torch.equal(param, old) for param, old in zip(model.parameters(), trained, strict=True))


def test_averages_that_begin_later_begin_from_the_parameters() -> None:
    params = parameters()
    optimizer = gpuopt.SGD(params, lr=0.1)
    set_grads(params, 0)
    optimizer.step()
    before = [param.detach().clone() for param in params]
    optimizer.ema_decay = 0.75
    optimizer.step()
    for param, old in zip(params, before, strict=True):
        torch.testing.assert_close(optimizer.state[param]["ema"], 0.75 * old + 0.25 * param.detach())
    with optimizer.averaged_weights():
        pass


def test_averages_of_sixteen_bits_are_float32() -> None:
    params = parameters(torch.bfloat16)
    optimizer = gpuopt.SGD(params, lr=0.1, ema_decay=0.5)
    average = [param.detach().float() for param in params]
    for seed in range(3):
        set_grads(params, seed)
        optimizer.step()
        average = [0.5 * old + 0.5 * param.detach().float() for old, param in zip(average, params, strict=True)]
    trained = [param.detach().clone() for param in params]
    with optimizer.averaged_weights():
        for param, wanted in zip(params, average, strict=True):
            ema = optimizer.state[param]["ema"]
            assert ema.dtype == torch.float32
            torch.testing.assert_close(ema, wanted, rtol=2**-7, atol=2**-7)  # the parameter is averaged unrounded
            assert torch.equal(param, ema.bfloat16())
    assert all(torch.equal(param, old) for param, old in zip(params, trained, strict=True))


def test_parameters_come_back_after_an_error() -> None:
    params = parameters()
    optimizer = gpuopt.Adam(params, ema_decay=0.5)
    set_grads(params, 0)
    optimizer.step()
    trained = [param.detach().clone() for param in params]

    def evaluate() -> None:
        with optimizer.averaged_weights():
            assert not torch.equal(params[0], trained[0])
            raise KeyError("in evaluation")

    with pytest.raises(KeyError, match="in evaluation"):
        evaluate()
    assert all(torch.equal(param, old) for param, old in zip(params, trained, strict=True))
    optimizer.step()


def test_nothing_steps_inside_averaged_weights() -> None:
    params = parameters()
    optimizer = gpuopt.Adam(params, ema_decay=0.5)
    set_grads(params, 0)
    optimizer.step()
    trained = [param.detach().clone() for param in params]
    with optimizer.averaged_weights():
        with pytest.raises(RuntimeError, match="step must not be called inside averaged_weights"):
            optimizer.step()
        with (
            pytest.raises(RuntimeError, match="the averaged weights are in place already"),
            optimizer.averaged_weights(),
        ):
            pass
        assert torch.equal(params[0], optimizer.state[params[0]]["ema"])
    assert all(torch.equal(param, old) for param, old in zip(params, trained, strict=True))
    optimizer.step()
    assert optimizer.state[params[0]]["step"] == 2


@pytest.mark.parametrize("decay", [None, 0.5], ids=["no decay", "no step"])
def test_there_must_be_an_average(decay: float | None) -> None:
    optimizer = gpuopt.Adam(parameters(), ema_decay=decay)
    message = "there are no averaged weights: ema_decay must be given, and a step taken"
    with pytest.raises(RuntimeError, match=message), optimizer.averaged_weights():
        pass


# Masters and state


@pytest.mark.parametrize(
    ("name", "dtype", "backend"),
    [*((name, torch.bfloat16, "numpy") for name in OPTIONS), ("AdamW", torch.float16, "numba")],
)
def test_masters(name: str, dtype: torch.dtype, backend: str) -> None:
    ours = parameters(dtype)
    theirs = [torch.nn.Parameter(param.detach().float()) for param in ours]
    optimizer = getattr(gpuopt, name)(ours, **OPTIONS[name], master_weights=True, backend=backend)
    expected = getattr(torch.optim, name)(theirs, **OPTIONS[name])
    for seed in range(4):
        Pair(ours, theirs, optimizer, expected).step(seed)
    rtol, atol = TORCH["float32"]
    for param, other in zip(ours, theirs, strict=True):
        state = dict(optimizer.state[param])
        del state["param_remainder" if dtype is torch.bfloat16 else "master_param"]
        master = optimizer.master_weight(param)
        assert torch.equal(param, master.to(dtype))
        assert sorted(state) == sorted(expected.state[other])
        torch.testing.assert_close(master, other.detach(), rtol=rtol, atol=atol)
        for key, value in state.items():
            torch.testing.assert_close(value, expected.state[other][key], rtol=rtol, atol=atol)


def _written(param: torch.nn.Parameter, values: torch.Tensor) -> None:
    with torch.no_grad():
        param.copy_(values)


def _loaded(param: torch.nn.Parameter, values: torch.Tensor) -> None:
    module = torch.nn.Module()
    module.register_parameter("weight", param)
    module.load_state_dict({"weight": values})


def _replaced(param: torch.nn.Parameter, values: torch.Tensor) -> None:
    param.data = torch.empty_like(param).copy_(values)


@pytest.mark.parametrize("limit", [None, 0.5], ids=["not clipped", "clipped"])
@pytest.mark.parametrize("layout", ["contiguous", "transposed", "gaps"])
@pytest.mark.parametrize("write", [_written, _loaded, _replaced])
@pytest.mark.parametrize("name", ["AdamW", "SGD"])
def test_an_original_of_float16_follows_where_its_parameter_was_written_to(
    name: str, write: Callable[..., None], layout: str, limit: float | None
) -> None:
    def made(dtype: torch.dtype) -> torch.nn.Parameter:
        whole = drawn(torch.empty(6, 8), 1).to(dtype)
        return torch.nn.Parameter({"contiguous": whole, "transposed": whole.t(), "gaps": whole[:, ::2]}[layout])

    param, twin = made(torch.float16), made(torch.float32)
    optimizer = getattr(gpuopt, name)([param], **OPTIONS[name], master_weights=True, max_grad_norm=limit)
    expected = getattr(gpuopt, name)([twin], **OPTIONS[name], max_grad_norm=limit)
    twin.data.copy_(param.detach().float())
    for seed in range(6):
        if seed in (2, 3):
            values = param.detach().clone()
            values[1:3] = drawn(values[1:3], seed)  # the other rows are written as they are
            write(param, values)
            changed = torch.zeros_like(values, dtype=torch.bool)
            changed[1:3] = True
            with torch.no_grad():
                twin.copy_(torch.where(changed & (twin.half() != values), values.float(), twin))
        grad = drawn(param, 10 + seed)
        param.grad, twin.grad = torch.empty_like(param).copy_(grad), torch.empty_like(twin).copy_(grad.float())
        optimizer.step()
        expected.step()
        assert torch.equal(optimizer.state[param]["master_param"], twin.detach())
        assert torch.equal(param, twin.detach().half())


@pytest.mark.parametrize("order", ["model first", "optimizer first"])
def test_an_original_that_is_loaded_with_its_model_is_kept(order: str) -> None:
    straight, param = bf16_parameter(), bf16_parameter()
    optimizer, loaded = (gpuopt.Adam([each], lr=0.01, master_weights=True) for each in (straight, param))
    loaded.step()
    optimizer.step()
    optimizer.step()
    loads: list[Callable[[], Any]] = [
        lambda: _loaded(param, straight.detach().clone()),
        lambda: loaded.load_state_dict(deepcopy(optimizer.state_dict())),
    ]
    for load in loads if order == "model first" else reversed(loads):
        load()
    for each in (optimizer, loaded):
        each.step()
    assert not torch.equal(optimizer.master_weight(straight), straight.detach().float())
    assert torch.equal(optimizer.master_weight(straight), loaded.master_weight(param))


def test_a_model_that_is_loaded_without_its_optimizer_is_what_is_stepped() -> None:
    param, fresh = bf16_parameter(), bf16_parameter()
    optimizer = gpuopt.SGD([param], lr=1.0, master_weights=True)
    optimizer.step()
    other = gpuopt.SGD([fresh], lr=1.0, master_weights=True)
    other.load_state_dict(optimizer.state_dict())
    other.step()
    assert fresh.tolist() == [0.0] * 3


def test_averaged_weights_leave_originals_alone() -> None:
    param, other = bf16_parameter(), bf16_parameter()
    first, second = (gpuopt.Adam([each], lr=0.01, master_weights=True, ema_decay=0.5) for each in (param, other))
    for _ in range(3):
        first.step()
        second.step()
        with first.averaged_weights():
            pass
    assert torch.equal(first.master_weight(param), second.master_weight(other))
    assert first.state[param]["param_remainder"].any()


def test_wide_parameters_have_no_master() -> None:
    pair = pair_of("Adam", master_weights=True)
    pair.step(0)
    pair.assert_close()


@each_class
def test_state_of_another_dtype(name: str) -> None:
    pair = pair_of(name, state_dtype=torch.bfloat16, backend="numpy")
    pair.step(0)
    rtol, atol = TORCH["bfloat16"]
    for param, other in zip(pair.ours, pair.theirs, strict=True):
        for key, value in pair.optimizer.state[param].items():
            assert value.dtype == (torch.float32 if key == "step" else torch.bfloat16)
            if key == "step" and name == "SGD":  # which has one for its random bits alone
                continue
            torch.testing.assert_close(value.float(), pair.expected.state[other][key], rtol=rtol, atol=atol)
        if name != "Adagrad":  # whose first value is rounded, which the step reads
            torch.testing.assert_close(param, other, rtol=TORCH["float32"][0], atol=TORCH["float32"][1])


def test_a_state_dtype_is_for_new_state_alone() -> None:
    params = parameters()
    optimizer = gpuopt.Adam(params, amsgrad=False)
    set_grads(params, 0)
    params[0].grad = None
    optimizer.step()
    optimizer.state_dtype = torch.bfloat16
    set_grads(params, 1)
    optimizer.step()
    assert [optimizer.state[param]["exp_avg"].dtype for param in params] == [
        torch.bfloat16,
        torch.float32,
        torch.float32,
    ]


def bf16_parameter() -> torch.nn.Parameter:
    param = torch.nn.Parameter(torch.ones(3, dtype=torch.bfloat16))
    param.grad = torch.ones(3, dtype=torch.bfloat16)
    return param


def test_what_was_switched_off_starts_anew() -> None:
    param = bf16_parameter()
    optimizer = gpuopt.SGD([param], lr=1.0, master_weights=True, ema_decay=0.5)
    optimizer.step()
    assert set(optimizer.state[param]) == {"param_remainder", "ema"}
    optimizer.master_weights, optimizer.ema_decay = False, None
    with pytest.raises(RuntimeError, match="ema_decay must be given"), optimizer.averaged_weights():
        pass
    optimizer.step()
    assert not optimizer.state[param]
    optimizer.master_weights, optimizer.ema_decay = True, 0.5
    optimizer.step()
    assert param.tolist() == [-2.0] * 3
    assert optimizer.state[param]["ema"].tolist() == [-1.5] * 3


def test_what_torch_has_cast_is_widened() -> None:
    param, other = bf16_parameter(), bf16_parameter()
    optimizer = gpuopt.Adam([param], master_weights=True, ema_decay=0.5)
    optimizer.step()
    torchs = torch.optim.Adam([other])
    torchs.load_state_dict(optimizer.state_dict())
    torchs.step()
    assert torchs.state[other]["param_remainder"].dtype is torch.bfloat16
    back = gpuopt.Adam([other], lr=0.0, master_weights=True, ema_decay=0.5)
    back.load_state_dict(torchs.state_dict())
    back.param_groups[0]["lr"] = 0.0
    before = other.detach().clone()
    back.step()
    assert {value.dtype for value in back.state[other].values()} == {torch.float32, torch.int16}
    assert torch.equal(back.master_weight(other), before.float())


@pytest.mark.parametrize("name", ["SGD", "Adagrad"])
def test_capturable_outlasts_a_checkpoint_of_torch(name: str) -> None:
    param = torch.nn.Parameter(torch.ones(3))
    optimizer = getattr(gpuopt, name)([param], capturable=True)
    optimizer.load_state_dict(getattr(torch.optim, name)([param]).state_dict())
    assert optimizer.param_groups[0]["capturable"] is True


@each_backend
def test_the_default_device_does_not_matter(backend: str) -> None:
    param = torch.nn.Parameter(torch.ones(3))
    param.grad = torch.ones(3)
    optimizer = gpuopt.Adam([param], backend=backend, max_grad_norm=1.0, ema_decay=0.9)
    torch.set_default_device("meta")
    try:
        optimizer.step()
    finally:
        torch.set_default_device(None)
    assert optimizer.last_grad_norm == torch.tensor(3.0).sqrt()
