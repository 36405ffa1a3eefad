"""PyTorch's own optimizers, in each of the ways in which they can be told to step."""

from __future__ import annotations

import atexit
import logging
from collections.abc import Callable, Sequence
from functools import cache, partial
from importlib.util import find_spec
from inspect import signature
from itertools import cycle
from typing import Any

from gpuopt.bench.contenders.contender import Contender, Entrant, nothing
from gpuopt.bench.problem import EMA_DECAY, REMAINDER, Outcome, Problem
from gpuopt.bench.workloads import AVERAGED, CLIP, ZERO, Workload
from gpuopt.eight_bit import BITS
from gpuopt.kernels.formats import BY_DTYPE, FORMATS

WAYS: dict[str, dict[str, bool]] = {
    "fused": {"fused": True},
    "foreach": {"foreach": True},
    "for-loop": {"foreach": False},
}
"""How ``torch.optim`` is told which of its ways to go."""

TEMPORARIES = {"fused": 0.0, "foreach": 1.5, "for-loop": 2.0, "compiled": 1.0}
"""Parameter-sized arrays that a step makes; foreach was seen to make one, for Adam and RMSprop."""

MOST_COMPILED = {"cpu": 1, "cuda": 1000}
"""Most tensors of a step that ``torch.compile`` is given. It takes about a minute for 200 on two cores."""


MOST_LOOPED = {"cpu": 1 << 20, "cuda": 1000}
"""Most tensors that the for-loop is given: on a GPU it makes a dozen launches for each, which a step waits for."""


def no_torch() -> str:
    """Why nothing of PyTorch can run where it is not installed."""
    return "torch is not installed (pip install 'gpuopt[torch]')"


def torch_contenders(device: str) -> list[Contender]:
    """One for each way, and the step that ``torch.compile`` makes."""
    made = [
        Contender(
            f"torch {way}",
            device,
            partial(_set_up, flags),
            absent=partial(_absent, device),
            refuses=partial(_refuses, flags, device),
            temporaries=TEMPORARIES[way],
        )
        for way, flags in WAYS.items()
    ]
    compiled = Contender(
        "torch compiled",
        device,
        _compiled,
        absent=partial(_absent, device),
        refuses=partial(_refuses_to_compile, device),
        slow=True,
        temporaries=TEMPORARIES["compiled"],
    )
    return [*made, compiled]


def torch_params(problem: Problem) -> list[Any]:
    """Parameters for PyTorch, with the gradients that are shared, or their own where the step writes them."""
    import torch

    params = [torch.nn.Parameter(torch.as_tensor(array, device=problem.device)) for array in problem.params()]
    grads = problem.own_grads() if problem.workload.tail else problem.grads
    for param, grad in zip(params, grads, strict=True):
        param.grad = torch.as_tensor(grad, device=problem.device)
    return [_sharded(param) for param in params] if problem.workload.sharded else params


def _sharded(param: Any) -> Any:
    """A parameter and its gradient as DTensors, with all of their elements in this process."""
    import torch
    from torch.distributed.tensor import DTensor, Shard

    mesh, placements = _mesh(param.device.type), [Shard(0)]
    sharded = torch.nn.Parameter(DTensor.from_local(param.detach(), mesh, placements, run_check=False))
    sharded.grad = DTensor.from_local(param.grad, mesh, placements, run_check=False)
    return sharded


@cache
def _mesh(device: str) -> Any:
    """This process alone, in a group that it then is in until :func:`leave_group`, or its end."""
    from torch import distributed
    from torch.distributed.device_mesh import init_device_mesh

    backend = "gloo" if device == "cpu" else "nccl"
    distributed.init_process_group(backend, store=distributed.HashStore(), rank=0, world_size=1)  # type: ignore[attr-defined]
    atexit.register(leave_group)
    return init_device_mesh(device, (1,))


def leave_group() -> None:
    """Undoes what workloads of shards have done."""
    from torch import distributed

    atexit.unregister(leave_group)
    if _mesh.cache_info().currsize:
        _mesh.cache_clear()
        distributed.destroy_process_group()


def preparation(problem: Problem, params: Sequence[Any]) -> Callable[[], object]:
    """What gives ``params`` the gradients that the next step is to find, where they are not those of the last.

    New ones are copies of those that :func:`torch_params` gave.

    Args:
        problem: What they are of.
        params: Those of :func:`torch_params`, before any step.
    """
    workload = problem.workload
    grads = [param.grad for param in params]
    if ZERO in workload.tail:
        return partial(problem.refill, grads)
    if not workload.new_grads and workload.parts == 1:
        return nothing
    bounds = [len(params) * part // workload.parts for part in range(workload.parts + 1)]
    turns = cycle(map(slice, bounds, bounds[1:]))

    def prepare() -> None:
        for param in params:
            param.grad = None
        part = next(turns)
        for param, grad in zip(params[part], grads[part], strict=True):
            param.grad = grad.clone() if workload.new_grads else grad

    return prepare


def outcome_of(
    workload: Workload, params: Sequence[Any], state: Callable[[str], Sequence[Any]] = lambda name: ()
) -> Outcome:
    """What is compared with the oracle's, as arrays of the workload's library.

    Args:
        workload: What was stepped.
        params: Its parameters.
        state: Gives what there is of a name beside each of them.
    """
    found = {"param": [param.detach() for param in params]}
    if AVERAGED in workload.tail:
        found["ema"] = list(state("ema"))
    if len(FORMATS[workload.formats.param].planes) > 1:
        found[REMAINDER] = list(state(REMAINDER))
    if ZERO in workload.tail:
        found["grad"] = [param.grad for param in params]
    if workload.sharded:
        found = {what: [tensor.to_local() for tensor in tensors] for what, tensors in found.items()}
    if workload.front == "arrays":
        return {what: [_as_array(tensor) for tensor in tensors] for what, tensors in found.items()}
    return found


def scaler(kind: type[Any], problem: Problem) -> Any:
    """A gradient scaler whose scale is 1 and stays so, for gradients unscaled in place stay what they are."""
    import torch

    made = kind(problem.device, init_scale=1.0, growth_interval=1 << 30)
    made.scale(torch.ones((), device=problem.device))
    return made


def _absent(device: str) -> str | None:
    if find_spec("torch") is None:
        return no_torch()
    import torch

    return "PyTorch sees no CUDA device" if device == "cuda" and not torch.cuda.is_available() else None


@cache
def steps_fused(name: str, device: str) -> bool:
    """Whether a class of ``torch.optim`` has a fused step on a device, as that of one element tells."""
    import torch

    param = torch.nn.Parameter(torch.ones(1, device=device))
    param.grad = torch.ones_like(param)
    try:
        getattr(torch.optim, name)([param], lr=0.1, fused=True).step()
    except TypeError:
        return False
    except RuntimeError as error:
        if "fused=True" not in str(error):  # else it names the devices that it has it for
            raise
        return False
    return True


def _refuses(flags: dict[str, bool], device: str, workload: Workload) -> str | None:
    import torch

    name = workload.optimizer.name
    if not set(flags) <= set(signature(getattr(torch.optim, name)).parameters):
        return f"torch.optim.{name} has none"
    if flags.get("fused") and not steps_fused(name, device):
        return f"torch.optim.{name} has none on {device}"
    if workload.formats.state == BITS:
        return "torch.optim keeps no state in 8 bits"
    if not {FORMATS[name] for name in workload.formats} <= set(BY_DTYPE.values()):
        return "torch.optim keeps no remainder and rounds to nearest"
    if workload.formats.state != workload.formats.param:
        return "torch.optim keeps state in its parameter's dtype"
    tensors, most = len(workload.shapes.shapes), MOST_LOOPED[device]
    if flags == WAYS["for-loop"] and tensors > most:
        return f"it takes {most:,} tensors at most here, but there are {tensors:,}"
    return None


def _refuses_to_compile(device: str, workload: Workload) -> str | None:
    if workload.tail:
        return "the tail is not compiled"
    if workload.sharded:
        return "it makes no step of DTensors"
    if workload.parts > 1:
        return "it compiles the step anew for each set of tensors that have gradients"
    tensors, most = len(workload.shapes.shapes), MOST_COMPILED[device]
    if tensors > most:
        return f"compiling a step of {tensors:,} tensors takes too long here, the most is {most:,}"
    return _refuses({}, device, workload)


def _set_up(flags: dict[str, bool], problem: Problem) -> Entrant:
    import torch

    workload = problem.workload
    params = torch_params(problem)
    optimizer = getattr(torch.optim, workload.optimizer.name)(
        params, lr=workload.lr, **workload.optimizer.settings, **flags
    )
    if workload.tail:
        return _tail(optimizer, params, problem)
    outcome = partial(outcome_of, workload, params)
    return Entrant(optimizer.step, outcome, preparation(problem, params), by_operators=True)


def _compiled(problem: Problem) -> Entrant:
    """The step under ``torch.compile``, which takes the learning rate as a tensor so as not to compile it in."""
    import torch

    # Else what is left out of the graph is logged into the middle of the tables.
    torch._logging.set_logs(all=logging.ERROR)  # type: ignore[attr-defined]
    # Else steps of earlier workloads count as compilations of this one, which after eight is left to run as it is.
    torch.compiler.reset()
    workload = problem.workload
    params = torch_params(problem)
    optimizer = getattr(torch.optim, workload.optimizer.name)(
        params, lr=torch.tensor(workload.lr), **workload.optimizer.settings
    )
    step = torch.compile(optimizer.step)
    return Entrant(step, partial(outcome_of, workload, params), preparation(problem, params))


def _tail(optimizer: Any, params: list[Any], problem: Problem) -> Entrant:
    """What PyTorch's documentation says, each over all tensors at once."""
    import torch
    from torch.optim.swa_utils import get_ema_multi_avg_fn

    tail = problem.workload.tail
    averages = [param.detach().clone() for param in params]
    average = get_ema_multi_avg_fn(EMA_DECAY)  # type: ignore[no-untyped-call]
    clip = partial(torch.nn.utils.clip_grad_norm_, params, problem.max_norm, foreach=True)
    scaling = scaler(torch.amp.GradScaler, problem)

    def step() -> None:
        scaling.unscale_(optimizer)
        if CLIP in tail:
            clip()
        scaling.step(optimizer)
        scaling.update()
        if AVERAGED in tail:
            average(averages, params, None)
        if ZERO in tail:
            optimizer.zero_grad(set_to_none=False)

    outcome = partial(outcome_of, problem.workload, params, lambda name: averages)
    return Entrant(step, outcome, preparation(problem, params), by_operators=True)


def _as_array(tensor: Any) -> Any:
    if tensor.is_cuda:
        import cupy

        return cupy.asarray(tensor)
    return tensor.numpy()
