"""The array front end.

1. Each class gives the bits of its textbook equation, written here once more in plain NumPy.
2. Every backend that runs here gives the same bits, for every class and option.
3. Parameters are updated in place whatever their strides, dtype and alignment; gradients are only read.
4. ``iter`` counts updates; state is made as zeros, keyed by name; arrays that come, go or move are followed.
5. Bad input is refused with an error that names the argument or parameter, and changes nothing; what a constructor
   can see, there.
6. Printed, an optimizer is the call that makes another like it, or shows what has been set and cannot be.
"""

from __future__ import annotations

import copy
import gc
import pickle
import weakref
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

import ml_dtypes
import numpy as np
import pytest

import gpuopt
from gpuopt.arrays import NAG, SGD, AdaGrad, Adam, AdamW, Momentum, RMSProp
from gpuopt.kernels import drivers
from gpuopt.kernels.drivers import DRIVERS
from gpuopt.kernels.drivers import numba as numba_driver
from gpuopt.plan import Selection

BACKENDS = [name for name, entry in DRIVERS.items() if entry.device == "cpu" and not entry.unavailable()]
F4 = np.float32

OPTIONS = {
    "SGD": lambda **k: SGD(lr=0.1, **k),
    "SGD-decay": lambda **k: SGD(lr=0.1, weight_decay=0.01, **k),
    "SGD-maximize": lambda **k: SGD(lr=0.1, maximize=True, **k),
    "Momentum": Momentum,
    "NAG": NAG,
    "AdaGrad": AdaGrad,
    "AdaGrad-decay": lambda **k: AdaGrad(lr_decay=0.1, initial_accumulator_value=0.5, **k),
    "RMSProp": RMSProp,
    "RMSProp-centered": lambda **k: RMSProp(centered=True, **k),
    "RMSProp-momentum": lambda **k: RMSProp(momentum=0.9, **k),
    "RMSProp-both": lambda **k: RMSProp(momentum=0.9, centered=True, weight_decay=0.01, **k),
    "Adam": Adam,
    "Adam-torch": lambda **k: Adam(epsilon_hat=False, weight_decay=0.1, **k),
    "Adam-amsgrad": lambda **k: Adam(amsgrad=True, **k),
    "AdamW": AdamW,
}


def arrays(seed, shapes=((3, 4), (5,), (), (0, 2)), dtype=F4):
    rng = np.random.default_rng(seed)
    return {f"w{i}": np.asarray(rng.standard_normal(shape), dtype=dtype) for i, shape in enumerate(shapes)}


def same(a, b):
    return a.keys() == b.keys() and all(
        a[k].dtype == b[k].dtype and a[k].shape == b[k].shape and a[k].tobytes() == b[k].tobytes() for k in a
    )


def copied(arrays):
    return {name: array.copy() for name, array in arrays.items()}


def run(make, backend, steps=4, dtype=F4):
    optimizer, params = make(backend=backend), arrays(0, dtype=dtype)
    for seed in range(1, steps + 1):
        optimizer.update(params, arrays(seed, dtype=dtype))
    return params, optimizer


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16, ml_dtypes.bfloat16], ids=lambda d: d.__name__)
@pytest.mark.parametrize("name", OPTIONS)
def test_every_backend_gives_the_same_bits(name, dtype):
    expected, oracle = run(OPTIONS[name], "numpy", dtype=dtype)
    for backend in BACKENDS:
        params, optimizer = run(OPTIONS[name], backend, dtype=dtype)
        assert same(params, expected)
        assert all(same(optimizer.state[key], oracle.state[key]) for key in oracle.state)


def textbook(name, p, g, s, t):
    """One step of a textbook class with its defaults in float32, after its equation. ``s`` is its state."""
    lr, eps = F4(0.01), F4(1e-7)
    if name == "SGD":
        p -= F4(0.1) * g
    elif name == "Momentum":
        s["v"] = F4(0.9) * s.get("v", 0) - lr * g
        p += s["v"]
    elif name == "NAG":
        s["v"] = F4(0.9) * s.get("v", 0) - lr * g
        p += F4(0.9) * s["v"] - lr * g
    elif name == "AdaGrad":
        s["h"] = s.get("h", F4(0)) + g * g
        p -= lr * (g / (np.sqrt(s["h"]) + eps))
    elif name == "RMSProp":
        h = s.get("h", np.zeros_like(g))
        s["h"] = h + (g * g - h) * F4(1 - 0.99)
        p -= lr * (g / (np.sqrt(s["h"]) + eps))
    elif name == "Adam":
        m, v = s.get("m", np.zeros_like(g)), s.get("v", np.zeros_like(g))
        s["m"] = m + (g - m) * F4(1 - 0.9)
        s["v"] = v + (g * g - v) * F4(1 - 0.999)
        step_size = F4(0.001 * np.sqrt(1 - 0.999**t) / (1 - 0.9**t))
        p -= step_size * (s["m"] / (np.sqrt(s["v"]) + eps))


@pytest.mark.parametrize("name", ["SGD", "Momentum", "NAG", "AdaGrad", "RMSProp", "Adam"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_defaults_are_the_textbook_s_bit_for_bit(name, backend):
    optimizer = OPTIONS[name](backend=backend)
    params, expected, state = arrays(0), arrays(0), {}
    for t in range(1, 6):
        grads = arrays(t)
        optimizer.update(params, grads)
        for key, p in expected.items():
            textbook(name, p, grads[key], state.setdefault(key, {}), t)
    assert same(params, expected)


def test_adamw_decays_apart_from_the_gradient():
    p = {"w": np.array([2.0], F4)}
    AdamW(lr=0.1, weight_decay=0.5).update(p, {"w": np.zeros(1, F4)})
    assert p["w"] == F4(2.0) - F4(2.0) * F4(0.1 * 0.5)


VIEWS = {
    "transposed": lambda a: a.T,
    "every other": lambda a: a[::2, 1::3],
    "reversed": lambda a: a[::-1],
    "columns": lambda a: a[:, 2:5],
    "fortran": np.asfortranarray,
    "one off": lambda a: a.reshape(-1)[1:],
    "0-d": lambda a: a[1, 2:3].reshape(()),
}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("grad_view", [*VIEWS, "contiguous"])
@pytest.mark.parametrize("param_view", VIEWS)
def test_strides_do_not_matter(param_view, grad_view, backend):
    base = arrays(0, [(8, 12)])["w0"]
    untouched = base.copy()
    p = VIEWS[param_view](base)
    whole = np.zeros_like(p, order="C")
    optimizer, plain = Adam(backend=backend), Adam(backend="numpy")
    for seed in range(3):
        g = np.random.default_rng(seed).standard_normal(p.shape).astype(F4)
        if seed == 0:
            whole[...] = p
        strided = g.copy(order="F") if grad_view == "fortran" else g
        if grad_view == "every other" and p.ndim:
            strided = np.repeat(g, 2, axis=0)[::2]
        if grad_view == "reversed" and p.ndim:
            strided = g[::-1].copy()[::-1]
        optimizer.update({"w": p}, {"w": strided})
        plain.update({"w": whole}, {"w": g})
    assert np.array_equal(p, whole)
    if np.shares_memory(p, base):
        mask = np.ones(base.shape, bool)
        VIEWS[param_view](mask)[...] = False
        assert np.array_equal(base[mask], untouched[mask])


def test_misaligned_bytes_are_packed():
    raw = np.zeros(4 * 9 + 1, np.uint8)
    p = raw[1:].view(F4)
    assert not p.flags.aligned
    q, g = p.copy(), np.ones(9, F4)
    Adam().update({"w": p}, {"w": g})
    Adam().update({"w": q}, {"w": g})
    assert np.array_equal(p, q)


def test_gradient_may_be_broadcast_and_read_only():
    p, g = {"w": np.zeros((3, 4), F4)}, np.broadcast_to(F4(1), (3, 4))
    SGD(lr=0.5).update(p, {"w": g})
    assert np.all(p["w"] == -0.5)


def test_dtypes_of_parameter_gradient_and_state_are_independent():
    p = {"w": np.ones(5, ml_dtypes.bfloat16)}
    optimizer = Adam(state_dtype=np.float32)
    optimizer.update(p, {"w": np.ones(5, np.float16)})
    assert p["w"].dtype == ml_dtypes.bfloat16
    assert {slot.dtype for slot in optimizer.state["w"].values()} == {np.dtype(F4)}


def test_iter_counts_and_state_is_keyed_by_name():
    optimizer, p = Adam(amsgrad=True), arrays(0)
    assert optimizer.iter == 0
    assert not optimizer.state
    optimizer.update(p, arrays(1))
    optimizer.update(p, arrays(2))
    assert optimizer.iter == 2
    assert optimizer.state.keys() == p.keys()
    assert set(optimizer.state["w0"]) == {"exp_avg", "exp_avg_sq", "max_exp_avg_sq"}


def test_empty_dicts_count_as_an_update():
    optimizer = SGD()
    optimizer.update({}, {})
    assert optimizer.iter == 1


@pytest.mark.parametrize("backend", BACKENDS)
def test_arrays_that_move_are_followed(backend):
    optimizer, plain = Adam(backend=backend), Adam(backend="numpy")
    p, q = arrays(0), arrays(0)
    for seed in range(1, 8):
        grads = arrays(seed)
        if seed == 3:
            p = copied(p)
        if seed == 4:
            p["new"], q["new"] = np.ones(3, F4), np.ones(3, F4)
        if seed == 5:
            p, q = dict(reversed(p.items())), dict(reversed(q.items()))
        if seed == 6:
            optimizer.load_state_dict(optimizer.state_dict())
        if seed >= 4:
            grads["new"] = np.full(3, seed, F4)
        if seed == 7:
            grads["w0"] = np.asfortranarray(grads["w0"])
            optimizer.lr = plain.lr = 0.5
        optimizer.update(p, grads)
        plain.update(q, copied(grads))
        plain._kept = None
    assert same(p, q)


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda o: pickle.loads(pickle.dumps(o))])
def test_an_optimizer_can_be_copied_and_pickled(duplicate):
    first, p = Adam(), arrays(0)
    first.update(p, arrays(1))
    second, q = duplicate(first), copied(p)
    first.update(p, arrays(2))
    second.update(q, arrays(2))
    assert same(p, q)
    assert second.iter == 2


def test_state_can_be_read_and_its_arrays_changed_but_not_replaced():
    optimizer, p, g = Momentum(lr=1.0), {"w": np.zeros(3, F4)}, {"w": np.ones(3, F4)}
    optimizer.update(p, g)
    optimizer.state["w"]["momentum_buffer"][:] = 0
    optimizer.update(p, g)
    assert np.all(p["w"] == -2)
    with pytest.raises(TypeError):
        optimizer.state["w"] = {}
    with pytest.raises(TypeError):
        optimizer.state["w"]["momentum_buffer"] = np.zeros(3, F4)


def test_settings_may_change_the_slots_between_updates():
    optimizer, p = RMSProp(), arrays(0)
    optimizer.update(p, arrays(1))
    optimizer.momentum, optimizer.centered = 0.9, True
    optimizer.update(p, arrays(2))
    assert set(optimizer.state["w0"]) == {"square_avg", "grad_avg", "momentum_buffer"}
    optimizer.momentum = 0.0
    optimizer.update(p, arrays(3))
    assert set(optimizer.state["w0"]) == {"square_avg", "grad_avg"}


def test_nothing_keeps_gradients_or_parameters_alive():
    optimizer, p, g = Adam(), {"w": np.ones(3, F4)}, {"w": np.ones(3, F4)}
    optimizer.update(p, g)
    references = weakref.ref(p["w"]), weakref.ref(g["w"])
    del p, g
    gc.collect()
    assert references[0]() is None
    assert references[1]() is None


@pytest.mark.parametrize("backend", BACKENDS)
def test_no_parameter_sized_temporary(backend):
    import tracemalloc

    p, g = {"w": np.ones(4_000_000, F4)}, {"w": np.ones(4_000_000, F4)}
    optimizer = Adam(backend=backend)
    optimizer.update(p, g)
    tracemalloc.start()
    optimizer.update(p, g)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < p["w"].nbytes / 8


BAD = {
    "keys": (
        lambda o, p, g: o.update(p, {"w0": g["w0"]}),
        ValueError,
        "grads must have a gradient for every parameter, but has none for 'w1'",
    ),
    "extra": (
        lambda o, p, g: o.update({"w0": p["w0"]}, g),
        ValueError,
        "grads must have gradients of parameters alone, but has 'w1', which params has not",
    ),
    "None": (
        lambda o, p, g: o.update(p, {**g, "w1": None}),
        TypeError,
        "grad 'w1' must be a NumPy or CuPy array, but is NoneType",
    ),
    "shape": (
        lambda o, p, g: o.update(p, {**g, "w1": np.zeros(4, F4)}),
        ValueError,
        r"grad 'w1' must have the shape of param 'w1', \(5,\), but has \(4,\)",
    ),
    "integer": (
        lambda o, p, g: o.update({**p, "w1": np.zeros(5, int)}, g),
        TypeError,
        "param 'w1' must be of dtype float32, .* but is int64",
    ),
    "object": (
        lambda o, p, g: o.update(p, {**g, "w1": np.zeros(5, object)}),
        TypeError,
        "grad 'w1' must be of dtype .* but is object",
    ),
    "byte order": (
        lambda o, p, g: o.update({**p, "w1": np.zeros(5, ">f4")}, g),
        TypeError,
        "param 'w1' must be .* native byte order, but is >f4",
    ),
    "list": (
        lambda o, p, g: o.update({**p, "w1": [0.0] * 5}, g),
        TypeError,
        "param 'w1' must be a NumPy or CuPy array, but is list",
    ),
    "masked": (
        lambda o, p, g: o.update({**p, "w1": np.ma.zeros(5, F4)}, g),
        TypeError,
        "param 'w1' must be a NumPy or CuPy array, but is MaskedArray",
    ),
    "read-only": (
        lambda o, p, g: o.update({**p, "w1": np.broadcast_to(np.zeros(5, F4), (5,))}, g),
        ValueError,
        "param 'w1' must be writable, but is read-only",
    ),
    "overlap": (
        lambda o, p, g: o.update({**p, "w1": p["w0"].reshape(-1)[2:7]}, g),
        ValueError,
        "param 'w0' and param 'w1' must not share memory, but they do",
    ),
    "itself": (
        lambda o, p, g: o.update(
            {**p, "w1": np.lib.stride_tricks.as_strided(np.zeros(5, F4), (5,), (0,), writeable=True)}, g
        ),
        ValueError,
        r"param 'w1' must not overlap itself, but its strides are \(0,\)",
    ),
    "grad is param": (
        lambda o, p, g: o.update(p, {**g, "w1": p["w1"]}),
        ValueError,
        "param 'w1' and grad 'w1' must not share memory, but they do",
    ),
    "no mapping": (
        lambda o, p, g: o.update(list(p.values()), g),
        TypeError,
        "params must be a mapping from names to arrays, but is list",
    ),
    "read-only later": (
        lambda o, p, g: (p["w1"].setflags(write=False), o.update(p, g)),
        ValueError,
        "param 'w1' must be writable, but is read-only",
    ),
    "dtype later": (
        lambda o, p, g: o.update({**p, "w1": p["w1"].view(np.int32)}, g),
        TypeError,
        "param 'w1' must be of dtype .* but is int32",
    ),
    "float32": (
        lambda o, p, g: (setattr(o, "lr", 1e41), o.update(p, g)),
        ValueError,
        r"step_size must be within the range of float32, but is .*e\+4\d",
    ),
    "state_dtype": (
        lambda o, p, g: (setattr(o, "state_dtype", "float33"), o.update({**p, "new": p["w1"]}, {**g, "new": g["w1"]})),
        TypeError,
        "state_dtype must be a dtype, '8bit' or None, but is 'float33'",
    ),
    "backend": (
        lambda o, p, g: (setattr(o, "backend", "fast"), o.update(p, g)),
        ValueError,
        "backend must be one of numba, numpy, cupy, triton or None, but is 'fast'",
    ),
    "lr": (
        lambda o, p, g: (setattr(o, "lr", -1), o.update(p, g)),
        ValueError,
        "lr must be a finite number >= 0, but is -1",
    ),
}


@pytest.mark.parametrize("started", [False, True], ids=["first update", "later update"])
@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_refused_and_changes_nothing(case, started):
    call, error, message = BAD[case]
    optimizer, params, grads = Adam(), arrays(0), arrays(1)
    if started:
        optimizer.update(params, grads)
    before = copied(params)
    state = {name: copied(slots) for name, slots in optimizer.state.items()}
    with pytest.raises(error, match=message):
        call(optimizer, params, grads)
    assert same(params, before)
    assert optimizer.iter == started
    assert optimizer.state.keys() == state.keys()
    assert all(same(optimizer.state[name], state[name]) for name in state)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Adam(backend="fast"), "backend must be one of numba, numpy, cupy, triton or None, but is 'fast'"),
        (lambda: SGD(backend=["numpy"]), r"backend must be one of numba, .* or None, but is \['numpy'\]"),
        (lambda: AdamW(state_dtype="int64"), "state_dtype must be float32, .* or None, but is int64"),
        (
            lambda: Adam(state_dtype=">f4"),
            "state_dtype must be float32, .* in native byte order, '8bit' or None, but is >f4",
        ),
        (lambda: SGD(lr=-0.1), "lr must be a finite number >= 0, but is -0.1"),
        (lambda: SGD(lr=float("nan")), "lr must be a finite number >= 0, but is nan"),
        (lambda: SGD(lr=10**400), "lr must be a finite number >= 0, but is 1000"),
        (lambda: Adam(beta1=1.0), r"beta1 must be in \[0, 1\), but is 1.0"),
        (lambda: Adam(beta2=-0.1), r"beta2 must be in \[0, 1\), but is -0.1"),
        (lambda: Adam(eps=-1e-8), "eps must be a finite number >= 0"),
        (lambda: AdamW(weight_decay=-1), "weight_decay must be a finite number >= 0"),
        (lambda: RMSProp(decay_rate=1), r"decay_rate must be in \[0, 1\)"),
        (lambda: Momentum(momentum=-0.5), "momentum must be a finite number >= 0"),
        (lambda: AdaGrad(initial_accumulator_value=-1), "initial_accumulator_value must be a finite number >= 0"),
    ],
)
def test_bad_settings_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SGD(lr="fast"), "lr must be a number, but is 'fast'"),
        (lambda: SGD(lr=np.complex64(1)), "lr must be a number"),
        (lambda: SGD(maximize=5.5), "maximize must be True or False, but is 5.5"),
        (lambda: Adam(amsgrad="yes"), "amsgrad must be True or False, but is 'yes'"),
    ],
)
def test_settings_must_be_of_their_type(make, message):
    with pytest.raises(TypeError, match=message):
        make()


def test_scalars_of_numpy_do_not_narrow_the_hyper():
    narrow, wide = Adam(beta2=np.float16(0.999)), Adam(beta2=float(np.float16(0.999)))
    p, q = arrays(0), arrays(0)
    for seed in range(1, 30):
        narrow.update(p, arrays(seed))
        wide.update(q, arrays(seed))
    assert same(p, q)


def test_interleaved_views_of_one_array_do_not_overlap():
    base = np.zeros(10, F4)
    SGD(lr=1.0).update({"a": base[::2], "b": base[1::2]}, {"a": np.ones(5, F4), "b": np.full(5, 2, F4)})
    assert np.array_equal(base, np.tile(np.array([-1, -2], F4), 5))


class Lazy(Mapping):
    """Makes its arrays anew whenever it is asked, as a file of ``np.load`` does."""

    def __init__(self, arrays):
        self._arrays = arrays

    def __getitem__(self, name):
        return self._arrays[name].copy()

    def __iter__(self):
        return iter(self._arrays)

    def __len__(self):
        return len(self._arrays)


@pytest.mark.parametrize("backend", BACKENDS)
def test_gradients_may_be_made_when_asked_for(backend):
    optimizer, plain, p, q = Adam(backend=backend), Adam(), arrays(0, [(300, 300)]), arrays(0, [(300, 300)])
    for seed in range(1, 4):
        grads = arrays(seed, [(300, 300)])
        optimizer.update(p, Lazy(grads))
        plain.update(q, grads)
    assert same(p, q)


def test_a_gradient_may_become_misaligned():
    optimizer, p = SGD(lr=1.0), {"w": np.zeros(5, F4)}
    optimizer.update(p, {"w": np.ones(5, F4)})
    raw = np.zeros(21, np.uint8)
    g = raw[1:].view(F4)
    g[...] = 2
    optimizer.update(p, {"w": g})
    assert np.all(p["w"] == -3)
    assert optimizer._kept.selection.launches[0]._packed


def test_an_interrupted_update_does_not_mistake_old_gradients_for_new(monkeypatch):
    optimizer, p, g = SGD(lr=1.0), {"w": np.zeros(3, F4)}, {"w": np.ones(3, F4)}
    optimizer.update(p, g)
    with monkeypatch.context() as patch:
        take = Selection.take

        def interrupted(*arguments):
            take(*arguments)
            raise KeyboardInterrupt

        patch.setattr(Selection, "take", interrupted)
        with pytest.raises(KeyboardInterrupt):
            optimizer.update(p, {"w": np.full(3, 100, F4)})
    optimizer.update(p, g)
    assert np.all(p["w"] == -2)


def test_dtypes_that_differ_are_several_launches_and_one_step(monkeypatch):
    optimizer = SGD(lr=1.0, backend="numba")
    p = {"a": np.zeros(3, F4), "b": np.zeros(3)}
    g = {"a": np.ones(3, F4), "b": np.ones(3)}
    monkeypatch.setattr(numba_driver, "compiled", failing_for("fp64", numba_driver.compiled))
    with pytest.raises(MemoryError):
        optimizer.update(p, g)
    assert np.all(p["a"] == 0)
    monkeypatch.undo()
    optimizer.update(p, g)
    assert np.all(p["a"] == -1)
    assert np.all(p["b"] == -1)


def failing_for(format, compiled):
    def fail(variant, *how):
        if variant.formats[0].name == format:
            raise MemoryError
        return compiled(variant, *how)

    return fail


def test_threads_step_their_own_optimizers():
    def train(seed):
        optimizer, p = Adam(backend="numba"), arrays(seed, [(200, 200)])
        for step in range(20):
            optimizer.update(p, arrays(step, [(200, 200)]))
        return p

    expected = [train(seed) for seed in range(4)]
    with ThreadPoolExecutor(4) as pool:
        assert all(map(same, pool.map(train, range(4)), expected))


def test_one_gradient_may_serve_two_parameters():
    g = np.ones(3, F4)
    p = {"a": np.zeros(3, F4), "b": np.zeros(3, F4)}
    SGD(lr=1.0).update(p, {"a": g, "b": g})
    assert np.all(p["b"] == -1)


def test_a_backend_that_cannot_run_here_is_refused_by_the_update_alone(monkeypatch):
    monkeypatch.setattr(drivers, "find_spec", lambda name: None)
    optimizer, p = Adam(backend="cupy"), arrays(0)
    with pytest.raises(RuntimeError, match="backend 'cupy' cannot run here: cupy is not installed"):
        optimizer.update(p, arrays(1))
    assert same(p, arrays(0))
    assert optimizer.iter == 0


class TestStep:
    """The functional form."""

    @pytest.mark.parametrize("backend", [*BACKENDS, None])
    def test_equals_the_class(self, backend):
        p, g = arrays(0), arrays(1)
        expected = copied(p)
        adam = Adam(epsilon_hat=False, eps=1e-8)
        adam.update(expected, g)
        state = {slot: [np.zeros_like(a) for a in p.values()] for slot in ("exp_avg", "exp_avg_sq")}
        hyper = gpuopt.kernels.rules.adam.hyper_at(1, 0.001, 0.9, 0.999, 1e-8)
        gpuopt.arrays.step("adam", list(p.values()), list(g.values()), state, hyper, backend=backend)
        assert same(p, expected)
        gpuopt.arrays.step("adam", list(p.values()), list(g.values()), state, hyper._asdict(), backend=backend)
        assert not same(p, expected)

    def test_no_tensors(self):
        gpuopt.arrays.step("sgd", [], [], {}, (1, 0, 0, 0, 0))

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (("adm", [], [], {}, ()), "rule must be one of adam, rmsprop, sgd, adagrad, but is 'adm'"),
            (("adagrad", [], [], {}, (1, 1)), r"state of adagrad must have slots of \('sum',\), but has \(\)"),
            (("adagrad", [], [], {"sum": []}, (1,)), r"hyper of adagrad must be \('step_size', 'eps'\), but has 1"),
            (("adagrad", [], [], {"sum": []}, {"lr": 1}), "hyper of adagrad must have the fields"),
            (
                ("adam", [], [], {"exp_avg": [], "exp_avg_sq": []}, gpuopt.kernels.rules.sgd.hyper_at(1, 1)),
                "hyper of adam must be AdamHyper, but is SGDHyper",
            ),
            (("adagrad", [np.ones(1)], [], {"sum": []}, (1, 1)), "grads must hold an array per parameter, 1, but"),
        ],
    )
    def test_bad_input(self, arguments, message):
        with pytest.raises(ValueError, match=message):
            gpuopt.arrays.step(*arguments)


@pytest.mark.parametrize("name", OPTIONS)
def test_printed_it_is_the_call_that_makes_another(name):
    optimizer = OPTIONS[name](backend="numpy", state_dtype=np.float64)
    again = eval(repr(optimizer), {type(optimizer).__name__: type(optimizer)})
    names = (*optimizer.settings, "backend")
    assert type(again) is type(optimizer)
    assert [getattr(again, each) for each in names] == [getattr(optimizer, each) for each in names]
    assert np.dtype(again.state_dtype) == np.float64
    assert repr(again) == repr(optimizer)


@pytest.mark.parametrize(("name", "value"), [("state_dtype", 5), ("backend", "fast"), ("lr", "0.1")])
def test_printed_it_shows_what_the_next_update_refuses(name, value):
    optimizer = Adam()
    setattr(optimizer, name, value)
    assert f"{name}={value!r}" in repr(optimizer)


def test_printed():
    assert repr(AdamW(lr=0.5)) == (
        "AdamW(lr=0.5, weight_decay=0.01, maximize=False, beta1=0.9, beta2=0.999, eps=1e-07, amsgrad=False, "
        "epsilon_hat=True, state_dtype=None, stochastic_rounding=False, seed=0, backend=None)"
    )


@pytest.mark.parametrize("make", [SGD, Momentum, NAG, AdaGrad, RMSProp, Adam, AdamW])
def test_an_unknown_keyword(make):
    with pytest.raises(TypeError, match=rf"^{make.__name__}\(\) got an unexpected keyword argument 'betas'$"):
        make(betas=(0.9, 0.999))
