"""``python -m gpuopt.bench.gpu.smoke FOLDER``: whether anything runs on this GPU, in seconds.

A few steps of Adam and of RMSProp by each driver for GPUs and through each front end, against the oracle, bit for bit;
then what no reading settles. Each probe is printed and written to ``smoke.json`` when it is done.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import typer

from gpuopt import backends
from gpuopt.bench.sweeps.subjects import ADAM, RMSPROP
from gpuopt.bench.timing import first_line
from gpuopt.kernels.drivers import DRIVERS
from gpuopt.kernels.variant import Variant
from gpuopt.output import write_json
from gpuopt.verify.cases import Case
from gpuopt.verify.proof import prove
from gpuopt.verify.variants import hyper_rows

JSON = "smoke.json"
FAILED = 1
"""Exit code: a probe failed."""

NUMELS = (0, 1, 129, 1024, 4096, 10_005)

STEPS = 3

Check = Callable[[], None]


class Probe(NamedTuple):
    """Something to try: ``check`` raises if it does not hold."""

    name: str
    check: Check


def smoke(folder: Annotated[Path, typer.Argument(help="Where smoke.json is written.")]) -> None:
    """Tries whether anything runs on the GPU that is here."""
    raise typer.Exit(FAILED if run(list(probes("cuda")), folder, _fault) else 0)


def run(chosen: list[Probe], folder: Path, fault: Callable[[], str | None]) -> int:
    """Tries each probe, prints and writes what comes of it; returns how many failed.

    Args:
        chosen: The probes.
        folder: Where to write.
        fault: Why nothing can run any more, which ends it; None where something can.
    """
    folder.mkdir(parents=True, exist_ok=True)
    found: list[dict[str, Any]] = []
    over: str | None = None
    for probe in chosen:
        begun = time.perf_counter()
        why = over
        if over is None:
            try:
                probe.check()
            except Exception as error:  # noqa: BLE001 (whatever it is, the others are to be tried)
                why = first_line(error)
                over = fault()
        seconds = time.perf_counter() - begun
        found.append({"name": probe.name, "seconds": seconds, "why": why})
        write_json({"probes": found}, folder / JSON)
        print(f"{'FAILED' if why else 'ok':<7} {seconds:6.2f} s  {probe.name}{f': {why}' if why else ''}", flush=True)
    return sum(each["why"] is not None for each in found)


def probes(device: str) -> Iterator[Probe]:
    """Everything to try.

    Args:
        device: ``"cuda"``; or ``"cpu"`` for what can be tried with Triton interpreted, without a GPU.
    """
    reasons = backends.available()
    usable = []
    for name, entry in DRIVERS.items():
        if entry.device != "cuda":
            continue
        why = reasons[name]
        if why is not None:
            yield Probe(name, partial(_refuse, why))
        elif device == "cuda" or entry.is_interpreted():
            usable.append(name)
            yield Probe(f"{name}: Adam, the driver by itself", partial(_driver, name, ADAM))
    if device == "cuda":
        yield Probe("CuPy on the default stream, known by its handle 0", _cupy_on_handle_0)
        yield Probe("a kernel of CuPy's in a capture of PyTorch's", _cupy_in_a_capture)
        for name in usable:
            yield Probe(f"{name}: a step captured in a CUDA graph, and replayed", partial(_replayed, name))
    for name in usable:
        yield from _of_driver(name, device)


def _of_driver(name: str, device: str) -> Iterator[Probe]:
    yield Probe(f"{name}: RMSProp, the driver by itself", partial(_driver, name, RMSPROP))
    for kind in ("Adam", "RMSprop"):
        yield Probe(f"{name}: gpuopt.{kind} for PyTorch", partial(_torch, kind, name, device))
    yield Probe(f"{name}: scalars that the device computes", partial(_torch, "Adam", name, device, capturable=True))
    yield Probe(f"{name}: an overflow that GradScaler finds", partial(_overflow, name, device))
    yield Probe(f"{name}: a clipped norm", partial(_clipped, name, device))
    if device == "cuda":
        for kind in ("Adam", "RMSProp"):
            yield Probe(f"{name}: gpuopt.arrays.{kind} with CuPy", partial(_arrays, kind, name))


def _refuse(why: str) -> None:
    raise RuntimeError(why)


def _driver(name: str, variant: Variant) -> None:
    """Several tensors, aligned and not, in a table each and all in one."""
    hypers = [hyper_rows(variant, step) for step in range(STEPS)]
    cases = [Case("all in one", NUMELS, hypers), Case("misaligned", NUMELS, hypers[:1], misaligned=True)]
    cases.append(Case("one by one", NUMELS, hypers[:1], one_by_one=True))
    fault = prove(name, variant, cases, seed=0).fault
    if fault is not None:
        raise AssertionError(f"{fault.case}: {fault.problem or fault.difference}")


def _params(device: str) -> list[Any]:
    import torch

    generator = torch.Generator().manual_seed(0)
    shapes = [(33, 65), (), (1024,), (0, 3)]
    return [torch.nn.Parameter(torch.randn(shape, generator=generator).to(device)) for shape in shapes]


def _set_grads(params: list[Any], seed: int) -> None:
    import torch

    generator = torch.Generator().manual_seed(seed)
    for param in params:
        grad = torch.randn(param.shape, generator=generator).to(param.device)
        if param.grad is None:
            param.grad = grad
        else:
            param.grad.copy_(grad)  # in place, as a graph wants it


def _pair(kind: str, backend: str, device: str, **settings: Any) -> list[tuple[list[Any], Any]]:
    """Parameters and optimizer on the host by NumPy, then on the device."""
    from gpuopt import optim

    made = []
    for where, by in (("cpu", "numpy"), (device, backend)):
        params = _params(where)
        given = settings if by == backend else {name: value for name, value in settings.items() if name != "capturable"}
        made.append((params, getattr(optim, kind)(params, backend=by, **given)))
    return made


def _same(host: list[Any], device: list[Any]) -> None:
    import torch

    for index, (a, b) in enumerate(zip(host, device, strict=True)):
        if not torch.equal(a, b.cpu()):
            raise AssertionError(f"parameter {index} has not the oracle's bits")


def _torch(kind: str, backend: str, device: str, **settings: Any) -> None:
    (host, a), (there, b) = _pair(kind, backend, device, **settings)
    for seed in range(STEPS):
        for params, optimizer in ((host, a), (there, b)):
            _set_grads(params, seed)
            optimizer.step()
    _same(host, there)


def _overflow(backend: str, device: str) -> None:
    """The first step overflows."""
    import torch

    (host, a), (there, b) = _pair("AdamW", backend, device, fused=True)
    scaler = torch.amp.GradScaler(device, init_scale=2.0)
    scaler.scale(torch.ones((), device=device))
    for seed in range(STEPS):
        _set_grads(there, seed)
        if seed == 0:
            there[2].grad[7] = float("inf")
        scaler.step(b)
        scaler.update(2.0)
        if seed:
            _set_grads(host, seed)
            for param in host:
                param.grad /= 2
            a.step()
    _same(host, there)


def _clipped(backend: str, device: str) -> None:
    """The norm's sum has another order on a device, so its factor is close."""
    import torch

    (host, a), (there, b) = _pair("Adam", backend, device, max_grad_norm=0.5)
    for params, optimizer in ((host, a), (there, b)):
        _set_grads(params, 1)
        optimizer.step()
    torch.testing.assert_close(b.last_grad_norm.cpu(), a.last_grad_norm)
    torch.testing.assert_close([each.detach().cpu() for each in there], [each.detach() for each in host])


def _arrays(kind: str, backend: str) -> None:
    import cupy
    import numpy as np

    from gpuopt import arrays

    rng = np.random.default_rng(0)
    host = {name: rng.standard_normal(size).astype(np.float32) for name, size in (("a", (33, 65)), ("b", 1024))}
    there = {name: cupy.asarray(array) for name, array in host.items()}
    a, b = (getattr(arrays, kind)(backend=by) for by in ("numpy", backend))
    for _ in range(STEPS):
        grads = {name: rng.standard_normal(array.shape).astype(np.float32) for name, array in host.items()}
        a.update(host, grads)
        b.update(there, {name: cupy.asarray(grad) for name, grad in grads.items()})
    for name, array in host.items():
        if not np.array_equal(array, there[name].get()):
            raise AssertionError(f"{name} has not the oracle's bits")


def _replayed(backend: str) -> None:
    import torch

    (host, a), (there, b) = _pair("Adam", backend, "cuda", capturable=True)
    stream: Any = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        _set_grads(there, 0)
        b.step()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        b.step()
    for seed in range(1, STEPS):
        _set_grads(there, seed)
        graph.replay()
    torch.cuda.synchronize()
    for seed in range(STEPS):
        _set_grads(host, seed)
        a.step()
    _same(host, there)


def _cupy_on_handle_0() -> None:
    import cupy

    from gpuopt.kernels.drivers import cupy as driver

    with driver.on_stream(0, 0):
        array = cupy.arange(5) * 2
    if array.get().tolist() != [0, 2, 4, 6, 8]:
        raise AssertionError(f"CuPy made {array} of twice the numbers below 5")


def _cupy_in_a_capture() -> None:
    import cupy
    import torch

    from gpuopt.kernels.drivers import cupy as driver

    add = cupy.ElementwiseKernel("", "raw float32 x", "x[i] += 1", "gpuopt_smoke")
    tensor = torch.zeros(5, device="cuda")
    array = cupy.asarray(tensor)
    add(array, size=5)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph), driver.on_stream(0, torch.cuda.current_stream().cuda_stream):
        add(array, size=5)
    for _ in range(2):
        graph.replay()
    torch.cuda.synchronize()
    if tensor.tolist() != [3.0] * 5:
        raise AssertionError(f"one launch and two replays that add 1 each made {tensor.tolist()}")


def _fault() -> str | None:
    """Why the GPU can do nothing any more for this process, as after an access to memory that is not there."""
    if find_spec("torch") is None:
        return None
    import torch

    try:
        torch.cuda.synchronize()
    except RuntimeError as error:
        return f"not tried, since the GPU fails: {first_line(error)}"
    return None


if __name__ == "__main__":
    typer.run(smoke)
