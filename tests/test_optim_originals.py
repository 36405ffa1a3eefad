"""The original that a bfloat16 parameter is rounded from is kept in a remainder beside it.

1. ``master_weights=True``: for the same gradients, the original is, bit for bit, what training in float32 comes to, and
   the parameter is that rounded to nearest, after each step of AdamW over a thousand of them, of every other rule over
   some, with clipping and averages too. So it is by every driver.
2. ``"24bit"``: after each step it is that of float32 on the original before, rounded to 24 bits.
3. Infinities, NaN, subnormals and the largest finite value go in and out.
4. A float32 original of an earlier checkpoint is gone on with to the bit, wherever the parameter is it, rounded, in
   either way of ties; where others have written to the parameter, that stays. So are remainders of the other width. A
   step that is skipped, or fails, changes neither.
5. What is written to a parameter between steps stays, and the remainder is dropped, which is told. Loading a model and
   its optimizer, in either order, and evaluating averages, is no writing. Whoever looks at the original, saves or
   copies it before the next step finds it dropped. What is written unseen is at most half a unit off, and no NaN.
6. It takes 2 and 1 bytes beside a bfloat16, state keeps float32, and float16 keeps a float32 original.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import numpy as np
import pytest
import torch

import gpuopt
from gpuopt.kernels.formats import FORMATS

CLASSES: dict[str, dict[str, Any]] = {
    "AdamW": {"weight_decay": 0.1},
    "Adam": {"amsgrad": True, "weight_decay": 0.01},
    "RMSprop": {"centered": True, "momentum": 0.9},
    "SGD": {"momentum": 0.9, "nesterov": True},
    "Adagrad": {},
}

REMAINDERS = {True: torch.int16, "24bit": torch.int8}

BACKENDS = ["numpy", "numba"]

WRITTEN = r"^a parameter of shape \(4, 100\) was written to since it was stepped, so that"

each_width = pytest.mark.parametrize("width", REMAINDERS, ids=str)
each_backend = pytest.mark.parametrize("backend", BACKENDS)


def drawn(shape: tuple[int, ...], seed: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).bfloat16()


def new_params(dtype: torch.dtype = torch.bfloat16) -> list[torch.nn.Parameter]:
    return [torch.nn.Parameter(drawn(shape, index).to(dtype)) for index, shape in enumerate([(7, 9), (), (0,), (300,)])]


def set_grads(params: list[torch.nn.Parameter], seed: int) -> None:
    for index, param in enumerate(params):
        param.grad = drawn(tuple(param.shape), 1000 * seed + index).to(param.dtype)


def bits(tensor: torch.Tensor) -> list[int]:
    return tensor.detach().flatten().view(torch.int32 if tensor.dtype is torch.float32 else torch.int16).tolist()


def away_from_zero(original: torch.Tensor) -> torch.Tensor:
    """The nearest bfloat16, of two as near the one away from zero."""
    return ((original.view(torch.int32) + 0x8000) >> 16).to(torch.int16).view(torch.bfloat16)


@pytest.mark.parametrize(
    ("name", "extras", "steps", "backend"),
    [("AdamW", {}, 1000, "numba")]
    + [(name, {}, 20, backend) for name in CLASSES for backend in BACKENDS]
    + [("AdamW", {"max_grad_norm": 0.5, "ema_decay": 0.9, "zero_grads": True}, 20, "numba")],
)
def test_it_is_float32(name: str, extras: dict[str, Any], steps: int, backend: str) -> None:
    params, wide = new_params(), new_params(torch.float32)
    options = {"lr": 0.01, "backend": backend, **CLASSES[name], **extras}
    optimizer, expected = (
        getattr(gpuopt, name)(params, master_weights=True, **options),
        getattr(gpuopt, name)(wide, **options),
    )
    for step in range(steps):
        set_grads(params, step)
        set_grads(wide, step)
        optimizer.step()
        expected.step()
        for param, other in zip(params, wide, strict=True):
            assert torch.equal(optimizer.master_weight(param), other.detach())
            assert torch.equal(param.detach(), away_from_zero(other.detach()))
    for param, other in zip(params, wide, strict=True):
        state, theirs = dict(optimizer.state[param]), expected.state[other]
        assert state.pop("param_remainder").dtype is torch.int16
        assert set(state) == set(theirs)
        assert all(torch.equal(state[key], theirs[key]) for key in theirs)


@each_backend
@pytest.mark.parametrize("name", CLASSES)
def test_it_is_float32_rounded_to_24_bits(name: str, backend: str) -> None:
    params, wide = new_params(), new_params(torch.float32)
    options = {"lr": 0.01, "backend": backend, **CLASSES[name]}
    optimizer = getattr(gpuopt, name)(params, master_weights="24bit", **options)
    expected = getattr(gpuopt, name)(wide, **options)
    format = FORMATS["split24"]
    for step in range(20):
        set_grads(params, step)
        set_grads(wide, step)
        optimizer.step()
        expected.step()
        for param, other in zip(params, wide, strict=True):
            high, low = format.store(other.detach().numpy(), None)
            other.data.copy_(torch.from_numpy(np.asarray(format.load(high, low))))
            assert torch.equal(optimizer.master_weight(param), other.detach())
            assert torch.equal(param.detach(), away_from_zero(other.detach()))


EDGES = [0.0, -0.0, float("inf"), -float("inf"), float("nan"), 3.4028234663852886e38, 1e-45, -1e-39, 1.0, 2.0**-126]


@each_width
@each_backend
def test_values_at_the_edges_stay(width: Any, backend: str) -> None:
    wide = torch.tensor(EDGES)
    param = torch.nn.Parameter(wide.bfloat16())
    param.grad = torch.zeros_like(param)
    optimizer = gpuopt.SGD([param], lr=0.0, master_weights=width, backend=backend)
    optimizer.load_state_dict(
        {**optimizer.state_dict(), "state": {0: {"master_param": wide.clone()}}},
    )
    optimizer.step()
    kept = optimizer.master_weight(param)
    if width is True:
        np.testing.assert_array_equal(kept.numpy(), wide.numpy())
    else:
        high, low = FORMATS["split24"].store(wide.numpy(), None)
        np.testing.assert_array_equal(kept.numpy(), FORMATS["split24"].load(high, low))


TIES = [0x3F808000, 0x3F818000, 0x3F807FFF, 0x3F808001, 0xBF808000, 0xBF818000, 0x00008000, 0x7F7F8000, 0x3F800080]


@each_width
@each_backend
def test_an_earlier_original_is_gone_on_with(width: Any, backend: str) -> None:
    """Of which the parameter was rounded to even."""
    drawn_bits = np.random.default_rng(0).integers(0, 1 << 32, 10_000, np.uint64).astype(np.uint32)
    wide = torch.from_numpy(np.concatenate([np.array(TIES, np.uint32), drawn_bits]).view(np.float32).copy())
    wide = torch.where(wide.isnan(), torch.ones_like(wide), wide)
    param = torch.nn.Parameter(wide.bfloat16())
    param.grad = torch.zeros_like(param)
    optimizer = gpuopt.SGD([param], lr=0.0, master_weights=width, backend=backend)
    saved = {**optimizer.state_dict(), "state": {0: {"master_param": wide.clone()}}}
    optimizer.load_state_dict(saved)
    with torch.no_grad():
        param[-3:] = 7.0  # by others
    optimizer.step()
    expected = wide.clone()
    if width == "24bit":
        expected = torch.from_numpy(FORMATS["split24"].load(*FORMATS["split24"].store(wide.numpy(), None)))
    expected[-3:] = 7.0
    assert bits(optimizer.master_weight(param)) == bits(expected)
    assert bits(param) == bits(away_from_zero(expected))
    assert set(optimizer.state[param]) == {"param_remainder"}


def test_widths_change() -> None:
    param, twin = (torch.nn.Parameter(drawn((1000,), 0)) for _ in range(2))
    optimizer, other = (gpuopt.AdamW([each], lr=0.01, master_weights=True) for each in (param, twin))
    for step in range(5):
        param.grad = twin.grad = drawn((1000,), step)
        optimizer.step()
        other.step()
    before = optimizer.master_weight(param)
    optimizer.param_groups[0]["lr"] = 0.0
    optimizer.master_weights = "24bit"
    optimizer.step()
    rounded = torch.from_numpy(FORMATS["split24"].load(*FORMATS["split24"].store(before.numpy(), None)))
    assert torch.equal(optimizer.master_weight(param), rounded)
    optimizer.master_weights = True
    optimizer.step()
    assert torch.equal(optimizer.master_weight(param), rounded)
    assert optimizer.state[param]["param_remainder"].dtype is torch.int16
    optimizer.master_weights = False
    optimizer.step()
    assert "param_remainder" not in optimizer.state[param]


def stepped(width: Any, **options: Any) -> tuple[torch.nn.Parameter, gpuopt.AdamW]:
    """A parameter whose original is beyond it."""
    param = torch.nn.Parameter(drawn((4, 100), 0))
    optimizer = gpuopt.AdamW([param], lr=0.01, weight_decay=0.0, master_weights=width, **options)
    for step in range(3):
        param.grad = drawn((4, 100), step + 1)
        optimizer.step()
    assert not width or optimizer.state[param]["param_remainder"].any()
    optimizer.param_groups[0]["lr"] = 0.0
    return param, optimizer


def _written(param: torch.nn.Parameter) -> None:
    with torch.no_grad():
        param[0] = 3.0


def _clamped(param: torch.nn.Parameter) -> None:
    with torch.no_grad():
        param.clamp_(-0.1, 0.1)


def _loaded(param: torch.nn.Parameter) -> None:
    module = torch.nn.Module()
    module.register_parameter("weight", param)
    module.load_state_dict({"weight": drawn((4, 100), 9)})


@each_width
@pytest.mark.parametrize("write", [_written, _clamped, _loaded])
def test_what_others_write_is_not_undone(write: Callable[..., None], width: Any) -> None:
    param, optimizer = stepped(width)
    write(param)
    written = param.detach().clone()
    with pytest.warns(UserWarning, match=WRITTEN) as caught:
        optimizer.step()
    assert [each.filename for each in caught] == [__file__]
    assert torch.equal(optimizer.master_weight(param), written.float())
    assert not optimizer.state[param]["param_remainder"].any()
    optimizer.step()  # and no warning


@each_width
def test_what_is_written_while_a_row_is_made_anew(width: Any) -> None:
    """As with gradients that lie otherwise, which is no reason to forget that the parameter was written to."""
    param, optimizer = stepped(width)
    _written(param)
    param.grad = drawn((100, 4), 5).t()
    with pytest.warns(UserWarning, match=WRITTEN):
        optimizer.step()
    assert not optimizer.state[param]["param_remainder"].any()


@each_width
def test_memory_that_moves_is_no_writing(width: Any) -> None:
    """As where parameters are taken off a device and back."""
    param, optimizer = stepped(width)
    before = optimizer.master_weight(param)
    param.data = param.data.clone()
    optimizer.step()
    assert torch.equal(optimizer.master_weight(param), before)


@each_width
@pytest.mark.parametrize("fails", [False, True])
def test_evaluating_averages_is_no_writing(width: Any, fails: bool) -> None:
    param, optimizer = stepped(width, ema_decay=0.5)
    before = optimizer.master_weight(param)
    try:
        with optimizer.averaged_weights():
            assert torch.equal(param, optimizer.state[param]["ema"].bfloat16())
            if fails:
                raise KeyboardInterrupt
    except KeyboardInterrupt:
        pass
    optimizer.step()
    assert torch.equal(optimizer.master_weight(param), before)
    _written(param)
    with optimizer.averaged_weights():
        pass
    with pytest.warns(UserWarning, match=WRITTEN):
        optimizer.step()


@each_width
@pytest.mark.parametrize("order", ["model first", "optimizer first"])
@pytest.mark.parametrize("has_stepped", [False, True])
def test_a_resumed_training_has_the_same_bits(width: Any, order: str, has_stepped: bool) -> None:
    param, optimizer = stepped(width)
    model, saved = param.detach().clone(), deepcopy(optimizer.state_dict())
    other = torch.nn.Parameter(drawn((4, 100), 8))
    resumed = gpuopt.AdamW([other], lr=0.5, weight_decay=0.0, master_weights=width)
    if has_stepped:
        other.grad = drawn((4, 100), 7)
        resumed.step()
    loads: list[Callable[[], Any]] = [
        lambda: torch.nn.Module.load_state_dict(_module(other), {"weight": model}),
        lambda: resumed.load_state_dict(saved),
    ]
    for load in loads if order == "model first" else reversed(loads):
        load()
    for each, own in ((optimizer, param), (resumed, other)):
        each.param_groups[0]["lr"] = 0.01
        own.grad = drawn((4, 100), 6)
        each.step()
    assert torch.equal(optimizer.master_weight(param), resumed.master_weight(other))


def _module(param: torch.nn.Parameter) -> torch.nn.Module:
    module = torch.nn.Module()
    module.register_parameter("weight", param)
    return module


def test_an_average_starts_from_the_original() -> None:
    param, optimizer = stepped(True)
    before = optimizer.master_weight(param)
    optimizer.ema_decay = 1.0
    optimizer.step()
    assert torch.equal(optimizer.state[param]["ema"], before)


@each_width
@pytest.mark.parametrize("layout", ["transposed", "gaps", "misaligned"])
def test_layouts(width: Any, layout: str) -> None:
    """A remainder lies as its parameter does, or without its gaps."""
    flat = drawn((97,), 0)
    made = {"transposed": drawn((8, 12), 0).t(), "gaps": drawn((8, 24), 0)[:, ::2], "misaligned": flat[1:]}[layout]
    plain = torch.nn.Parameter(made.contiguous().clone())
    param = torch.nn.Parameter(made)
    optimizers = [gpuopt.AdamW([each], lr=0.01, master_weights=width) for each in (param, plain)]
    for step in range(3):
        param.grad = plain.grad = drawn(tuple(param.shape), step)
        for optimizer in optimizers:
            optimizer.step()
    one, other = (optimizer.master_weight(each) for optimizer, each in zip(optimizers, (param, plain), strict=True))
    assert torch.equal(one, other)
    assert torch.equal(param, plain)


@each_width
def test_bytes(width: Any) -> None:
    params = [torch.nn.Parameter(torch.ones(1000, dtype=dtype)) for dtype in (torch.bfloat16, torch.float16)]
    set_grads(params, 0)
    optimizer = gpuopt.AdamW(params, master_weights=width)
    optimizer.step()
    first, second = (optimizer.state[param] for param in params)
    assert {key: value.dtype for key, value in first.items()} == {
        "param_remainder": REMAINDERS[width],
        "exp_avg": torch.float32,
        "exp_avg_sq": torch.float32,
        "step": torch.float32,
    }
    assert second["master_param"].dtype is torch.float32
    assert torch.equal(params[1], second["master_param"].half())


def _saved(param: torch.nn.Parameter, optimizer: Any) -> torch.Tensor:
    other = torch.nn.Parameter(param.detach().clone())
    resumed = gpuopt.AdamW([other])
    resumed.load_state_dict(deepcopy(optimizer.state_dict()))
    return resumed.master_weight(other)


def _copied(param: torch.nn.Parameter, optimizer: Any) -> torch.Tensor:
    copy = deepcopy(optimizer)
    return copy.master_weight(copy.param_groups[0]["params"][0])


def _averaged(param: torch.nn.Parameter, optimizer: Any) -> torch.Tensor:
    optimizer.ema_decay = 1.0
    optimizer.step()
    return optimizer.state[param]["ema"]


def _asked(param: torch.nn.Parameter, optimizer: Any) -> torch.Tensor:
    return optimizer.master_weight(param)


@each_width
@pytest.mark.parametrize("look", [_saved, _copied, _averaged, _asked])
def test_what_was_written_is_not_undone_by_who_looks_before_the_next_step(width: Any, look: Callable[..., Any]) -> None:
    param, optimizer = stepped(width)
    _written(param)
    with pytest.warns(UserWarning, match=WRITTEN):
        assert torch.equal(look(param, optimizer), param.detach().float())
    optimizer.step()  # and no further warning


@each_width
@pytest.mark.parametrize("value", [0.0, -0.0, float("inf"), 1e-45, 3.0])
def test_what_is_written_unseen_is_at_most_half_a_unit_off(width: Any, value: float) -> None:
    param, optimizer = stepped(width)
    param.data.fill_(value)
    optimizer.step()
    found = optimizer.master_weight(param)
    assert torch.equal(param, torch.full_like(param, value)) or value == float("inf")
    assert (found - value).abs().max() <= 2.0**-8 * abs(value) + 1e-38 or value == float("inf")
    assert not found.isnan().any()


def _skipped(optimizer: Any) -> None:
    optimizer.found_inf = torch.ones(())
    optimizer.step()
    del optimizer.found_inf


def _failed(optimizer: Any) -> None:
    optimizer.max_grad_norm, optimizer.error_if_nonfinite = 1.0, True
    for param in optimizer.param_groups[0]["params"]:
        param.grad = torch.full_like(param, float("nan"))
    with pytest.raises(RuntimeError, match="non-finite"):
        optimizer.step()
    optimizer.max_grad_norm, optimizer.error_if_nonfinite = None, False


@pytest.mark.parametrize("nothing", [_skipped, _failed])
@pytest.mark.parametrize("how", ["switched", "loaded", "loaded float32"])
def test_an_original_is_gone_on_with_only_by_a_step_that_is_taken(how: str, nothing: Callable[..., None]) -> None:
    wide = torch.from_numpy(np.random.default_rng(0).standard_normal(100_000).astype(np.float32))
    wide[:2] = torch.tensor([0x3F808000, 0x3FFFFFFF], dtype=torch.int32).view(torch.float32)
    param = torch.nn.Parameter(wide.bfloat16())
    param.grad = torch.zeros_like(param)
    optimizer = gpuopt.SGD([param], lr=0.0, master_weights=True)
    optimizer.load_state_dict({**optimizer.state_dict(), "state": {0: {"master_param": wide.clone()}}})
    if how != "loaded float32":
        optimizer.step()
        saved = deepcopy(optimizer.state_dict())
        optimizer.master_weights = "24bit"
        if how == "loaded":
            optimizer = gpuopt.SGD([param], lr=0.0, master_weights="24bit")
            with pytest.warns(UserWarning, match="^master_weights stays '24bit'"):
                optimizer.load_state_dict(saved)
    before = param.detach().clone()
    nothing(optimizer)
    assert torch.equal(param, before)
    param.grad = torch.zeros_like(param)
    optimizer.step()
    expected = wide
    if how != "loaded float32":
        expected = torch.from_numpy(FORMATS["split24"].load(*FORMATS["split24"].store(wide.numpy(), None)))
    assert torch.equal(optimizer.master_weight(param), expected)
    optimizer.step()  # and no warning


def test_parameters_that_are_views_of_one_buffer() -> None:
    """PyTorch counts what is written to one of them for all."""
    flat = drawn((200,), 0)
    params = [torch.nn.Parameter(flat[:100]), torch.nn.Parameter(flat[100:])]
    optimizer = gpuopt.AdamW(params, lr=0.01, master_weights=True)
    for step in range(4):
        params[0].grad = drawn((100,), step)
        params[1].grad = None if step == 2 else drawn((100,), step)
        optimizer.step()
    with torch.no_grad():
        params[1].mul_(2)
    params[1].grad = None
    with pytest.warns(UserWarning, match="was written to"):
        optimizer.step()


def test_parameters_that_nobody_counts_writes_of() -> None:
    for dtype, width in ((torch.float32, False), (torch.bfloat16, True), (torch.float16, True)):
        with torch.inference_mode():
            param = torch.nn.Parameter(torch.ones(4, dtype=dtype), requires_grad=False)
            param.grad = torch.ones_like(param)
        optimizer = gpuopt.SGD([param], lr=0.25, master_weights=width)
        for _ in range(2):
            optimizer.step()
        assert param.tolist() == [0.5] * 4


@pytest.mark.parametrize("bad", [torch.ones(4, 100, 1, dtype=torch.uint8), torch.ones(4, 100, dtype=torch.int32), 3])
def test_a_saved_remainder_that_is_none_is_refused(bad: Any) -> None:
    _, optimizer = stepped(True)
    saved = deepcopy(optimizer.state_dict())
    before = {key: value.clone() for key, value in dict(next(iter(optimizer.state.values()))).items()}
    saved["state"][0]["param_remainder"] = bad
    with pytest.raises(ValueError, match=r"^param_remainder of parameter 0 must be a tensor of int8, or of bytes"):
        optimizer.load_state_dict(saved)
    after = dict(next(iter(optimizer.state.values())))
    assert all(torch.equal(before[key], after[key]) for key in before)


def test_a_remainder_as_it_is_saved_may_be_put_into_the_state() -> None:
    param, optimizer = stepped(True)
    before = optimizer.master_weight(param)
    optimizer.state[param]["param_remainder"] = deepcopy(optimizer.state_dict())["state"][0]["param_remainder"]
    optimizer.step()
    assert torch.equal(optimizer.master_weight(param), before)


def test_a_pickle_from_before_there_were_formats() -> None:
    _, optimizer = stepped(False)
    state = optimizer.__getstate__()
    for name in ("stochastic_rounding", "seed"):
        del state[name], state["_unsaid"][name]
    other = gpuopt.AdamW.__new__(gpuopt.AdamW)
    other.__setstate__(state)
    other.step()
    assert not other.stochastic_rounding


def test_a_remainder_of_another_shape_is_refused() -> None:
    param, optimizer = stepped(True)
    before = param.detach().clone()
    optimizer.state[param]["param_remainder"] = torch.zeros(3, dtype=torch.int16)
    with pytest.raises(
        ValueError, match=r"^int16 part of param 0 of group 0 must have the shape of param 0 of group 0"
    ):
        optimizer.step()
    assert torch.equal(param, before)
