"""One step of Adam and RMSProp on the GPU: gpuopt's drivers, torch.optim, and a copy to say what is possible."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from inspect import signature
from math import prod
from typing import Any

from gpuopt import arrays, backends
from gpuopt.bench.contenders import JOBS, TOLERANCE, TORCH_WAYS, Job
from gpuopt.bench.models import LLAMA_3_2_1B, Shape
from gpuopt.bench.results import spread
from gpuopt.kernels.drivers import DRIVERS

ROUNDS = 50
COPY = "copy"


@dataclass(frozen=True)
class Config:
    """One optimizer on one list of float32 shapes.

    Attributes:
        title: What tables call it.
        optimizer: Key of :data:`gpuopt.bench.contenders.JOBS`.
        shapes: Of the parameters.
    """

    title: str
    optimizer: str
    shapes: tuple[Shape, ...]

    @property
    def numel(self) -> int:
        """Elements of all parameters."""
        return sum(prod(shape) for shape in self.shapes)

    @property
    def step_bytes(self) -> int:
        """Bytes that the algorithm moves in a step: it reads every slot, and writes all but the gradient."""
        slots = 2 + len(getattr(arrays, self.optimizer).rule.required)
        return (2 * slots - 1) * 4 * self.numel

    @property
    def copy_bytes(self) -> int:
        """Bytes that a copy of as many elements moves: it reads and writes each."""
        return 2 * 4 * self.numel


CONFIGS = tuple(
    Config(f"{optimizer}, {label}", optimizer, tuple(shapes))
    for label, shapes in (("2^27 elements", [(1 << 27,)]), ("Llama 3.2 1B", LLAMA_3_2_1B))
    for optimizer in ("Adam", "RMSProp")
)


def run(config: Config, rounds: int = ROUNDS) -> dict[str, Any]:
    """Times all contenders of ``config``; needs a GPU."""
    import torch

    from gpuopt.bench import gpu_clock

    torch.manual_seed(0)
    params = [torch.randn(shape, device="cuda") for shape in config.shapes]
    grads = [torch.randn(shape, device="cuda") for shape in config.shapes]
    begun = [param.clone() for param in params]
    job = JOBS[config.optimizer]
    steps, problems = [], {}
    expected: list[Any] | None = None
    for name, make, exact in _makers(job):
        step = gpu_clock.Step(name, make(params, grads))
        step.run()
        if expected is None:
            expected = [param.clone() for param in params]
        problem = (
            None if _right(params, expected, exact) else "wrong: the first step differs from the first contender's"
        )
        for param, value in zip(params, begun, strict=True):
            param.copy_(value)
        if problem is None:
            steps.append(step)
        else:
            problems[name] = problem
    del begun, expected
    steps.append(gpu_clock.Step(COPY, _copy(config.numel)))
    samples = gpu_clock.measure(steps, rounds)
    seen = {step.name: gpu_clock.launches(step) for step in steps}
    gpu = {name: [sample.gpu for sample in taken] for name, taken in samples.items()}
    host = {name: [sample.host for sample in taken] for name, taken in samples.items()}
    return summary(config, gpu, host, seen, problems)


def summary(
    config: Config,
    gpu: dict[str, list[float]],
    host: dict[str, list[float]],
    launches: dict[str, dict[str, int | str]],
    problems: dict[str, str],
) -> dict[str, Any]:
    """What JSON holds of one configuration, from the seconds of every contender, the copy among them.

    Bandwidth is the bytes that the algorithm must move over the median time, whatever a contender moves in truth.
    """
    copy = spread(tuple(gpu[COPY]))
    bandwidth = config.copy_bytes / copy["median"]
    contenders = []
    for name, seconds in gpu.items():
        times = spread(tuple(seconds))
        rate = (config.copy_bytes if name == COPY else config.step_bytes) / times["median"]
        contenders.append(
            {
                "name": name,
                **times,
                "host_median": spread(tuple(host[name]))["median"],
                "gb_per_s": rate / 1e9,
                "share_of_copy": rate / bandwidth,
                "launches": launches.get(name),
            }
        )
    return {
        "title": config.title,
        "optimizer": config.optimizer,
        "tensors": len(config.shapes),
        "numel": config.numel,
        "step_bytes": config.step_bytes,
        "copy_bytes": config.copy_bytes,
        "contenders": contenders,
        "problems": problems,
    }


Maker = Callable[[list[Any], list[Any]], Callable[[], object]]


def _makers(job: Job) -> Iterator[tuple[str, Maker, bool]]:
    """Name, maker and whether the bits must be the first contender's, of every contender that can run."""
    for driver, why in backends.available().items():
        if DRIVERS[driver].device == "cuda" and why is None:
            yield f"gpuopt {driver}", partial(_gpuopt, job, driver), True
    import torch

    kind: Any = getattr(torch.optim, job.torch_name)
    for way in ("foreach", "fused"):
        if set(TORCH_WAYS[way]) <= set(signature(kind).parameters):
            yield f"torch {way}", partial(_torch, kind, {**job.torch_settings, **TORCH_WAYS[way]}), False


def _gpuopt(job: Job, driver: str, params: list[Any], grads: list[Any]) -> Callable[[], object]:
    import cupy

    named = {str(index): cupy.asarray(param) for index, param in enumerate(params)}
    slopes = {str(index): cupy.asarray(grad) for index, grad in enumerate(grads)}
    optimizer = getattr(arrays, job.name)(**job.settings, backend=driver)
    return partial(optimizer.update, named, slopes)


def _torch(kind: Any, settings: dict[str, Any], params: list[Any], grads: list[Any]) -> Callable[[], object]:
    import torch

    own = [torch.nn.Parameter(param) for param in params]
    for param, grad in zip(own, grads, strict=True):
        param.grad = grad
    step: Callable[[], object] = kind(own, **settings).step
    return step


def _copy(numel: int) -> Callable[[], object]:
    import torch

    source = torch.randn(numel, device="cuda")
    return partial(torch.empty_like(source).copy_, source)


def _right(params: Sequence[Any], expected: Sequence[Any], exact: bool) -> bool:
    import torch

    unit = torch.finfo(torch.float32).eps
    for got, wanted in zip(params, expected, strict=True):
        if exact and not torch.equal(got.view(torch.int32), wanted.view(torch.int32)):
            return False
        if not exact and not torch.allclose(got, wanted, rtol=TOLERANCE * unit, atol=TOLERANCE * unit):
            return False
    return True
