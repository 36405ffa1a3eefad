"""What goes wrong in one process of several, in the processes of a world."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any
from unittest.mock import patch

import torch
from torch import distributed, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.tensor import DTensor, Shard, distribute_tensor

import gpuopt
from gpuopt.optim.processes import Agreed
from kit.sharded import LAYOUTS, RULES, backward, batch_of, loss_of, new_model, whole, wholes

SCALERS = {"torch": torch.amp.GradScaler, "gpuopt": gpuopt.GradScaler}


class Trainee:
    """A sharded model and its optimizer, and what has changed of them."""

    def __init__(self, layout: str, **options: Any) -> None:
        self.model = new_model(torch.float32)
        self.shares = LAYOUTS[layout][0](self.model)
        self.optimizer = RULES["AdamW"](self.model.parameters(), **options)
        self.params = list(self.model.parameters())

    def backward(self, step: int = 0, scale: float = 1.0) -> None:
        self.optimizer.zero_grad()
        backward(self.model, self.shares, step)
        for grad in self.grads():
            grad.mul_(scale)

    def grads(self) -> list[torch.Tensor]:
        """Those that hold anything here."""
        grads = [param.grad for param in self.params if param.grad is not None]
        local = [grad._local_tensor if isinstance(grad, DTensor) else grad for grad in grads]
        return [grad for grad in local if grad.numel()]

    def error_of_step(self, step: Callable[[], Any] | None = None) -> str:
        try:
            (step or self.optimizer.step)()
        except (RuntimeError, TypeError, ValueError) as error:
            return f"{type(error).__name__}: {error}"
        return ""


def overflow(layout: str, kind: str, rank: int, at: int, value: float, options: dict[str, Any]) -> dict[str, Any]:
    """A step with a gradient of one process that is not finite, and a step after it."""
    unscales = options.pop("unscales", False)
    trainee = Trainee(layout, **options)
    scaler = SCALERS[kind]("cpu", init_scale=4.0, growth_interval=100)
    scaler.scale(torch.ones(()))
    before = wholes(trainee.params)
    trainee.backward(scale=4.0)
    if distributed.get_rank() == rank:
        trainee.grads()[at].view(-1)[-1] = value
    error = trainee.error_of_step(lambda: scaler.unscale_(trainee.optimizer)) if unscales else ""
    error = error or trainee.error_of_step(lambda: scaler.step(trainee.optimizer))
    between = wholes(trainee.params)
    if error:
        return {"error": error, "stays": all(map(torch.equal, before, between))}
    scaler.update()
    scale = scaler.get_scale()
    trainee.backward(scale=scale)
    scaler.step(trainee.optimizer)
    scaler.update()
    return {
        "error": error,
        "stays": all(map(torch.equal, before, between)),
        "scales": (scale, scaler.get_scale()),
        "params": wholes(trainee.params),
        "left": trainee.optimizer.state[trainee.params[0]].get("step").item(),
    }


def one_step(layout: str) -> list[torch.Tensor]:
    """Parameters after a step in which nothing goes wrong."""
    trainee = Trainee(layout)
    trainee.backward()
    trainee.optimizer.step()
    return wholes(trainee.params)


def not_finite(layout: str, rank: int, at: int, is_error: bool) -> tuple[str, float, bool]:
    """The error of a clipped step, its norm, and whether parameters are as before."""
    trainee = Trainee(layout, max_grad_norm=1.0, error_if_nonfinite=is_error)
    before = wholes(trainee.params)
    trainee.backward()
    if distributed.get_rank() == rank:
        trainee.grads()[at].view(-1)[0] = float("inf")
    error = trainee.error_of_step()
    norm = trainee.optimizer.last_grad_norm
    return error, float("nan") if norm is None else norm.item(), all(map(torch.equal, before, wholes(trainee.params)))


def without_gradients(layout: str, rank: int, which: slice) -> tuple[float, float, list[torch.Tensor], bool]:
    """The norm of a clipped step, what it is to be, parameters, and whether those without gradients stayed."""
    trainee = Trainee(layout, max_grad_norm=1e6)
    trainee.backward()
    is_lacking = distributed.get_rank() == rank
    lacking = trainee.params[which] if is_lacking else []
    for param in lacking:
        param.grad = None
    squares = sum((grad.double() ** 2).sum() for grad in trainee.grads())
    total = torch.as_tensor(squares, dtype=torch.float64).reshape(())
    distributed.all_reduce(total)
    before = [param._local_tensor.clone() for param in lacking]
    trainee.optimizer.step()
    stays = all(torch.equal(param._local_tensor, was) for param, was in zip(lacking, before, strict=True))
    assert trainee.optimizer.last_grad_norm is not None
    return trainee.optimizer.last_grad_norm.item(), total.sqrt().item(), wholes(trainee.params), stays


def disagree(first: float | None, second: float | None) -> tuple[str, bool]:
    """The error of a step with another norm in each process, and whether parameters are as before."""
    trainee = Trainee("fsdp2", max_grad_norm=(first, second)[distributed.get_rank()])
    trainee.backward()
    before = [param._local_tensor.clone() for param in trainee.params]
    error = trainee.error_of_step()
    return error, all(torch.equal(param._local_tensor, was) for param, was in zip(trainee.params, before, strict=True))


def fail_to_prepare(scaled: bool) -> tuple[str, bool, list[float]]:
    """The error of a step that one process cannot prepare, whether parameters are as before, and norms after it."""
    trainee = Trainee("fsdp2", max_grad_norm=None if scaled else 1.0)
    scaler = gpuopt.GradScaler("cpu", init_scale=1.0)
    scaler.scale(torch.ones(()))
    step = partial(scaler.step, trainee.optimizer) if scaled else trainee.optimizer.step
    before = wholes(trainee.params)
    trainee.backward()
    if distributed.get_rank() == 1:
        trainee.optimizer.param_groups[0]["lr"] = float("nan")
    error = trainee.error_of_step(step)
    stays = all(map(torch.equal, before, wholes(trainee.params)))
    trainee.optimizer.param_groups[0]["lr"] = 0.1
    if scaled:
        scaler.update()
    trainee.error_of_step(step)
    return error, stays, [param.sum().item() for param in wholes(trainee.params)]


def fail_before_sums_are_made() -> tuple[str, bool]:
    """As :func:`fail_to_prepare`, under tensor parallelism, before gradients are looked at."""
    trainee = Trainee("tensor_parallel", max_grad_norm=1.0)
    before = wholes(trainee.params)
    trainee.backward()
    if distributed.get_rank() == 1:
        trainee.optimizer.ema_decay = 3.0
    error = trainee.error_of_step()
    return error, all(map(torch.equal, before, wholes(trainee.params)))


def fail_to_unscale() -> str:
    """The error of unscaling gradients, of which one process has some of float16."""
    params = [nn.Parameter(torch.ones(3, dtype=torch.float16 if distributed.get_rank() else torch.float32))]
    optimizer = gpuopt.AdamW(params, norm_group=distributed.group.WORLD)
    scaler = gpuopt.GradScaler("cpu")
    scaler.scale(torch.ones(()))
    params[0].grad = torch.ones_like(params[0])
    try:
        scaler.unscale_(optimizer)
    except (RuntimeError, ValueError) as error:
        return f"{type(error).__name__}: {error}"
    return ""


def group_within_a_mesh() -> str:
    """The error of a group of processes that hold the same DTensors."""
    trainee = Trainee("fsdp2", max_grad_norm=1.0, norm_group=distributed.group.WORLD)
    trainee.backward()
    return trainee.error_of_step()


def mesh_elsewhere() -> list[str]:
    """Errors of a step with a parameter on a mesh of the first process alone, and in the other of one that clips."""
    meshes = [init_device_mesh("cpu", (distributed.get_world_size(),)), DeviceMesh("cpu", [0])]
    params = [nn.Parameter(distribute_tensor(torch.ones(4), mesh, [Shard(0)])) for mesh in meshes]
    errors = []
    for max_norm in (None, 1.0)[: 1 + distributed.get_rank()]:
        optimizer = gpuopt.AdamW(params, max_grad_norm=max_norm)
        for param in params:
            param.grad = torch.ones_like(param)
        try:
            optimizer.step()
            errors.append("")
        except (RuntimeError, ValueError) as error:
            errors.append(f"{type(error).__name__}: {error}")
    return errors


def overflow_later(kind: str) -> list[str]:
    """Errors of three steps, the last of which overflows in one process, where the host would wait to look."""
    param = nn.Parameter(torch.ones(4))
    optimizer = gpuopt.AdamW([param], norm_group=distributed.group.WORLD, fused=True)
    scaler = SCALERS[kind]("cpu", init_scale=1.0)
    scaler.scale(torch.ones(()))
    errors = []
    with patch.object(Agreed, "is_on_host", False):
        for grad in (1.0, 1.0, float("inf") if distributed.get_rank() else 1.0):
            param.grad = torch.full_like(param, grad)
            try:
                scaler.step(optimizer)
                errors.append("")
            except RuntimeError as error:
                errors.append(str(error))
            scaler.update()
    return errors


# Groups of processes that hold other parts of a model, which are no DTensors


def overflow_in_a_stage(fused: bool, sharded: bool) -> tuple[str, bool]:
    """The error of a step under torch's scaler, with an overflow in the last process; whether parameters stay.

    Each half of the processes is a stage, whose parameters may be sharded over it.
    """
    rank, half = distributed.get_rank(), distributed.get_world_size() // 2
    params = [nn.Parameter(torch.ones(4)), nn.Parameter(torch.ones(6))]
    if sharded:
        mesh = init_device_mesh("cpu", (2, half), mesh_dim_names=("stage", "shard"))
        params = [nn.Parameter(distribute_tensor(param.detach(), mesh["shard"], [Shard(0)])) for param in params]
        group = mesh.get_group("stage")
    else:
        group = distributed.group.WORLD
    optimizer = gpuopt.AdamW(params, norm_group=group, fused=fused)
    scaler = torch.amp.GradScaler("cpu")
    scaler.scale(torch.ones(()))
    for param in params:
        param.grad = torch.full_like(param, float("inf") if rank >= half else 1.0)
    try:
        scaler.step(optimizer)
        error = ""
    except RuntimeError as failed:
        error = str(failed)
    return error, all(bool((whole(param) == 1).all()) for param in params)


def pipeline(lacks: int | None, kind: str | None, value: float | None) -> tuple[float, list[torch.Tensor], float]:
    """The norm, parameters and scale after a step of two stages, of which one ``lacks`` gradients."""
    rank = distributed.get_rank()
    stage = new_model().blocks[rank]
    params = list(stage.parameters())
    optimizer = gpuopt.AdamW(params, max_grad_norm=0.5, norm_group=distributed.group.WORLD)
    for index, param in enumerate(params):
        param.grad = None if rank == lacks else torch.full_like(param, 0.1 * (rank + 1) + index)
    if value is not None and rank == 1:
        params[0].grad[0] = value
    if kind is None:
        optimizer.step()
        scale = 1.0
    else:
        scaler = SCALERS[kind]("cpu", init_scale=2.0)
        scaler.scale(torch.ones(()))
        scaler.step(optimizer)
        scaler.update()
        scale = scaler.get_scale()
    assert optimizer.last_grad_norm is not None
    return optimizer.last_grad_norm.item(), [param.detach() for param in params], scale


def zero_redundancy(max_norm: float) -> tuple[list[torch.Tensor], torch.Tensor]:
    """Parameters and norm of a training by ``ZeroRedundancyOptimizer``."""
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from torch.distributed.optim import ZeroRedundancyOptimizer

    model = nn.parallel.DistributedDataParallel(new_model())
    optimizer_class = partial(gpuopt.AdamW, max_grad_norm=max_norm, norm_group=distributed.group.WORLD)
    optimizer = ZeroRedundancyOptimizer(model.parameters(), optimizer_class, lr=0.01)
    return _train(model, optimizer, optimizer.optim)


def fully_sharded(max_norm: float, keeps_params: bool) -> tuple[list[torch.Tensor], torch.Tensor]:
    """As :func:`zero_redundancy`, by ``FullyShardedDataParallel``."""
    from torch.distributed.fsdp import FullyShardedDataParallel

    model = FullyShardedDataParallel(new_model(), device_id=torch.device("cpu"), use_orig_params=keeps_params)
    optimizer = gpuopt.AdamW(model.parameters(), lr=0.01, max_grad_norm=max_norm, norm_group=model.process_group)
    return _train(model, optimizer, optimizer)


def _train(model: nn.Module, optimizer: Any, own: Any) -> tuple[list[torch.Tensor], torch.Tensor]:
    size, rank = distributed.get_world_size(), distributed.get_rank()
    for step in range(5):
        optimizer.zero_grad()
        loss_of(model, batch_of(step).chunk(size)[rank]).backward()
        optimizer.step()
    norm = own.last_grad_norm
    if hasattr(model, "summon_full_params"):
        with model.summon_full_params(model):
            return [param.detach().clone() for param in model.parameters()], norm
    return [param.detach() for param in model.parameters()], norm
