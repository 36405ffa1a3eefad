"""Parameters that are shards of larger ones: DTensors, and what of them is in the memory of this process.

Nothing else of gpuopt knows what a DTensor holds. Its state is made of it by ``full_like`` and ``clone``, so that it is
a DTensor of the same mesh and placements, which distributed checkpoints can save and reshard.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from math import prod
from typing import Any

import torch

from gpuopt.kernels.table import Whereabouts

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


def with_local(tensor: torch.Tensor, own: torch.Tensor, shape: Sequence[int], stride: Sequence[int]) -> torch.Tensor:
    """``own``; where ``tensor`` is a DTensor, one that is placed as it is, of which ``own`` is in this process.

    ``shape`` and ``stride`` are those of the whole.
    """
    if not isinstance(tensor, _SHARDS):
        return own
    mesh, placements = tensor.device_mesh, tensor.placements  # type: ignore[attr-defined]
    made: torch.Tensor = DTensor.from_local(
        own, mesh, placements, run_check=False, shape=torch.Size(shape), stride=tuple(stride)
    )
    return made


def versions_of(tensor: torch.Tensor) -> tuple[int, int] | None:
    """How often ``tensor`` was written to, as itself and by what of it is in this process; None where nobody counts."""
    return None if tensor.is_inference() else (tensor._version, local(tensor)._version)


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


def whereabouts(param: torch.Tensor, name: str) -> Whereabouts:
    """Where the elements in this process are in the whole of a parameter; all of them follow each other, in memory.

    Raises:
        ValueError: It is cut along several dimensions after the first, or not in the order of its dimensions.
    """
    own = local(param)
    if not is_shard(param) or own.numel() == 0:
        return Whereabouts()
    from torch.distributed.tensor._utils import compute_local_shape_and_global_offset

    mesh, placements = param.device_mesh, param.placements  # type: ignore[attr-defined]
    sizes, offsets = compute_local_shape_and_global_offset(param.shape, mesh, placements)
    strides = [prod(param.shape[dim + 1 :]) for dim in range(param.dim())]
    cut = [dim for dim in range(1, param.dim()) if sizes[dim] != param.shape[dim]]
    if len(cut) > 1 or not own.is_contiguous():
        raise ValueError(
            f"stochastic_rounding must be False, and state_dtype neither bfloat16 nor '8bit', for param {name}, since "
            f"it is cut along dimensions {cut} or its local tensor is not contiguous, where elements have no places "
            "that random bits can go by"
        )
    begin = sum(offset * stride for offset, stride in zip(offsets, strides, strict=True))
    return Whereabouts(begin, prod(sizes[cut[0] :]), prod(param.shape[cut[0] :])) if cut else Whereabouts(begin)


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
