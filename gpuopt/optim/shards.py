"""Parameters that are shards of larger ones: DTensors, and what of them is in the memory of this process.

Nothing else of gpuopt knows what a DTensor holds. Its state is made of it by ``full_like`` and ``clone``, so that it is
a DTensor of the same mesh and placements, which distributed checkpoints can save and reshard.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch

if torch.distributed.is_available():
    from torch.distributed._functional_collectives import AsyncCollectiveTensor
    from torch.distributed.tensor import DTensor

    _SHARDS: tuple[type, ...] = (DTensor,)
else:  # a build without it, where nothing can be a shard
    _SHARDS = ()


def is_shard(tensor: Any) -> bool:
    """Whether ``tensor`` is a DTensor, of which this process may hold a part."""
    return isinstance(tensor, _SHARDS)


def local(tensor: torch.Tensor) -> torch.Tensor:
    """What of ``tensor`` is in this process: of a DTensor its local tensor, not a view of it; else itself."""
    if not isinstance(tensor, _SHARDS):
        return tensor
    own: torch.Tensor = tensor._local_tensor  # type: ignore[attr-defined]
    return own if type(own) is torch.Tensor else _waited_for(own)


def locals_of(tensors: Iterable[torch.Tensor]) -> list[torch.Tensor]:
    """Each as :func:`local`."""
    return [local(tensor) for tensor in tensors]


def versions_of(tensor: torch.Tensor) -> tuple[int, int]:
    """How often ``tensor`` was written to, as itself and by what of it is in this process."""
    return tensor._version, local(tensor)._version


def increment_versions(tensors: Sequence[torch.Tensor], are_sharded: bool = True) -> None:
    """Has autograd know that ``tensors`` were written to, of which some may be DTensors if they ``are_sharded``."""
    torch.autograd.graph.increment_version(tensors)
    if are_sharded:
        torch.autograd.graph.increment_version([local(tensor) for tensor in tensors if is_shard(tensor)])


def lies_as(grad: torch.Tensor, param: torch.Tensor) -> bool:
    """Whether a gradient is known to be placed as its parameter is, a DTensor, without a long look."""
    return getattr(grad, "_spec", None) is param._spec  # type: ignore[attr-defined]


def placed_grad(param: torch.Tensor, name: str) -> torch.Tensor:
    """The gradient of a DTensor, made to be placed as that is, which may take a collective.

    Tensor parallelism leaves partial sums on what it replicates, for one.

    Raises:
        TypeError, ValueError: It is no DTensor, or on another mesh.
    """
    grad: Any = param.grad
    if not is_shard(grad):
        raise TypeError(f"grad {name} must be a DTensor, as its parameter is, but is {type(grad).__name__}")
    mesh, placements = param.device_mesh, param.placements  # type: ignore[attr-defined]
    if grad.device_mesh != mesh:
        raise ValueError(f"grad {name} must be on the mesh of its parameter, {mesh}, but is on {grad.device_mesh}")
    if grad.placements != placements:
        grad = param.grad = grad.redistribute(placements=placements)
    placed: torch.Tensor = grad
    return placed


def check_param(param: torch.Tensor, name: str) -> None:
    """Refuses a parameter that no process holds a part of.

    Raises:
        ValueError: It is a sum that is still to be made.
    """
    if is_shard(param) and any(placement.is_partial() for placement in param.placements):  # type: ignore[attr-defined]
        raise ValueError(f"param {name} must be sharded or replicated, but its placements are {_placed(param)}")


def check_placed(param: torch.Tensor, name: str, state: Mapping[str, Any]) -> None:
    """Refuses state that is not placed as its parameter is.

    Raises:
        ValueError: A tensor of ``state`` is not.
    """
    for key, tensor in state.items():
        if not _are_placed_alike(tensor, param):
            raise ValueError(
                f"{key} of param {name} must be placed as that is, {_placed(param)}, but is {_placed(tensor)}: load "
                "state by torch.distributed.checkpoint.state_dict.set_optimizer_state_dict, which shards it"
            )


def reshard_modules() -> None:
    """Has modules of FSDP2 gather their parameters anew for the next forward, if they hold any whole.

    After a forward without a backward the outermost module does, and would not see that parameters were changed.
    """
    if not _SHARDS:
        return
    from torch.distributed._composable_state import _module_state_mapping
    from torch.distributed.fsdp import FSDPModule

    for module in list(_module_state_mapping):
        if isinstance(module, FSDPModule):
            module.reshard()


def _are_placed_alike(tensor: Any, param: Any) -> bool:
    if not (is_shard(tensor) and is_shard(param)):
        return is_shard(tensor) == is_shard(param)
    same_mesh = torch.equal(tensor.device_mesh.mesh, param.device_mesh.mesh)
    return same_mesh and bool(tensor.placements == param.placements)


def _placed(tensor: Any) -> str:
    return f"{tensor.placements} on {tensor.device_mesh}" if is_shard(tensor) else "whole"


def _waited_for(tensor: torch.Tensor) -> torch.Tensor:
    """The result of a collective that may still go on, any other as it is."""
    return tensor.wait() if isinstance(tensor, AsyncCollectiveTensor) else tensor
