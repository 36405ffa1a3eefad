"""Trainings of a sharded model that are saved and gone on with, in the processes of a world or in this one alone.

Gradients are made up for each step, so that they are the same on any number of processes.
"""

from __future__ import annotations

import os
import signal
from copy import deepcopy
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import distributed
from torch.distributed import checkpoint
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.default_planner import DefaultLoadPlanner
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_optimizer_state_dict,
    get_state_dict,
    set_optimizer_state_dict,
    set_state_dict,
)
from torch.distributed.tensor import DTensor, distribute_tensor

import gpuopt
from kit.sharded import Model, fsdp2, new_model, whole, wholes

Options = dict[str, Any]

KINDS: dict[str, Options] = {
    "plain": {},
    "everything": {"ema_decay": 0.5, "master_weights": True, "max_grad_norm": 1e6, "state_dtype": torch.bfloat16},
}


def _start(rule: str, options: Options, library: Any = gpuopt) -> tuple[Model, torch.optim.Optimizer]:
    """A model, sharded if there are several processes, and its optimizer."""
    model = new_model(torch.bfloat16 if options.get("master_weights") else torch.float32)
    if distributed.is_initialized():
        fsdp2(model)
    arguments = {"AdamW": {}, "SGD": {"momentum": 0.9}, "RMSprop": {"momentum": 0.9}, "Adagrad": {}}[rule]
    names, params = zip(*model.named_parameters(), strict=True)
    half = len(params) // 2
    groups = [
        {"params": list(zip(names[:half], params[:half], strict=True)), "lr": 0.1},
        {"params": list(zip(names[half:], params[half:], strict=True)), "lr": 0.05, "weight_decay": 0.1},
    ]
    return model, getattr(library, rule)(groups, **arguments, **options)


def _step(model: Model, optimizer: torch.optim.Optimizer, steps: range) -> None:
    for step in steps:
        generator = torch.Generator().manual_seed(step)
        for param in model.parameters():
            grad = torch.randn(param.shape, generator=generator).to(param.dtype)
            sharded = isinstance(param, DTensor)
            param.grad = distribute_tensor(grad, param.device_mesh, param.placements) if sharded else grad
        optimizer.step()
        optimizer.zero_grad()


def _everything(model: Model, optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    named = dict(model.named_parameters())
    tensors = dict(named)
    for name, param in named.items():
        tensors |= {f"{name}.{key}": value for key, value in dict(optimizer.state[param]).items()}
    return dict(zip(tensors, wholes(tensors.values()), strict=True))


def save(folder: str, rule: str, options: Options, flat: bool, library: str = "gpuopt") -> dict[str, torch.Tensor]:
    """Trains, saves, and trains on; all that came of it."""
    model, optimizer = _start(rule, options, _named(library))
    _step(model, optimizer, range(3))
    _save(folder, model, optimizer, flat)
    _step(model, optimizer, range(3, 8))
    return _everything(model, optimizer)


def load(
    folder: str, rule: str, options: Options, flat: bool, library: str = "gpuopt", again: str = ""
) -> dict[str, torch.Tensor]:
    """Trains on from what was saved, and saves it ``again`` before if that is a folder."""
    model, optimizer = _start(rule, options, _named(library))
    with torch.no_grad():
        for param in model.parameters():
            param.zero_()
    _load(folder, model, optimizer, flat)
    if again:
        _save(again, model, optimizer, flat)
    _step(model, optimizer, range(3, 8))
    return _everything(model, optimizer)


def load_and_switch_on(folder: str, flat: bool) -> tuple[str, dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """The error of loading with averages what has none, then parameters and averages, switched on after loading."""
    try:
        _load(folder, *_start("AdamW", {"ema_decay": 0.5}), flat)
        error = ""
    except CheckpointException as failed:
        error = str(failed)
    model, optimizer = _start("AdamW", {})
    _load(folder, model, optimizer, flat)
    before = {name: whole(param).float() for name, param in model.named_parameters()}
    optimizer.ema_decay = 0.5
    _step(model, optimizer, range(3, 4))
    return error, before, _everything(model, optimizer)


def _named(library: str) -> Any:
    return gpuopt if library == "gpuopt" else torch.optim


def _save(folder: str, model: Model, optimizer: torch.optim.Optimizer, flat: bool) -> None:
    options = StateDictOptions(flatten_optimizer_state_dict=flat)
    own, its = get_state_dict(model, optimizer, options=options)
    checkpoint.save({"model": own, "optimizer": its}, checkpoint_id=folder, no_dist=not distributed.is_initialized())


def _load(folder: str, model: Model, optimizer: torch.optim.Optimizer, flat: bool) -> None:
    options = StateDictOptions(flatten_optimizer_state_dict=flat)
    own, its = get_state_dict(model, optimizer, options=options)
    state = {"model": own, "optimizer": its}
    checkpoint.load(state, checkpoint_id=folder, planner=DefaultLoadPlanner(), no_dist=not distributed.is_initialized())
    set_state_dict(
        model, optimizer, model_state_dict=state["model"], optim_state_dict=state["optimizer"], options=options
    )


def exchange(rule: str, options: Options, how: Options, libraries: tuple[str, str]) -> tuple[Any, Any]:
    """Gives the state of one optimizer to another of the same model; all that comes of both."""
    model, optimizer = _start(rule, options if libraries[0] == "gpuopt" else {}, _named(libraries[0]))
    _step(model, optimizer, range(3))
    other_model, other = _start(rule, options if libraries[1] == "gpuopt" else {}, _named(libraries[1]))
    other_model.load_state_dict(model.state_dict())
    chosen = StateDictOptions(**how)
    state = get_optimizer_state_dict(model, optimizer, options=chosen)
    if how.get("full_state_dict") and not how.get("broadcast_from_rank0") and how.get("cpu_offload"):
        state = _shared(state)  # which is on the first process alone
    set_optimizer_state_dict(other_model, other, deepcopy(state), options=chosen)  # which would share its tensors
    for each in (model, optimizer), (other_model, other):
        _step(*each, range(3, 6))
    return _everything(model, optimizer), _everything(other_model, other)


def _shared(state: Any) -> Any:
    states = [state]
    distributed.broadcast_object_list(states, src=0)
    return states[0]


def die_while_saving(folder: str, rule: str, options: Options) -> None:
    """Saves once, and is killed in the middle of the next time."""
    model, optimizer = _start(rule, options)
    _step(model, optimizer, range(3))
    _save(f"{folder}/1", model, optimizer, False)
    _step(model, optimizer, range(3, 6))

    def die(*_: Any) -> None:
        if distributed.get_rank() == 1:
            os.kill(os.getpid(), signal.SIGKILL)

    with patch.object(Path, "rename", die), patch("os.fsync", die):
        _save(f"{folder}/2", model, optimizer, False)


def load_state_placed_otherwise() -> tuple[list[str], bool]:
    """Errors of a step with state that is whole, or placed otherwise, and whether parameters are as before."""
    model, optimizer = _start("AdamW", {})
    _step(model, optimizer, range(1))
    param = optimizer.param_groups[0]["params"][0]
    before, errors = wholes(model.parameters()), []
    for exp_avg in (torch.ones(param.shape), distribute_tensor(torch.ones(param.shape), param.device_mesh)):
        optimizer.state[param]["exp_avg"] = exp_avg
        try:
            _step(model, optimizer, range(1, 2))
        except ValueError as error:
            errors.append(str(error))
    return errors, all(map(torch.equal, before, wholes(model.parameters())))
