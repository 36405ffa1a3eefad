"""State in 8 bits of the optimizers for arrays, by ``state_dtype="8bit"``.

1. It is for every class whose rule has no sum, and has the bits of the optimizers for PyTorch, whatever the layout.
2. It is saved, loaded and copied as other state is, and what comes next has the bits of a run that was not interrupted.
3. State is converted where ``state_dtype`` is another than it was: to the nearest codes, and back without loss, in new
   arrays, and where the update fails it stays as it was. So it is where a parameter changes its layout.
4. State that is no such, and an Adagrad, are refused in a sentence.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import gpuopt
from gpuopt import arrays, eight_bit
from gpuopt.kernels.formats import EIGHT_BIT

MAKE: dict[str, Callable[..., Any]] = {
    "Momentum": arrays.Momentum,
    "NAG": arrays.NAG,
    "RMSProp": lambda **o: arrays.RMSProp(**{"momentum": 0.5, "centered": True, **o}),
    "Adam": lambda **o: arrays.Adam(amsgrad=True, **o),
    "AdamW": arrays.AdamW,
}

LAYOUTS: dict[str, Callable[[], np.ndarray[Any, Any]]] = {
    "many": lambda: np.zeros((5, 70), np.float32),
    "one": lambda: np.zeros((), np.float32),
    "none": lambda: np.zeros((0, 3), np.float32),
    "a block and one": lambda: np.zeros(129, np.float32),
    "transposed": lambda: np.zeros((13, 20), np.float32).T,
    "channels last": lambda: np.zeros((2, 5, 7, 3), np.float32).transpose(0, 3, 1, 2),
    "with gaps": lambda: np.zeros((20, 26), np.float32)[:, ::2],
}

each_class = pytest.mark.parametrize("name", MAKE)


def new(name: str, **options: Any) -> arrays.Optimizer:
    optimizer: arrays.Optimizer = MAKE[name](lr=0.01, **{"state_dtype": "8bit", "backend": "numpy", **options})
    return optimizer


def drawn(seed: int) -> dict[str, np.ndarray[Any, Any]]:
    made = {name: make() for name, make in LAYOUTS.items()}
    for index, array in enumerate(made.values()):
        array[...] = np.random.default_rng(100 * seed + index).standard_normal(array.shape)
    return made


def update(optimizer: arrays.Optimizer, params: dict[str, Any], steps: range) -> None:
    for step in steps:
        optimizer.update(params, drawn(step + 1))


def everything(optimizer: arrays.Optimizer, params: dict[str, Any]) -> dict[Any, bytes]:
    state = {(name, slot): array for name, slots in optimizer.state.items() for slot, array in slots.items()}
    return {key: array.tobytes() for key, array in {**params, **state}.items()}


def trained(name: str, steps: int = 3, **options: Any) -> tuple[arrays.Optimizer, dict[str, Any]]:
    optimizer, params = new(name, **options), drawn(0)
    update(optimizer, params, range(steps))
    return optimizer, params


def test_every_class_has_it_or_refuses_it() -> None:
    for name in arrays.__all__:
        chosen = getattr(arrays, name)
        if not hasattr(chosen, "rule") or chosen is arrays.Optimizer:
            continue
        if set(chosen.rule.kinds.values()) <= set(EIGHT_BIT):
            assert name in (*MAKE, "SGD")
            continue
        message = f"^state_dtype must not be '8bit' for {name}, whose sum only grows"
        with pytest.raises(ValueError, match=message):
            chosen(state_dtype="8bit")
        optimizer = chosen()
        optimizer.state_dtype = "8bit"
        with pytest.raises(ValueError, match=message):
            optimizer.update(drawn(0), drawn(1))


@pytest.mark.parametrize("seed", [0, 4])
def test_the_bits_are_those_of_tensors(seed: int) -> None:
    options: dict[str, Any] = {"lr": 0.01, "eps": 1e-7, "state_dtype": "8bit", "seed": seed, "backend": "numpy"}
    named = drawn(0)
    params = [torch.nn.Parameter(torch.from_numpy(array)) for array in drawn(0).values()]
    mine, theirs = arrays.AdamW(epsilon_hat=False, **options), gpuopt.AdamW(params, **options)
    for step in range(4):
        grads = drawn(step + 1)
        mine.update(named, grads)
        for param, grad in zip(params, grads.values(), strict=True):
            param.grad = torch.from_numpy(grad)
        theirs.step()
    for param, (name, array) in zip(params, named.items(), strict=True):
        assert array.tobytes() == param.detach().numpy().tobytes()
        for entry, value in mine.state[name].items():
            other = theirs.state[param][entry].numpy()
            assert (value.dtype, value.shape) == (other.dtype, other.shape)
            assert value.tobytes() == other.tobytes()
            assert value.strides == other.strides or value.size <= 1


@each_class
def test_names_and_bytes(name: str) -> None:
    optimizer, params = trained(name)
    slots = [slot for slot in optimizer.rule.slots if slot in optimizer.rule.required + optimizer._options()]
    for key, array in params.items():
        state = optimizer.state[key]
        assert list(state) == [entry for slot in slots for entry in eight_bit.names_of(slot)]
        assert sum(each.nbytes for each in state.values()) == len(slots) * (array.size + 4 * -(-array.size // 128))


@pytest.mark.parametrize("how", ["file", "copy", "pickle"])
@each_class
def test_a_resumed_run_has_the_same_bits(name: str, how: str, tmp_path: Path) -> None:
    optimizer, params = trained(name, seed=3)
    if how == "file":
        optimizer.save(tmp_path / "saved.npz")
        again = new(name, state_dtype=None)
        again.load(tmp_path / "saved.npz")
        assert again.state_dtype == "8bit"
    else:
        again = deepcopy(optimizer) if how == "copy" else pickle.loads(pickle.dumps(optimizer))
    others = {key: array.copy(order="K") for key, array in params.items()}
    others["with gaps"] = drawn(0)["with gaps"]
    others["with gaps"][...] = params["with gaps"]
    assert everything(again, others) == everything(optimizer, params)
    for each, own in ((optimizer, params), (again, others)):
        update(each, own, range(3, 6))
    assert everything(again, others) == everything(optimizer, params)


@pytest.mark.parametrize("rounds", [False, True])
@each_class
def test_state_is_converted(name: str, rounds: bool) -> None:
    optimizer, params = trained(name, state_dtype=None, stochastic_rounding=rounds)
    held = {key: dict(slots) for key, slots in optimizer.state.items()}
    before = everything(optimizer, params)
    optimizer.state_dtype, optimizer.lr = "8bit", 1e300
    with pytest.raises(ValueError, match="must be within the range of float32"):
        update(optimizer, params, range(3, 4))
    assert everything(optimizer, params) == before
    optimizer.lr = 0.01
    update(optimizer, params, range(3, 4))
    assert all(slot.endswith(("_codes", "_scales")) for slots in optimizer.state.values() for slot in slots)
    assert all(array.tobytes() == before[key, slot] for key, slots in held.items() for slot, array in slots.items())
    for dtype, expected in ((None, np.float32), (np.float64, np.float64)):
        other = deepcopy(optimizer)
        other.state_dtype = dtype
        other.update({}, {})
        other.update(params, drawn(9))
        assert {array.dtype for slots in other.state.values() for array in slots.values()} == {np.dtype(expected)}
        assert not any("_codes" in slot for slots in other.state.values() for slot in slots)


def test_centering_that_is_switched_off_leaves_the_mean_of_squares() -> None:
    """Of which the variance was stored."""
    moved = []
    for state_dtype in ("8bit", None):
        optimizer = arrays.RMSProp(lr=0.01, centered=True, state_dtype=state_dtype, backend="numpy")
        params = {"w": np.zeros(300, np.float32)}
        for seed in range(9):
            grad = 1 + 0.1 * np.random.default_rng(seed).standard_normal(300).astype(np.float32)
            optimizer.update(params, {"w": grad})
        optimizer.centered = False
        before = params["w"].copy()
        optimizer.update(params, {"w": np.ones(300, np.float32)})
        moved.append(params["w"] - before)
        assert not any(name.startswith("grad_avg") for name in optimizer.state["w"])
    np.testing.assert_allclose(*moved, rtol=0.15)


@each_class
def test_nothing_is_lost_by_converting_to_and_fro(name: str) -> None:
    """But of centered RMSProp, whose variance and mean, as they are stored, are added and parted again."""
    options = {"centered": False} if name == "RMSProp" else {}
    straight, params = trained(name, **options)
    saved = straight.state_dict()
    for key, slots in saved["state"].items():
        saved["state"][key] = {
            slot: _values(slots, slot, EIGHT_BIT[kind])
            for slot, kind in straight.rule.kinds.items()
            if f"{slot}_codes" in slots
        }
    turned, others = new(name, **options), drawn(0)
    for key, array in others.items():
        array[...] = params[key]
    turned.load_state_dict(saved)
    for each, own in ((straight, params), (turned, others)):
        update(each, own, range(3, 5))
    assert everything(turned, others) == everything(straight, params)


def _values(slots: Any, slot: str, format: Any) -> np.ndarray[Any, Any]:
    codes = slots[f"{slot}_codes"]
    values = np.empty_like(codes, dtype=np.float32)
    axes = sorted(range(codes.ndim), key=lambda axis: -codes.strides[axis])
    flat = eight_bit.decode(codes.transpose(axes).reshape(-1), slots[f"{slot}_scales"], format)
    values.transpose(axes)[...] = flat.reshape(values.transpose(axes).shape)
    return values


def test_a_parameter_that_changes_its_layout() -> None:
    optimizer, params = trained("AdamW")
    kind = EIGHT_BIT["signed"]
    before = _values(optimizer.state["channels last"], "exp_avg", kind)
    params["channels last"] = np.ascontiguousarray(params["channels last"])
    optimizer.beta1 = optimizer.beta2 = 1 - 2**-20  # so that averages stay
    update(optimizer, params, range(3, 4))
    assert optimizer.state["channels last"]["exp_avg_codes"].flags.c_contiguous
    after = _values(optimizer.state["channels last"], "exp_avg", kind)
    assert (np.abs(after - before) <= np.abs(before) / 4 + 4e-6 * np.abs(before).max()).all()


WRONG: dict[str, tuple[Callable[[dict[str, Any]], Any], type[Exception], str]] = {
    "no scales": (lambda s: s.pop("exp_avg_scales"), ValueError, r"state of 'many' must have slots of \('exp_avg', "),
    "no codes": (lambda s: s.pop("exp_avg_codes"), ValueError, r"state of 'many' must have slots of \('exp_avg', "),
    "codes of another dtype": (
        lambda s: s.update(exp_avg_codes=s["exp_avg_codes"].astype(np.float32)),
        TypeError,
        "exp_avg_codes 'many' must be of dtype uint8 in native byte order, but is float32",
    ),
    "too few scales": (
        lambda s: s.update(exp_avg_scales=s["exp_avg_scales"][:2]),
        ValueError,
        r"exp_avg_scales 'many' must have the shape \(3,\), an entry for every 128 codes, but has \(2,\)",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_state_that_is_no_such(case: str) -> None:
    optimizer, params = trained("AdamW")
    saved, before = optimizer.state_dict(), everything(optimizer, params)
    change, error, message = WRONG[case]
    change(saved["state"]["many"])
    with pytest.raises(error, match=message):
        optimizer.load_state_dict(saved)
    assert everything(optimizer, params) == before


def test_state_of_another_shape() -> None:
    optimizer, params = trained("AdamW")
    saved = optimizer.state_dict()
    saved["state"]["many"]["exp_avg_codes"] = saved["state"]["many"]["exp_avg_codes"].T
    optimizer.load_state_dict(saved)
    with pytest.raises(ValueError, match=r"exp_avg 'many' must have the shape of param 'many', \(5, 70\), but has"):
        update(optimizer, params, range(3, 4))


def test_printed_it_is_the_call_that_makes_another() -> None:
    optimizer = arrays.AdamW(state_dtype="8bit")
    assert "state_dtype='8bit'" in repr(optimizer)
    assert repr(eval(repr(optimizer), {"AdamW": arrays.AdamW})) == repr(optimizer)
