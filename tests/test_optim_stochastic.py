"""Stochastic rounding of bfloat16 parameters and state gives the same bits wherever and whenever it is done.

1. Parameters of bfloat16 are rounded stochastically with ``stochastic_rounding``, unless they have an original; so is
   state of bfloat16, with it or where ``state_dtype`` asks for bfloat16. Nothing else is.
2. The bits are those of the NumPy driver on every driver, and those of :mod:`gpuopt.arrays`, by which each slot is held
   to a rounding of the exact result by the random bits of its place.
3. Replicas agree; a run that is resumed goes on with the bits of one that was not interrupted, whatever it is resumed
   in; a step that an overflow skips takes no random bits.
4. Frozen parameters, missing gradients and the layout of gradients change nothing of the others' bits; the seed does.
5. Training goes on where nearest rounding stands still.
"""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import torch

import gpuopt
from gpuopt import arrays

CLASSES: dict[str, dict[str, Any]] = {
    "AdamW": {"lr": 0.01, "amsgrad": True},
    "RMSprop": {"lr": 0.01, "centered": True, "momentum": 0.9},
    "SGD": {"lr": 0.01},
    "SGD with momentum": {"lr": 0.01, "momentum": 0.9},
    "Adagrad": {"lr": 0.01},
}

SHAPES = [(40, 30), (1,), (0,), (999,)]

each_class = pytest.mark.parametrize("name", CLASSES)


def drawn(shape: tuple[int, ...], seed: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).bfloat16()


def new(name: str, dtype: torch.dtype = torch.bfloat16, **extras: Any) -> tuple[list[torch.nn.Parameter], Any]:
    params = [torch.nn.Parameter(drawn(shape, index).to(dtype)) for index, shape in enumerate(SHAPES)]
    extras = {"stochastic_rounding": True, **extras}
    return params, getattr(gpuopt, name.partition(" ")[0])(params, **CLASSES[name], **extras)


def train(params: list[torch.nn.Parameter], optimizer: Any, steps: range) -> None:
    for step in steps:
        for index, param in enumerate(params):
            param.grad = drawn(tuple(param.shape), 100 * (step + 1) + index).to(param.dtype)
        optimizer.step()


def bits(params: list[torch.nn.Parameter], optimizer: Any) -> list[bytes]:
    states = [dict(optimizer.state.get(param, {})) for param in params]
    tensors = [*params, *(state[key] for state in states for key in sorted(state))]
    return [tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes() for tensor in tensors]


def trained(name: str, steps: int = 5, **extras: Any) -> list[bytes]:
    params, optimizer = new(name, **extras)
    train(params, optimizer, range(steps))
    return bits(params, optimizer)


@each_class
def test_drivers_replicas_and_seeds(name: str) -> None:
    expected = trained(name, backend="numpy")
    assert trained(name, backend="numba") == expected
    assert trained(name, backend="numpy", seed=1) != expected
    assert trained(name, backend="numpy", stochastic_rounding=False) != expected


@each_class
@pytest.mark.parametrize("again", ["state dict", "copy"])
def test_a_resumed_run_goes_on(name: str, again: str) -> None:
    params, optimizer = new(name, seed=9)
    train(params, optimizer, range(3))
    values = [param.detach().clone() for param in params]
    if again == "copy":
        resumed = deepcopy(optimizer)
        others = [param for group in resumed.param_groups for param in group["params"]]
    else:
        saved = deepcopy(optimizer.state_dict())
        others, resumed = new(name, stochastic_rounding=False)
        resumed = getattr(gpuopt, name.partition(" ")[0])(others)
        resumed.load_state_dict(saved)
        assert resumed.stochastic_rounding
        assert resumed.seed == 9
    for other, value in zip(others, values, strict=True):
        other.data.copy_(value)
    for each, own in ((optimizer, params), (resumed, others)):
        train(own, each, range(3, 6))
    assert bits(others, resumed) == bits(params, optimizer)


@each_class
def test_a_skipped_step_takes_no_random_bits(name: str) -> None:
    params, optimizer = new(name)
    train(params, optimizer, range(2))
    before = bits(params, optimizer)
    optimizer.found_inf = torch.ones(())
    train(params, optimizer, range(7, 8))
    assert bits(params, optimizer) == before
    del optimizer.found_inf
    train(params, optimizer, range(2, 5))
    assert bits(params, optimizer) == trained(name)


@each_class
def test_other_parameters_do_not_matter(name: str) -> None:
    params, optimizer = new(name)
    params[0].requires_grad_(False)
    for step in range(5):
        for index, param in enumerate(params[1:], start=1):
            grad = drawn(tuple(param.shape), 100 * (step + 1) + index)
            param.grad = torch.empty(2 * grad.numel(), dtype=grad.dtype)[::2].copy_(grad)  # with gaps
        optimizer.step()
    made, (frozen, *expected) = bits(params, optimizer), trained(name)[: len(SHAPES)]
    assert made[1 : len(SHAPES)] == expected
    assert made[0] != frozen


ROUNDED = {
    "parameters and state": (torch.bfloat16, {}, {"param", "exp_avg"}),
    "state that is asked for": (
        torch.float32,
        {"state_dtype": torch.bfloat16, "stochastic_rounding": False},
        {"exp_avg"},
    ),
    "state beside an original": (
        torch.bfloat16,
        {"master_weights": True, "state_dtype": torch.bfloat16},
        {"exp_avg"},
    ),
    "parameters alone": (torch.bfloat16, {"state_dtype": torch.float32}, {"param"}),
    "nothing, as torch": (torch.bfloat16, {"stochastic_rounding": False}, set()),
    "nothing of float32": (torch.float32, {}, set()),
    "nothing of float16": (torch.float16, {}, set()),
}


@pytest.mark.parametrize("case", ROUNDED)
def test_what_is_rounded_stochastically(case: str) -> None:
    """It is what the seed changes."""
    dtype, extras, expected = ROUNDED[case]
    runs = [new("AdamW", dtype, seed=seed, **extras) for seed in (1, 2)]
    for params, optimizer in runs:
        train(params, optimizer, range(1))
    one, other = ({"param": params[0], **optimizer.state[params[0]]} for params, optimizer in runs)
    differ = {key for key in one if not torch.equal(one[key], other[key])}
    assert differ - {"exp_avg_sq", "max_exp_avg_sq", "param_remainder"} == expected
    assert ("exp_avg_sq" in differ) == ("exp_avg" in expected)


@pytest.mark.parametrize("backend", ["numpy", "numba"])
def test_arrays_have_the_bits_of_tensors(backend: str) -> None:
    ours = [torch.nn.Parameter(drawn(shape, index)) for index, shape in enumerate(SHAPES)]
    named = {str(index): _array(param) for index, param in enumerate(ours)}
    options: dict[str, Any] = {"lr": 0.01, "eps": 1e-7, "stochastic_rounding": True, "seed": 4, "backend": backend}
    mine, theirs = gpuopt.AdamW(ours, **options), arrays.AdamW(epsilon_hat=False, **options)
    for step in range(4):
        grads = {}
        for index, param in enumerate(ours):
            param.grad = drawn(tuple(param.shape), 50 + 10 * step + index)
            grads[str(index)] = _array(param.grad)
        mine.step()
        theirs.update(named, grads)
    for index, param in enumerate(ours):
        assert named[str(index)].view(np.uint16).tolist() == param.detach().view(torch.uint16).numpy().tolist()
        for slot in ("exp_avg", "exp_avg_sq"):
            own = mine.state[param][slot].view(torch.uint16).numpy()
            assert theirs.state[str(index)][slot].view(np.uint16).tolist() == own.tolist()


def _array(tensor: torch.Tensor) -> Any:
    return tensor.detach().float().numpy().astype(ml_dtypes.bfloat16)


def test_arrays_are_resumed(tmp_path: Any) -> None:
    def update(optimizer: Any, params: dict[str, Any], steps: range) -> None:
        for step in steps:
            rng = np.random.default_rng(step)
            chosen = list(params) if step % 2 else list(params)[1:]
            optimizer.update(
                {name: params[name] for name in chosen},
                {name: rng.standard_normal(params[name].shape).astype(ml_dtypes.bfloat16) for name in chosen},
            )

    params = {name: np.ones(size, ml_dtypes.bfloat16) for name, size in (("a", 500), ("b", 70))}
    straight = arrays.RMSProp(momentum=0.9, stochastic_rounding=True, seed=3)
    update(straight, params, range(3))
    straight.save(tmp_path / "saved.npz")
    others = {name: array.copy() for name, array in params.items()}
    resumed = arrays.RMSProp()
    resumed.load(tmp_path / "saved.npz")
    assert (resumed.stochastic_rounding, resumed.seed) == (True, 3)
    update(straight, params, range(3, 6))
    update(resumed, others, range(3, 6))
    assert {name: array.tobytes() for name, array in params.items()} == {
        name: array.tobytes() for name, array in others.items()
    }


def test_a_checkpoint_of_arrays_from_before_loads() -> None:
    optimizer = arrays.SGD()
    saved = optimizer.state_dict()
    del saved["settings"]["stochastic_rounding"], saved["settings"]["seed"]
    loaded = arrays.SGD(stochastic_rounding=True, seed=1)
    loaded.load_state_dict(saved)
    assert (loaded.stochastic_rounding, loaded.seed) == (False, 0)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"seed": 1.5}, TypeError, "seed must be a whole number, but is 1.5"),
        ({"seed": 1 << 32}, ValueError, "seed must be at least 0 and below"),
        ({"stochastic_rounding": 1}, TypeError, "stochastic_rounding must be True or False, but is 1"),
    ],
)
def test_arrays_refuse(options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        arrays.Adam(**options)


@pytest.mark.parametrize("loads", [False, True])
def test_a_step_count_of_its_own_does_not_pass_for_a_buffer(loads: bool) -> None:
    """The first step with momentum does without dampening, however many there were without momentum."""
    param = torch.nn.Parameter(torch.ones(3))
    param.grad = torch.ones_like(param)
    optimizer = gpuopt.SGD([param], lr=0.1, stochastic_rounding=True)
    for _ in range(2):
        optimizer.step()
    if loads:
        saved, optimizer = optimizer.state_dict(), gpuopt.SGD([param], lr=0.1)
        optimizer.load_state_dict(saved)
        optimizer.stochastic_rounding = False
    optimizer.param_groups[0].update(momentum=0.9, dampening=0.5)
    for _ in range(2):
        optimizer.step()
    torch.testing.assert_close(param.detach(), torch.full((3,), 0.56))


def test_small_updates_add_up() -> None:
    """Of a 40th of a unit each, which nearest rounding loses."""
    params = [torch.nn.Parameter(torch.ones(4096, dtype=torch.bfloat16)) for _ in range(2)]
    for param, stochastic in zip(params, (True, False), strict=True):
        optimizer = gpuopt.SGD([param], lr=1e-4, stochastic_rounding=stochastic)
        for _ in range(100):
            param.grad = torch.ones_like(param)
            optimizer.step()
    assert abs(params[0].float().mean().item() - 0.99) < 3e-4
    assert (params[1] == 1).all()


def test_an_average_can_fall() -> None:
    """Of squared gradients that shrink, with a decay by less than half a unit in each step."""
    param = torch.nn.Parameter(torch.zeros(4096))
    optimizer = gpuopt.Adam([param], lr=0.0, betas=(0.9, 0.999), state_dtype=torch.bfloat16)
    for _ in range(700):
        param.grad = torch.zeros_like(param) if optimizer.state else torch.full_like(param, 100.0)
        optimizer.step()
    exact = 10.0 * 0.999**699
    assert abs(optimizer.state[param]["exp_avg_sq"].float().mean().item() / exact - 1) < 0.01
