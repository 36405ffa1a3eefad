"""The optimizers for PyTorch on CUDA.

1. The bits of a step are those of the same step on the host, for every class and both backends.
2. A step is one kernel, two with a schedule, two more with clipping, and at most one copy to the device. It never
   makes the host wait, and allocates nothing of the size of a parameter.
3. It runs on PyTorch's current stream.
4. A captured step, replayed, gives the bits of eager steps, changes of a learning rate that is a tensor included.
5. An overflow that a ``GradScaler`` finds, torch's or gpuopt's, changes nothing, and training goes on as on the host.
6. One optimizer steps parameters on several devices.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import Any

import pytest
import torch
from kit.device import kernels_and_copies

import gpuopt

CLASSES: dict[str, dict[str, Any]] = {
    "Adam": {"amsgrad": True},
    "AdamW": {},
    "RMSprop": {"centered": True, "momentum": 0.9},
    "SGD": {"momentum": 0.9, "dampening": 0.5},
    "Adagrad": {"lr_decay": 0.1},
}
SHAPES = [(33, 65), (), (0, 3), (1024,), (5,)]
EVERYTHING = {"max_grad_norm": 0.5, "ema_decay": 0.9}

each_class = pytest.mark.parametrize("name", CLASSES)


@pytest.fixture
def no_synchronisation() -> Iterator[None]:
    yield
    torch.cuda.set_sync_debug_mode("default")


def parameters(device: str, dtype: torch.dtype = torch.float32) -> list[torch.nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    return [torch.nn.Parameter(torch.randn(shape, generator=generator).to(device, dtype)) for shape in SHAPES]


def set_grads(params: list[torch.nn.Parameter], seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for param in params:
        param.grad = torch.randn(param.shape, generator=generator).to(param.device, param.dtype)


def refill_grads(params: list[torch.nn.Parameter], seed: int) -> None:
    """As :func:`set_grads`, in place."""
    generator = torch.Generator().manual_seed(seed)
    for param in params:
        param.grad.copy_(torch.randn(param.shape, generator=generator).to(param.dtype))


def assert_same(one: list[torch.nn.Parameter], a: Any, other: list[torch.nn.Parameter], b: Any) -> None:
    for p, q in zip(one, other, strict=True):
        assert torch.equal(p.cpu(), q.cpu())
        assert set(a.state[p]) == set(b.state[q])
        for key, value in a.state[p].items():
            assert torch.equal(value.cpu(), b.state[q][key].cpu()), key


KEPT: dict[str, tuple[torch.dtype, dict[str, Any]]] = {
    "float32": (torch.float32, {"ema_decay": 0.9, "master_weights": True}),
    "32 bits": (torch.bfloat16, {"ema_decay": 0.9, "master_weights": True}),
    "24 bits": (torch.bfloat16, {"master_weights": "24bit", "state_dtype": torch.bfloat16, "seed": 2}),
    "stochastic": (torch.bfloat16, {"stochastic_rounding": True, "seed": 3}),
    "8 bits": (torch.bfloat16, {"state_dtype": "8bit", "master_weights": "24bit", "seed": 4}),
}


@pytest.mark.parametrize(("name", "kept"), [each for each in product(CLASSES, KEPT) if each != ("Adagrad", "8 bits")])
@pytest.mark.parametrize("scheduled", [False, True])
def test_bits_are_those_of_the_host(name: str, kept: str, scheduled: bool, backend: str) -> None:
    dtype, extras = KEPT[kept]
    host, device = parameters("cpu", dtype), parameters("cuda", dtype)
    a = getattr(gpuopt, name)(host, **CLASSES[name], **extras)
    b = getattr(gpuopt, name)(device, **CLASSES[name], **extras, capturable=scheduled, backend=backend)
    for seed in range(4):
        set_grads(host, seed)
        set_grads(device, seed)
        a.step()
        b.step()
    for p, q in zip(host, device, strict=True):
        if name == "SGD" and "step" not in a.state[p]:
            b.state[q].pop("step", None)
    assert_same(host, a, device, b)


@pytest.mark.parametrize(
    ("extras", "kernels"),
    [({}, 1), ({"capturable": True}, 2), ({"max_grad_norm": 1.0}, 3), ({"max_grad_norm": 1.0, "capturable": True}, 4)],
)
def test_launches(extras: dict[str, Any], kernels: int, backend: str) -> None:
    params = parameters("cuda")
    groups = [{"params": params[:2], "lr": 0.1}, {"params": params[2:], "lr": 0.2}]
    optimizer = gpuopt.AdamW(groups, backend=backend, **extras)
    for seed in range(3):
        set_grads(params, seed)
        optimizer.step()
    set_grads(params, 9)
    kernels_and_copies(lambda: torch.cuda._sleep(1000))  # the first profile of a process may miss what runs
    if not kernels_and_copies(lambda: torch.cuda._sleep(1000))[0]:
        pytest.skip("PyTorch's profiler sees no kernel here")
    on_device, copies = kernels_and_copies(optimizer.step)
    launched = [name for name in on_device if "fill" not in name.lower()]
    assert len(launched) == kernels, on_device
    assert sum("Memcpy" in name for name in copies) <= 1, copies


@each_class
@pytest.mark.filterwarnings("ignore:Synchronization debug mode")  # of which PyTorch says that it is a prototype
def test_the_host_never_waits(name: str, backend: str, no_synchronisation: None) -> None:
    params = parameters("cuda")
    optimizer = getattr(gpuopt, name)(params, **CLASSES[name], **EVERYTHING, backend=backend)
    refill = [torch.randn_like(param) for param in params]
    for step in range(4):
        for param, grad in zip(params, refill, strict=True):
            param.grad = grad.clone()
        if step == 2:
            torch.cuda.set_sync_debug_mode("error")
        optimizer.step()


@each_class
def test_no_temporary_of_the_size_of_a_parameter(name: str, backend: str) -> None:
    params = [torch.nn.Parameter(torch.ones(4_000_000, device="cuda")) for _ in range(3)]
    set_grads(params, 0)
    optimizer = getattr(gpuopt, name)(params, **CLASSES[name], **EVERYTHING, zero_grads=True, backend=backend)
    for _ in range(3):
        optimizer.step()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    for _ in range(5):
        optimizer.step()
    assert torch.cuda.max_memory_allocated() - before < 1_000_000
    assert abs(torch.cuda.memory_allocated() - before) < 10_000


def test_runs_on_the_current_stream(backend: str) -> None:
    params, expected = parameters("cuda"), parameters("cuda")
    a, b = (gpuopt.Adam(each, backend=backend) for each in (params, expected))
    set_grads(params, 0)
    set_grads(expected, 0)
    a.step()
    b.step()
    torch.cuda.synchronize()
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        torch.cuda._sleep(500_000_000)
        for param in params:
            param.grad.mul_(2)
        a.step()
    assert not stream.query()
    torch.cuda.synchronize()
    for param in expected:
        param.grad.mul_(2)
    b.step()
    assert_same(params, a, expected, b)


@each_class
@pytest.mark.parametrize("extras", [{}, EVERYTHING], ids=["plain", "everything"])
def test_graph_replays_eager_steps(name: str, extras: dict[str, Any], backend: str) -> None:
    runs = []
    for captured in (False, True):
        params, lr = parameters("cuda"), torch.tensor(0.1, device="cuda")
        optimizer = getattr(gpuopt, name)(params, lr, **CLASSES[name], **extras, capturable=True, backend=backend)
        set_grads(params, 0)
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for seed in range(3):
                refill_grads(params, seed)
                optimizer.step()
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        if captured:
            with torch.cuda.graph(graph):
                optimizer.step()
        for seed in range(3, 8):
            refill_grads(params, seed)
            lr.fill_(0.1 / seed)
            if captured:
                graph.replay()
            else:
                optimizer.step()
        torch.cuda.synchronize()
        runs.append((params, optimizer))
    assert_same(*runs[0], *runs[1])


@pytest.mark.filterwarnings("ignore:The CUDA Graph is empty")  # which is said when a capture is left by an error
def test_capture_is_refused_without_capturable_or_a_step_before(backend: str) -> None:
    params = parameters("cuda")
    set_grads(params, 0)
    optimizer = gpuopt.Adam(params, backend=backend)
    optimizer.step()
    with pytest.raises(RuntimeError, match="capturable is False"), torch.cuda.graph(torch.cuda.CUDAGraph()):
        optimizer.step()
    optimizer = gpuopt.Adam(params, backend=backend, capturable=True)
    with pytest.raises(RuntimeError, match="only after one outside"), torch.cuda.graph(torch.cuda.CUDAGraph()):
        optimizer.step()


@each_class
@pytest.mark.parametrize("unscaled", [False, True])
@pytest.mark.parametrize(
    ("scaler_type", "fused"),
    [(torch.amp.GradScaler, True), (torch.amp.GradScaler, None), (gpuopt.GradScaler, None)],
    ids=["torch, fused", "torch", "gpuopt"],
)
def test_overflow_changes_nothing(
    name: str, scaler_type: type, fused: bool | None, unscaled: bool, backend: str
) -> None:
    host, device = parameters("cpu"), parameters("cuda")
    runs = []
    for params, kind in ((host, "cpu"), (device, "cuda")):
        extras = {} if kind == "cpu" else {"backend": backend}
        optimizer = getattr(gpuopt, name)(params, **CLASSES[name], ema_decay=0.9, fused=fused, **extras)
        scaler = scaler_type(kind, init_scale=8.0)
        scaler.scale(torch.ones((), device=kind))
        for seed in range(6):
            set_grads(params, seed)
            if seed in (0, 2, 3):
                params[3].grad[7] = float("inf")
            before = [param.detach().clone() for param in params]
            if unscaled:
                scaler.unscale_(optimizer)
            scaler.step(optimizer)
            scaler.update()
            if seed in (0, 2, 3):
                assert all(map(torch.equal, before, params))
        for state in optimizer.state.values():
            if name == "SGD":
                state.pop("step", None)
        runs.append((params, optimizer))
    assert_same(*runs[0], *runs[1])


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
def test_several_devices(backend: str) -> None:
    host, spread = parameters("cpu"), parameters("cuda:0")[:2] + parameters("cuda:1")[2:]
    a = gpuopt.AdamW(host, **EVERYTHING)
    b = gpuopt.AdamW(spread, **EVERYTHING, backend=backend)
    for seed in range(3):
        set_grads(host, seed)
        set_grads(spread, seed)
        a.step()
        b.step()
    for p, q in zip(host, spread, strict=True):
        torch.testing.assert_close(q.cpu(), p)
    torch.testing.assert_close(b.last_grad_norm.cpu(), a.last_grad_norm)
