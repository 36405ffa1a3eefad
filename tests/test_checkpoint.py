"""Checkpoints of the array front end.

1. Training that is saved and loaded, in another process too, goes on with the very bits of training that was not.
2. A write that is interrupted leaves the old file whole and no other behind.
3. State dtypes survive, bfloat16 included. A state dict is a copy, not a view.
4. What is not a state dict of the same optimizer is refused, and nothing changes.
"""

from __future__ import annotations

import subprocess
import sys

import ml_dtypes
import numpy as np
import pytest

from gpuopt.arrays import SGD, AdaGrad, Adam, AdamW, Momentum, RMSProp

MAKERS = {
    "SGD": SGD,
    "Momentum": Momentum,
    "AdaGrad": lambda: AdaGrad(lr_decay=0.1, initial_accumulator_value=0.3),
    "RMSProp": lambda: RMSProp(momentum=0.9, centered=True),
    "Adam": lambda: Adam(amsgrad=True),
    "AdamW": lambda: AdamW(state_dtype=np.float64),
}


def params(dtype=np.float32):
    rng = np.random.default_rng(0)
    return {"layer.0/weight": rng.standard_normal((3, 5)).astype(dtype), "bias": rng.standard_normal(4).astype(dtype)}


def grads(step, dtype=np.float32):
    rng = np.random.default_rng(step)
    return {"layer.0/weight": rng.standard_normal((3, 5)).astype(dtype), "bias": rng.standard_normal(4).astype(dtype)}


def train(optimizer, p, steps, dtype=np.float32):
    for step in steps:
        optimizer.update(p, grads(step, dtype))


def same(a, b):
    return all(a[name].tobytes() == b[name].tobytes() and a[name].dtype == b[name].dtype for name in a)


@pytest.mark.parametrize("dtype", [np.float32, ml_dtypes.bfloat16], ids=["fp32", "bf16"])
@pytest.mark.parametrize("name", MAKERS)
def test_training_goes_on_as_if_uninterrupted(name, dtype, tmp_path):
    straight, p = MAKERS[name](), params(dtype)
    train(straight, p, range(6), dtype)

    first, q = MAKERS[name](), params(dtype)
    first.lr *= 1
    train(first, q, range(3), dtype)
    first.save(tmp_path / "checkpoint")
    second = MAKERS[name]()
    second.lr = 123.0
    second.load(tmp_path / "checkpoint")
    assert second.iter == 3
    assert second.lr == first.lr
    train(second, q, range(3, 6), dtype)

    assert same(p, q)
    assert all(same(straight.state[key], second.state[key]) for key in p)


def test_another_process_goes_on(tmp_path):
    straight, p = Adam(), params()
    train(straight, p, range(4))
    first, q = Adam(), params()
    train(first, q, range(2))
    first.save(tmp_path / "c.npz")
    np.savez(tmp_path / "q.npz", **{str(i): a for i, a in enumerate(q.values())})
    code = f"""
import sys, numpy as np, pathlib
sys.path.insert(0, {__file__.rpartition("/")[0]!r})
from test_checkpoint import Adam, train
folder = pathlib.Path({str(tmp_path)!r})
with np.load(folder / "q.npz") as file:
    q = dict(zip({list(q)!r}, (file["0"], file["1"])))
adam = Adam()
adam.load(folder / "c.npz")
train(adam, q, range(2, 4))
sys.stdout.buffer.write(b"".join(a.tobytes() for a in q.values()))
"""
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert out.stdout == b"".join(array.tobytes() for array in p.values())


def test_interrupted_write_leaves_the_old_file(tmp_path, monkeypatch):
    optimizer, p = Adam(), params()
    train(optimizer, p, range(1))
    path = tmp_path / "checkpoint.npz"
    optimizer.save(path)
    old = path.read_bytes()
    train(optimizer, p, range(1))

    def write_half(file, **arrays):
        file.write(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(np, "savez", write_half)
    with pytest.raises(KeyboardInterrupt):
        optimizer.save(path)
    assert path.read_bytes() == old
    assert list(tmp_path.iterdir()) == [path]


def test_state_dict_is_a_copy():
    optimizer, p = Adam(), params()
    train(optimizer, p, range(1))
    taken = optimizer.state_dict()
    before = taken["state"]["bias"]["exp_avg"].copy()
    train(optimizer, p, range(1))
    assert np.array_equal(taken["state"]["bias"]["exp_avg"], before)
    other = Adam()
    other.load_state_dict(taken)
    train(other, params(), range(1))
    assert np.array_equal(taken["state"]["bias"]["exp_avg"], before)


def test_before_the_first_update_state_is_empty(tmp_path):
    Adam().save(tmp_path / "c")
    loaded = Adam()
    loaded.load(tmp_path / "c")
    assert loaded.iter == 0
    assert loaded.state == {}


def edited(**changes):
    def edit(state_dict):
        return {**state_dict, **changes}

    return edit


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda d: RMSProp().state_dict(), "state_dict must be of Adam, but is of RMSProp"),
        (lambda d: AdamW().state_dict(), "state_dict must be of Adam, but is of AdamW"),
        (lambda d: {}, "state_dict must have the keys"),
        (edited(iter=-1), "iter must be an integer >= 0, but is -1"),
        (edited(settings={"lr": 1}), "settings of Adam must be"),
        (edited(state={"bias": {"sum": np.ones(4)}}), "state of 'bias' must have slots of"),
        (lambda d: {**d, "settings": {**d["settings"], "lr": -1}}, "lr must be a finite number >= 0, but is -1"),
        (edited(state={"bias": {"exp_avg": [1], "exp_avg_sq": [1]}}), "exp_avg 'bias' must be a NumPy or CuPy array"),
    ],
)
def test_wrong_state_dict_is_refused(edit, message):
    optimizer, p = Adam(), params()
    train(optimizer, p, range(2))
    before = optimizer.state_dict()
    with pytest.raises((TypeError, ValueError), match=message):
        optimizer.load_state_dict(edit(optimizer.state_dict()))
    after = optimizer.state_dict()
    assert after["iter"] == before["iter"]
    assert after["settings"] == before["settings"]
    assert all(same(after["state"][name], before["state"][name]) for name in p)


def test_wrong_shape_is_refused_at_the_next_update():
    optimizer, p = Adam(), params()
    train(optimizer, p, range(1))
    taken = optimizer.state_dict()
    taken["state"]["bias"]["exp_avg"] = np.zeros(7, np.float32)
    optimizer.load_state_dict(taken)
    before = {name: array.copy() for name, array in p.items()}
    with pytest.raises(ValueError, match=r"exp_avg 'bias' must have the shape of param 'bias', \(4,\), but has \(7,\)"):
        optimizer.update(p, grads(1))
    assert same(p, before)
    assert optimizer.iter == 1


def write_other(path):
    with path.open("wb") as file:
        np.savez(file, a=np.ones(3))


def write_array(path):
    with path.open("wb") as file:
        np.save(file, np.ones(3))


def write_text(path):
    path.write_text("not a checkpoint")


def write_truncated(path):
    Adam().save(path)
    path.write_bytes(path.read_bytes()[:100])


@pytest.mark.parametrize("write", [write_other, write_array, write_text, write_truncated, lambda path: path.touch()])
def test_a_file_that_is_no_checkpoint_is_refused(write, tmp_path):
    path = tmp_path / "other"
    write(path)
    with pytest.raises(ValueError, match=r"other must be a checkpoint of gpuopt\.arrays, but is not"):
        Adam().load(path)


def test_a_link_stays_a_link(tmp_path):
    link = tmp_path / "latest"
    link.symlink_to(tmp_path / "c1")
    Adam().save(link)
    assert link.is_symlink()
    assert (tmp_path / "c1").exists()


def test_scalars_of_numpy_can_be_saved(tmp_path):
    Adam(lr=np.float32(0.1), maximize=np.bool_(True)).save(tmp_path / "c")


@pytest.mark.parametrize("through_a_file", [False, True])
def test_order_of_axes_survives(through_a_file, tmp_path):
    optimizer, p = Adam(), {"w": np.asfortranarray(np.ones((3, 4), np.float32))}
    g = {"w": np.asfortranarray(np.ones((3, 4), np.float32))}
    optimizer.update(p, g)
    if through_a_file:
        optimizer.save(tmp_path / "c")
        optimizer.load(tmp_path / "c")
    else:
        optimizer.load_state_dict(optimizer.state_dict())
    optimizer.update(p, g)
    assert optimizer.state["w"]["exp_avg"].flags.f_contiguous
    assert not optimizer._kept.selection.launches[0]._packed


def test_a_name_that_is_no_string_cannot_be_saved(tmp_path):
    optimizer = Adam()
    optimizer.update({0: np.ones(3)}, {0: np.ones(3)})
    with pytest.raises(TypeError, match="the name of a parameter must be a string, but is 0"):
        optimizer.save(tmp_path / "c")
    assert not list(tmp_path.iterdir())
