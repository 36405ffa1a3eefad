"""The contenders for one workload: gpuopt on each driver, the naive code, and torch.optim in its several ways.

All start from the same parameters and gradients and compute the same update, in the conventions of torch.optim.
Each makes its own memory as its library does, save that contenders on the host share the gradients.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from importlib.util import find_spec
from inspect import signature
from typing import Any, NamedTuple

import numpy as np

from gpuopt import arrays, backends
from gpuopt.bench.naive import NAIVE
from gpuopt.bench.timing import Contender, nothing
from gpuopt.kernels.drivers import DRIVERS

Array = np.ndarray[Any, Any]

WARM_UP = 3
"""Steps that each contender does before its outcome is checked."""

TOLERANCE = 16
"""Units in the last place of a float32 parameter (of magnitude 1 or more) by which code with another order of
operations may differ after ``WARM_UP`` steps: per step a rounding of the parameter and a few of its small change."""

TORCH_WAYS: dict[str, dict[str, bool]] = {
    "for-loop": {"foreach": False},
    "foreach": {"foreach": True},
    "fused": {"fused": True},
}
"""How torch.optim is told which of its ways to go."""


class Job(NamedTuple):
    """One optimizer under all the names that it has.

    Attributes:
        name: Class in :mod:`gpuopt.arrays` and key of :data:`gpuopt.bench.naive.NAIVE`.
        settings: Arguments of that class.
        torch_name: Class in ``torch.optim``.
        torch_settings: Arguments of that class.
        naive_settings: Arguments of the naive code.
    """

    name: str
    settings: dict[str, Any]
    torch_name: str
    torch_settings: dict[str, Any]
    naive_settings: dict[str, Any]


JOBS = {
    job.name: job
    for job in (
        Job(
            "Adam",
            {"lr": 1e-3, "eps": 1e-8, "epsilon_hat": False},
            "Adam",
            {"lr": 1e-3, "eps": 1e-8},
            {"lr": 1e-3, "eps": 1e-8},
        ),
        Job(
            "RMSProp",
            {"lr": 1e-3, "decay_rate": 0.99, "eps": 1e-8},
            "RMSprop",
            {"lr": 1e-3, "alpha": 0.99, "eps": 1e-8},
            {"lr": 1e-3, "decay_rate": 0.99, "eps": 1e-8},
        ),
        Job(
            "AdamW",
            {"lr": 1e-3, "eps": 1e-8, "epsilon_hat": False},
            "AdamW",
            {"lr": 1e-3, "eps": 1e-8},
            {"lr": 1e-3, "eps": 1e-8},
        ),
    )
}


class Start(NamedTuple):
    """What all contenders begin with, on the host, and the oracle's parameters after ``WARM_UP`` steps."""

    params: list[Array]
    grads: list[Array]
    expected: list[Array]


def start(job: Job, sizes: Sequence[int], seed: int = 0) -> Start:
    """Parameters and gradients drawn from normal distributions, stepped by the NumPy driver."""
    rng = np.random.default_rng(seed)
    params = [rng.standard_normal(size, dtype=np.float32) for size in sizes]
    grads = [rng.standard_normal(size, dtype=np.float32) for size in sizes]
    expected = [array.copy() for array in params]
    optimizer = getattr(arrays, job.name)(**job.settings, backend="numpy")
    for _ in range(WARM_UP):
        optimizer.update(_named(expected), _named(grads))
    return Start(params, grads, expected)


def contenders(job: Job, begun: Start, begin: Callable[[str], None]) -> list[Contender]:
    """All that can run here, and for those that cannot one whose check says why.

    Each has been set up and warmed up.

    Args:
        job: The optimizer.
        begun: Where to begin; it is not written.
        begin: Told the name of each contender before it is set up.
    """
    made = []
    on_gpu = False
    for driver, reason in backends.available().items():
        name = f"gpuopt {driver}"
        if DRIVERS[driver].device == "cuda":
            if reason is not None:
                continue
            on_gpu = True
        begin(name)
        made.append(absent(name, reason) if reason is not None else gpuopt(driver, job, begun))
    begin("naive NumPy")
    made.append(naive(np, job, begun))
    made += torch_contenders("cpu", job, begun, begin)
    if on_gpu:
        made += gpu_rivals(job, begun, begin)
    return made


def gpu_rivals(job: Job, begun: Start, begin: Callable[[str], None]) -> Iterator[Contender]:
    """The naive code on CuPy arrays, and torch.optim on CUDA tensors, where their libraries see a GPU."""
    if backends.available()["cupy"] is None:
        import cupy

        begin("naive CuPy")
        yield naive(cupy, job, begun)
    if find_spec("torch") is not None:
        import torch

        if torch.cuda.is_available():
            yield from torch_contenders("cuda", job, begun, begin)


def no_torch(name: str) -> Contender:
    """A contender that needs torch, where there is none."""
    return absent(name, "torch is not installed (pip install 'gpuopt[torch]')")


def absent(name: str, why: str) -> Contender:
    """A contender that cannot run here."""
    return Contender(name, nothing, lambda: why)


def gpuopt(driver: str, job: Job, begun: Start) -> Contender:
    """The array front end's ``update`` on one driver, each time with the same arrays."""
    if DRIVERS[driver].device == "cuda":
        import cupy as library
    else:
        library = np
    params = _named([library.array(array) for array in begun.params])
    grads = _named(begun.grads if library is np else [library.array(array) for array in begun.grads])
    optimizer = getattr(arrays, job.name)(**job.settings, backend=driver)
    return warm(
        f"gpuopt {driver}",
        partial(optimizer.update, params, grads),
        lambda: [_on_host(array) for array in params.values()],
        begun.expected,
        tolerance=0,
        library=library,
    )


def naive(library: Any, job: Job, begun: Start) -> Contender:
    """The code of :mod:`gpuopt.bench.naive` on NumPy or CuPy arrays, one tensor after the other."""
    function, slots = NAIVE[job.name]
    params = [library.array(array) for array in begun.params]
    grads = begun.grads if library is np else [library.array(array) for array in begun.grads]
    states = [{slot: library.zeros_like(array) for slot in slots} for array in params]
    count = 0

    def step() -> None:
        nonlocal count
        count += 1
        for p, g, state in zip(params, grads, states, strict=True):
            function(p, g, state, count, **job.naive_settings)

    name = "naive NumPy" if library is np else "naive CuPy"
    return warm(name, step, lambda: [_on_host(p) for p in params], begun.expected, TOLERANCE, library)


def torch_contenders(device: str, job: Job, begun: Start, begin: Callable[[str], None]) -> Iterator[Contender]:
    """One for each way of torch.optim."""
    where = "" if device == "cpu" else " on CUDA"
    if find_spec("torch") is None:
        yield from (no_torch(f"torch {way}{where}") for way in TORCH_WAYS)
        return
    import torch

    kind: Any = getattr(torch.optim, job.torch_name)
    for way, flags in TORCH_WAYS.items():
        name = f"torch {way}{where}"
        if not set(flags) <= set(signature(kind).parameters):
            yield absent(name, f"torch.optim.{job.torch_name} has none")
            continue
        begin(name)
        params = torch_params(begun, device)
        yield _warm_torch(name, kind(params, **job.torch_settings, **flags), params, begun.expected, device)


def torch_params(begun: Start, device: str = "cpu", own_grads: bool = False) -> list[Any]:
    """Parameters with gradients for PyTorch; on the host the gradients are those of ``begun`` unless ``own_grads``."""
    import torch

    params = []
    for p, g in zip(begun.params, begun.grads, strict=True):
        param = torch.nn.Parameter(torch.from_numpy(p).to(device, copy=True))
        param.grad = torch.from_numpy(g).to(device, copy=own_grads)
        params.append(param)
    return params


def _warm_torch(name: str, optimizer: Any, params: list[Any], expected: list[Array], device: str) -> Contender:
    import torch

    contender = warm(name, optimizer.step, lambda: [p.detach().cpu().numpy() for p in params], expected, TOLERANCE, np)
    if device == "cuda":
        contender.device, contender.wait = device, torch.cuda.synchronize
    return contender


def warm(
    name: str,
    step: Callable[[], object],
    outcome: Callable[[], list[Array]],
    expected: list[Array],
    tolerance: int,
    library: Any = np,
) -> Contender:
    """A contender that has done ``WARM_UP`` steps, with the verdict on them."""
    for _ in range(WARM_UP):
        step()
    verdict = fault(outcome(), expected, tolerance)

    def once() -> None:
        step()

    contender = Contender(name, once, lambda: verdict)
    if library is not np:
        contender.device, contender.wait = "cuda", library.cuda.get_current_stream().synchronize
    return contender


def fault(actual: Sequence[Array], expected: Sequence[Array], tolerance: int) -> str | None:
    """What is wrong with an outcome; None when nothing is.

    Args:
        actual: Parameters of a contender.
        expected: Those of the oracle.
        tolerance: Units in the last place that they may differ by; 0 when they must be the same bits.
    """
    for index, (got, wanted) in enumerate(zip(actual, expected, strict=True)):
        if tolerance == 0:
            if not np.array_equal(got.view(np.uint32), wanted.view(np.uint32)):
                return f"wrong: tensor {index} has not the bits of the NumPy driver"
            continue
        allowed = tolerance * np.finfo(np.float32).eps * np.maximum(np.abs(wanted), np.float32(1))
        worst = np.max(np.abs(got - wanted) - allowed, initial=-1)
        if not worst <= 0:
            return f"wrong: tensor {index} is too far from the NumPy driver's"
    return None


def _named(tensors: Sequence[Any]) -> dict[str, Any]:
    return {f"tensor {index}": array for index, array in enumerate(tensors)}


def _on_host(array: Any) -> Array:
    if isinstance(array, np.ndarray):
        return array
    on_host: Array = array.get()
    return on_host
