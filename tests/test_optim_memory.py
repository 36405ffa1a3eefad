"""A step of the PyTorch optimizers takes one launch and no memory.

However many tensors and parameter groups there are, one device and one set of formats is one call of the driver; on a
GPU one kernel, see ``gpu/test_gpu_optim.py``. A step allocates nothing of the size of the parameters, steps do not
accumulate memory, and neither gradients nor a deleted model are kept alive.
"""

from __future__ import annotations

import gc
import subprocess
import sys
import tracemalloc
import weakref
from typing import Any

import pytest
import torch

import gpuopt
from gpuopt.kernels.drivers import DRIVERS

CLASSES = ["Adam", "AdamW", "RMSprop", "SGD", "Adagrad"]
BACKENDS = [name for name, entry in DRIVERS.items() if entry.device == "cpu"]
EVERYTHING = {"max_grad_norm": 1.0, "ema_decay": 0.9, "zero_grads": True}

each_class = pytest.mark.parametrize("name", CLASSES)
each_backend = pytest.mark.parametrize("backend", BACKENDS)


def parameters(count: int, numel: int = 5, dtype: torch.dtype = torch.float32) -> list[torch.nn.Parameter]:
    params = [torch.nn.Parameter(torch.full((numel,), 0.5, dtype=dtype)) for _ in range(count)]
    set_grads(params)
    return params


def set_grads(params: list[torch.nn.Parameter]) -> None:
    for param in params:
        param.grad = torch.full_like(param, 0.1)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """How often each function of each driver for the host was called."""
    counted = dict.fromkeys(("place", "sum_squares", "step"), 0)

    def count(driver: Any, function: str) -> None:
        original = getattr(driver, function)

        def counting(table: Any, *arguments: Any) -> Any:
            counted[function] += bool(table.numel)
            return original(table, *arguments)

        monkeypatch.setattr(driver, function, counting)

    for name in BACKENDS:
        for function in counted:
            count(DRIVERS[name].load(), function)
    return counted


@each_class
@each_backend
def test_one_launch_for_all_tensors_and_groups(name: str, backend: str, calls: dict[str, int]) -> None:
    groups = [{"params": parameters(7), "lr": 0.1 * (index + 1)} for index in range(3)]
    optimizer = getattr(gpuopt, name)(groups, backend=backend)
    for step in range(1, 4):
        optimizer.step()
        assert calls["step"] == step
    groups[1]["params"][0].grad = None
    optimizer.step()
    groups[1]["params"][0].grad = torch.ones(5)
    optimizer.step()
    assert calls == {"place": 5, "sum_squares": 0, "step": 5}


@each_backend
def test_one_pass_more_for_the_norm(backend: str, calls: dict[str, int]) -> None:
    optimizer = gpuopt.AdamW(parameters(7), backend=backend, **EVERYTHING)
    optimizer.step()
    assert calls == {"place": 1, "sum_squares": 1, "step": 1}


@each_backend
def test_one_launch_per_set_of_formats(backend: str, calls: dict[str, int]) -> None:
    optimizer = gpuopt.Adam(parameters(3) + parameters(3, dtype=torch.bfloat16), backend=backend)
    optimizer.step()
    assert calls["step"] == 2


PEAK = """
import sys, torch, gpuopt, tracemalloc
from pathlib import Path

def resident(field):
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(field))

name, backend = sys.argv[1:]
torch.set_num_threads(1)
params = [torch.nn.Parameter(torch.full((2_000_000,), 0.5)) for _ in range(4)]
for param in params:
    param.grad = torch.full_like(param, 0.1)
optimizer = getattr(gpuopt, name)(params, backend=backend, max_grad_norm=1.0, ema_decay=0.9, zero_grads=True)
for _ in range(3):
    optimizer.step()
tracemalloc.start()
Path("/proc/self/clear_refs").write_text("5")  # the peak of resident memory starts anew
before = resident("VmRSS")
for _ in range(3):
    optimizer.step()
print(resident("VmHWM") - before, tracemalloc.get_traced_memory()[1])
"""


@pytest.mark.parametrize(("name", "backend"), [("Adam", "numba"), ("RMSprop", "numba"), ("Adam", "numpy")])
def test_no_temporary_of_the_size_of_a_parameter(name: str, backend: str) -> None:
    """A parameter has 8 MB. Cache-sized blocks may come and go."""
    out = subprocess.run([sys.executable, "-c", PEAK, name, backend], capture_output=True, text=True, check=True)
    peak, traced = map(int, out.stdout.split())
    assert peak < 3_000_000
    assert traced < 3_000_000


@each_class
def test_steps_accumulate_nothing(name: str) -> None:
    params = parameters(50)
    optimizer = getattr(gpuopt, name)(params, **EVERYTHING)

    def steps(count: int) -> None:
        for _ in range(count):
            set_grads(params)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

    steps(5)
    gc.collect()
    tracemalloc.start()
    try:
        steps(100)
        gc.collect()
        before = tracemalloc.get_traced_memory()[0]
        steps(200)
        gc.collect()
        assert tracemalloc.get_traced_memory()[0] - before < 20_000
    finally:
        tracemalloc.stop()


@each_class
@pytest.mark.parametrize("shape", [(4, 6), (4, 3)], ids=["dense", "gapped"])
def test_gradients_are_not_kept(name: str, shape: tuple[int, int]) -> None:
    param = torch.nn.Parameter(torch.ones(4, 6)[:, : shape[1]])
    optimizer = getattr(gpuopt, name)([param], **EVERYTHING)
    for _ in range(2):
        param.grad = torch.ones(shape)
        grad = weakref.ref(param.grad)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        assert grad() is None


@each_class
def test_a_deleted_model_is_freed_at_once(name: str) -> None:
    model = torch.nn.Linear(3, 2)
    set_grads(list(model.parameters()))
    optimizer = getattr(gpuopt, name)(model.parameters(), **EVERYTHING)
    optimizer.step()
    with optimizer.averaged_weights():
        pass
    optimizer.load_state_dict(optimizer.state_dict())
    optimizer.step()
    held = [weakref.ref(param) for param in model.parameters()]
    held += [weakref.ref(value) for state in optimizer.state.values() for value in state.values()]
    gc.disable()
    try:
        del model, optimizer
        assert not [reference for reference in held if reference() is not None]
    finally:
        gc.enable()
