"""The array front end on CuPy arrays.

1. It gives the bits that it gives on NumPy arrays, by every driver for GPUs, whatever the strides.
2. It runs on CuPy's current stream, and on the arrays' device whichever is current.
3. Checkpoints go between NumPy and CuPy, and between devices.
4. Arrays from two places in one call are refused.
"""

from __future__ import annotations

import numpy as np
import pytest

from gpuopt.arrays import NAG, Adam, RMSProp
from gpuopt.kernels.drivers import DRIVERS

cupy = pytest.importorskip("cupy")

BACKENDS = [name for name, entry in DRIVERS.items() if entry.device == "cuda"]
MAKERS = {
    "NAG": NAG,
    "RMSProp": lambda **k: RMSProp(centered=True, momentum=0.9, **k),
    "Adam": lambda **k: Adam(amsgrad=True, weight_decay=0.01, **k),
}

VIEWS = {
    "transposed": lambda a: a.T,
    "every other": lambda a: a[::2, 1::3],
    "columns": lambda a: a[:, 1:],
    "reversed": lambda a: a[::-1],
}


def arrays(seed, dtype=np.float32):
    rng = np.random.default_rng(seed)
    return {f"w{i}": rng.standard_normal(shape).astype(dtype) for i, shape in enumerate([(70, 90), (), (5,), (0, 3)])}


def to_device(arrays):
    return {name: cupy.asarray(array) for name, array in arrays.items()}


def same(host, device):
    return all(host[name].tobytes() == device[name].get().tobytes() for name in host)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16], ids=lambda d: d.__name__)
@pytest.mark.parametrize("name", MAKERS)
def test_same_bits_as_on_the_host(name, dtype, backend):
    on_host, on_device = MAKERS[name](backend="numpy"), MAKERS[name](backend=backend)
    p, q = arrays(0, dtype), to_device(arrays(0, dtype))
    for seed in range(1, 5):
        on_host.update(p, arrays(seed, dtype))
        on_device.update(q, to_device(arrays(seed, dtype)))
    assert same(p, q)


@pytest.mark.parametrize("view", VIEWS.values(), ids=VIEWS)
def test_strides_do_not_matter(view, backend):
    base, device = arrays(0)["w0"], to_device(arrays(0))["w0"]
    on_host, on_device = Adam(backend="numpy"), Adam(backend=backend)
    for seed in range(1, 4):
        g = arrays(seed)["w0"]
        on_host.update({"w": view(base)}, {"w": view(g)})
        on_device.update({"w": view(device)}, {"w": view(cupy.asarray(g))})
    assert base.tobytes() == device.get().tobytes()


def test_the_current_stream_is_used(backend):
    on_host, on_device = Adam(backend="numpy"), Adam(backend=backend)
    p, q = arrays(0), to_device(arrays(0))
    with cupy.cuda.Stream(non_blocking=True) as stream:
        for seed in range(1, 4):
            on_host.update(p, arrays(seed))
            on_device.update(q, to_device(arrays(seed)))
        stream.synchronize()
    assert same(p, q)


def test_checkpoints_go_both_ways(backend, tmp_path):
    first, p = Adam(), arrays(0)
    first.update(p, arrays(1))
    first.save(tmp_path / "host")
    second, q = Adam(backend=backend), to_device(p)
    second.load(tmp_path / "host")
    first.update(p, arrays(2))
    second.update(q, to_device(arrays(2)))
    assert same(p, q)
    second.save(tmp_path / "device")
    third = Adam()
    third.load(tmp_path / "device")
    first.update(p, arrays(3))
    back = {name: array.get() for name, array in q.items()}
    third.update(back, arrays(3))
    assert all(p[name].tobytes() == back[name].tobytes() for name in p)


def test_another_device_than_the_current_one(backend):
    if cupy.cuda.runtime.getDeviceCount() < 2:
        pytest.skip("one CUDA device")
    on_host, on_device = Adam(backend="numpy"), Adam(backend=backend)
    p = arrays(0)
    with cupy.cuda.Device(1):
        q = to_device(p)
        grads = [to_device(arrays(seed)) for seed in range(1, 4)]
    for seed in range(1, 4):
        on_host.update(p, arrays(seed))
        on_device.update(q, grads[seed - 1])
        on_device.load_state_dict(on_device.state_dict())
    assert same(p, q)


def test_two_places_are_refused(backend):
    with pytest.raises(ValueError, match="all arrays must be in one place, but param 'w0' is in cupy on CUDA device 0"):
        Adam(backend=backend).update(to_device(arrays(0)), arrays(1))
