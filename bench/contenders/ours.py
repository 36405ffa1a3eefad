"""gpuopt on each of its drivers."""

from __future__ import annotations

from functools import partial
from importlib.util import find_spec
from typing import Any

from gpuopt import arrays, backends
from gpuopt.bench.contenders.contender import Contender, Entrant, nothing
from gpuopt.bench.contenders.torch import no_torch, outcome_of, preparation, scaler, torch_params
from gpuopt.bench.problem import EMA_DECAY, Problem, storage
from gpuopt.bench.workloads import AVERAGED, CLIP, ZERO, Workload
from gpuopt.kernels.drivers import DRIVERS


def our_contenders() -> list[Contender]:
    """One contender per driver."""
    return [
        Contender(
            f"gpuopt {name}",
            entry.device,
            partial(_set_up, name),
            absent=partial(_absent, name),
            refuses=_refuses,
            bits=True,
        )
        for name, entry in DRIVERS.items()
    ]


def _absent(driver: str) -> str | None:
    return backends.available()[driver]


def _refuses(workload: Workload) -> str | None:
    return no_torch() if workload.front == "torch" and find_spec("torch") is None else None


def _set_up(driver: str, problem: Problem) -> Entrant:
    loaded = DRIVERS[driver].load()
    if problem.workload.front == "arrays":
        return _arrays(driver, loaded, problem)
    return _torch(driver, loaded, problem)


def _arrays(driver: str, loaded: Any, problem: Problem) -> Entrant:
    workload = problem.workload
    params = _named(problem.params())
    grads = _named(problem.grads)
    kind = getattr(arrays, workload.optimizer.arrays_name or "")
    optimizer = kind(lr=workload.lr, **workload.optimizer.arrays_settings, backend=driver)
    return Entrant(partial(optimizer.update, params, grads), lambda: {"param": list(params.values())}, nothing, loaded)


def _torch(driver: str, loaded: Any, problem: Problem) -> Entrant:
    from gpuopt import optim

    workload = problem.workload
    params = torch_params(problem)
    optimizer = getattr(optim, workload.optimizer.name)(
        params,
        lr=workload.lr,
        **workload.optimizer.settings,
        backend=driver,
        **storage(workload.formats),
        max_grad_norm=problem.max_norm if CLIP in workload.tail else None,
        ema_decay=EMA_DECAY if AVERAGED in workload.tail else None,
        zero_grads=ZERO in workload.tail,
    )
    scaling = scaler(optim.GradScaler, problem) if workload.tail else None

    def step() -> None:
        if scaling is None:
            optimizer.step()
        else:
            scaling.step(optimizer)
            scaling.update()

    def state(name: str) -> list[Any]:
        return [optimizer.state[param][name] for param in params]

    return Entrant(step, partial(outcome_of, workload, params, state), preparation(problem, params), loaded)


def _named(tensors: list[Any]) -> dict[str, Any]:
    return {f"tensor {index}": array for index, array in enumerate(tensors)}
