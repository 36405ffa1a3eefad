"""Steps with state in 8 bits of parameters that are sharded in several ways, and checkpoints of them.

Gradients are made up for each step, so that they are the same on any number of processes.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from copy import deepcopy
from typing import Any

import torch
from torch import distributed, nn
from torch.distributed import checkpoint
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_optimizer_state_dict,
    get_state_dict,
    set_optimizer_state_dict,
    set_state_dict,
)
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, Replicate, Shard, distribute_tensor

import gpuopt
from gpuopt.optim.shards import local
from kit.sharded import whole

SHAPES = {"rows": (5, 256), "stack": (3, 2, 128), "short": (1, 128), "columns": (4, 256), "odd": (6, 50), "one": (300,)}

IN_ROWS = ("rows", "stack", "short")
"""Parameters whose blocks no layout cuts."""

Options = dict[str, Any]
Tensors = dict[str, torch.Tensor]


class Model(nn.Module):
    """A parameter of each shape, the same each time."""

    def __init__(self, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        for index, (name, shape) in enumerate(SHAPES.items()):
            values = torch.randn(shape, generator=torch.Generator().manual_seed(index)).to(dtype)
            self.register_parameter(name, nn.Parameter(values))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return sum((param.sum() for param in self.parameters()), x)


def _fsdp2(model: Model) -> None:
    fully_shard(model, mesh=init_device_mesh("cpu", (distributed.get_world_size(),)))


def _hsdp(model: Model) -> None:
    fully_shard(model, mesh=init_device_mesh("cpu", (2, 2), mesh_dim_names=("replicate", "shard")))


def _tensor_parallel(model: Model) -> None:
    mesh = init_device_mesh("cpu", (distributed.get_world_size(),))
    kinds = {"rows": Shard(0), "stack": Shard(1), "columns": Shard(1)}
    for name, param in list(model.named_parameters()):
        setattr(model, name, nn.Parameter(distribute_tensor(param.detach(), mesh, [kinds.get(name, Replicate())])))


LAYOUTS: dict[str, tuple[Callable[[Model], None], tuple[int, ...]]] = {
    "fsdp2": (_fsdp2, (2, 4)),
    "hsdp": (_hsdp, (4,)),
    "tensor parallel": (_tensor_parallel, (2, 4)),
}
"""How to shard the model, and on how many processes."""


def start(layout: str | None, rule: str, options: Options) -> tuple[Model, gpuopt.optim.Fused]:
    """A model, whole without a layout, and its optimizer."""
    model = Model(torch.bfloat16 if options.get("master_weights") else torch.float32)
    if layout is not None:
        LAYOUTS[layout][0](model)
    arguments = {"SGD": {"momentum": 0.9}, "RMSprop": {"momentum": 0.9, "centered": True}}.get(rule, {})
    return model, getattr(gpuopt, rule)(
        model.parameters(), lr=0.01, state_dtype="8bit", backend="numpy", **arguments, **options
    )


def step(model: Model, optimizer: torch.optim.Optimizer, steps: range) -> None:
    for number in steps:
        for index, param in enumerate(model.parameters()):
            generator = torch.Generator().manual_seed(100 * number + index)
            grad = torch.randn(param.shape, generator=generator).to(param.dtype)
            sharded = isinstance(param, DTensor)
            param.grad = distribute_tensor(grad, param.device_mesh, param.placements) if sharded else grad
        optimizer.step()
        optimizer.zero_grad()


def everything(model: Model, optimizer: gpuopt.optim.Fused) -> Tensors:
    """Parameters and state, whole, the latter with its values."""
    states = optimizer.state_dict_as(torch.float32)["state"]
    tensors: dict[str, Any] = {}
    for index, (name, param) in enumerate(model.named_parameters()):
        tensors[name] = param
        tensors |= {f"{name}.{key}": value for key, value in states[index].items()}
    return {name: whole(tensor).clone() for name, tensor in tensors.items()}


def stepped(layout: str | None, rule: str, options: Options) -> Tensors:
    """All that comes of some steps."""
    model, optimizer = start(layout, rule, options)
    step(model, optimizer, range(3))
    return everything(model, optimizer)


def save(folder: str, layout: str, rule: str, options: Options, flat: bool) -> tuple[Tensors, Tensors]:
    """Trains, saves, and trains on; all that there was when it was saved, and all that came of it."""
    model, optimizer = start(layout, rule, options)
    step(model, optimizer, range(3))
    own, its = get_state_dict(model, optimizer, options=StateDictOptions(flatten_optimizer_state_dict=flat))
    checkpoint.save({"model": own, "optimizer": its}, checkpoint_id=folder)
    saved = everything(model, optimizer)
    step(model, optimizer, range(3, 6))
    return saved, everything(model, optimizer)


def load(
    folder: str, layout: str, rule: str, options: Options, flat: bool, again: str = ""
) -> tuple[Tensors, Tensors, list[tuple[str, bool]]]:
    """Goes on from what was saved, which is saved ``again`` before if that is a folder.

    All that was loaded, what came of it, and the names of its state with whether they are of this process alone.
    """
    model, optimizer = start(layout, rule, options)
    with torch.no_grad():
        for param in model.parameters():
            param.zero_()
    chosen = StateDictOptions(flatten_optimizer_state_dict=flat)
    own, its = get_state_dict(model, optimizer, options=chosen)
    state = {"model": own, "optimizer": its}
    checkpoint.load(state, checkpoint_id=folder)
    set_state_dict(
        model, optimizer, model_state_dict=state["model"], optim_state_dict=state["optimizer"], options=chosen
    )
    if again:
        own, its = get_state_dict(model, optimizer, options=chosen)
        checkpoint.save({"model": own, "optimizer": its}, checkpoint_id=again)
    loaded = everything(model, optimizer)
    step(model, optimizer, range(3, 6))
    states = [dict(optimizer.state[param]) for param in model.parameters()]
    names = sorted({(name, isinstance(entry, DTensor)) for state in states for name, entry in state.items()})
    return loaded, everything(model, optimizer), names


def looks(layout: str) -> dict[str, tuple[torch.dtype, tuple[int, ...]]]:
    """By the names of a flat checkpoint, dtype and shape of what it has of a slot, as a whole."""
    model, optimizer = start(layout, "SGD", {})
    step(model, optimizer, range(1))
    state = get_optimizer_state_dict(model, optimizer, options=StateDictOptions(flatten_optimizer_state_dict=True))
    assert all(isinstance(value, DTensor) for name, value in state.items() if "momentum_buffer" in name)
    found = {name.removeprefix("state."): value for name, value in state.items() if "momentum_buffer" in name}
    return {name: (value.dtype, tuple(value.shape)) for name, value in found.items()}


def exchange(layout: str, rule: str, how: Options) -> tuple[Tensors, Tensors]:
    """Gives the state of one optimizer to another of the same model; all that comes of both."""
    (model, optimizer), (twin, other) = (start(layout, rule, {}) for _ in range(2))
    step(model, optimizer, range(3))
    twin.load_state_dict(model.state_dict())
    chosen = StateDictOptions(**how)
    state = deepcopy(get_optimizer_state_dict(model, optimizer, options=chosen))  # else both would step its tensors
    set_optimizer_state_dict(twin, other, state, options=chosen)
    for each in (model, optimizer), (twin, other):
        step(*each, range(3, 6))
    return everything(model, optimizer), everything(twin, other)


def gathered(layout: str, rule: str) -> tuple[Any, Tensors, Tensors]:
    """A whole state dict, the parameters that belong to it, and what comes of further steps."""
    model, optimizer = start(layout, rule, {})
    step(model, optimizer, range(3))
    state = deepcopy(get_optimizer_state_dict(model, optimizer, options=StateDictOptions(full_state_dict=True)))
    params = {name: whole(param).clone() for name, param in model.named_parameters()}
    step(model, optimizer, range(3, 6))
    return state, params, everything(model, optimizer)


def state_of_one_process(layout: str, rule: str) -> list[str]:
    """What is said of a step with scales that belong to all codes, or to those of another process."""
    said = []
    for change in (lambda scales: torch.cat([scales, scales]), lambda scales: scales[:0]):
        model, optimizer = start(layout, rule, {})
        step(model, optimizer, range(1))
        before = [local(param).detach().clone() for param in model.parameters()]
        state = optimizer.state[model.one]
        state["exp_avg_scales"] = change(state["exp_avg_scales"])
        try:
            step(model, optimizer, range(1, 2))
        except ValueError as error:
            said.append(str(error))
        stays = all(map(torch.equal, before, [local(param).detach() for param in model.parameters()]))
        assert stays
    return said


def flattened() -> list[str]:
    """What is said of parameters that ``FullyShardedDataParallel`` has flattened, at construction and in a step."""
    from torch.distributed.fsdp import FullyShardedDataParallel

    said = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = FullyShardedDataParallel(Model(), device_id=torch.device("cpu"))
        try:
            gpuopt.AdamW(model.parameters(), state_dtype="8bit")
        except ValueError as error:
            said.append(str(error))
        optimizer = gpuopt.AdamW(model.parameters())
        model(torch.zeros(())).backward()
        optimizer.state_dtype = "8bit"
        try:
            optimizer.step()
        except ValueError as error:
            said.append(str(error))
    return said
