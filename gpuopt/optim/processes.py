"""The processes that hold one model together: which share of a sum each of them has, and how they agree on it.

Squares are added over the meshes of DTensors: each process counts what it holds, but of what is replicated one process
alone, that at the beginning of the mesh. A mesh whose processes are among those of another has no collective of its
own: its parameters are taken for replicated over the rest of the larger one.

What is added is a few numbers together, so that all processes go on with the same bits: the squares, whether a gradient
is not finite, whether a process has failed, and a fingerprint of what they must have in common. It takes one
all-reduce, but over a mesh of several dimensions that is not all of the world one for each of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import prod
from typing import Any, NamedTuple
from zlib import crc32

import torch
from torch import distributed

from gpuopt.optim.shards import is_shard

_FINGERPRINTS = 1 << 20
"""Few enough for sums of their squares to be exact in float64, over thousands of processes."""

_SPLIT = (
    "found_inf must be that of all processes that hold this model together, but the scaler agrees on it over the mesh "
    "of the first gradient at most, and then scales otherwise in some of them: use gpuopt.GradScaler"
)

NUMBERS = SQUARES, OVERFLOW, FAILED, DIFFERS, FINGERPRINT, FINGERPRINT_SQUARED = range(6)
"""What is added up, float64."""


class Circle(NamedTuple):
    """Processes whose numbers are added up.

    Attributes:
        groups: Process groups, over which one after the other is added.
        size: Number of processes.
        device: Where the groups take numbers from, the same kind of device in all processes.
    """

    groups: tuple[Any, ...]
    size: int
    device: torch.device

    @classmethod
    def of(cls, groups: Sequence[Any], kind: str = "") -> Circle:
        """That of ``groups``, of numbers in the memory of ``kind`` if they take any; else NCCL's comes first."""
        backends = dict(each.split(":") for each in str(distributed.get_backend_config(groups[0])).split(","))
        if kind not in backends:
            has_nccl = backends.get("cuda") == "nccl" and torch.cuda.is_available()
            kind = "cuda" if has_nccl else "cpu" if "cpu" in backends else next(iter(backends))
        device = torch.device("cuda", torch.cuda.current_device()) if kind == "cuda" else torch.device(kind)
        return cls(tuple(groups), prod(map(distributed.get_world_size, groups)), device)


class Agreed(NamedTuple):
    """What all processes know after they have added up their numbers, each of no dimension and float64.

    Attributes:
        squares: Of all gradients of the model.
        overflow: How many of ``size`` have found that one of them is not finite; processes that add up twice count so.
        failed: Not 0 if a process could not prepare its step.
        differs: Not 0 if processes have different settings.
        size: How many there are.
    """

    squares: torch.Tensor
    overflow: torch.Tensor
    failed: torch.Tensor
    differs: torch.Tensor
    size: int

    @property
    def is_on_host(self) -> bool:
        """Whether the host need not wait to look."""
        return self.squares.device.type == "cpu"

    def check(self, called: str) -> None:
        """Refuses to go on, in all processes alike. The host waits.

        Raises:
            RuntimeError: A process has failed, or settings, here those ``called`` so, differ.
        """
        failed, differs = torch.stack([self.failed, self.differs]).tolist()
        if failed:
            raise RuntimeError(
                "step was given up by all processes that hold this model together, since one of them could not prepare "
                "it: that one has raised the error that says why"
            )
        if differs:
            raise RuntimeError(
                f"{called} must be the same in all processes that hold this model together, but differ between them"
            )

    def check_scaler(self) -> None:
        """Refuses a scaler that has found an overflow in some processes alone. The host waits.

        Raises:
            RuntimeError: It has.
        """
        if 0 < self.overflow.item() < self.size:
            raise RuntimeError(_SPLIT)


class Processes:
    """The processes that hold one model together; there are none where no parameter is a DTensor and no group is given.

    Attributes:
        parts: For each parameter the sum of squares that its gradient counts in; -1 where another process counts it.
        sums: Number of these sums.
        has_copies: Whether something is not sharded over all processes alike, so that what one finds in its gradients
            another may not be told of by torch.
    """

    def __init__(self, params: Sequence[torch.Tensor], norm_group: Any = None) -> None:
        """Those of ``params``, and of a group over which their norm is to be added up in the end.

        Raises:
            ValueError: Processes of the group are on one mesh, so that its parameters would count several times.
        """
        shards: list[Any] = [param for param in params if is_shard(param)]
        meshes = list(dict.fromkeys(shard.device_mesh for shard in shards))
        self._is_outside = any(mesh.get_coordinate() is None for mesh in meshes)
        meshes = [mesh for mesh in meshes if mesh.get_coordinate() is not None]
        covers = _covers(meshes)
        self._circles = [Circle.of(_groups_of(mesh), mesh.device_type) for mesh in covers]
        self._last = None if norm_group is None else Circle.of([norm_group])
        if norm_group is not None:
            _check_apart(norm_group, covers)
        self.sums = max(1, len(covers))
        firsts = [min(_ranks_of(mesh)) for mesh in covers]
        homes = {mesh: next(i for i, c in enumerate(covers) if _ranks_of(mesh) <= _ranks_of(c)) for mesh in meshes}
        here = distributed.get_rank() if covers else 0
        self.parts = [_part_of(param, homes, firsts, here) for param in params]
        scopes = {(each.device_mesh, tuple(p.is_replicate() for p in each.placements)) for each in shards}
        self._is_uniform = len(scopes) <= 1 and len(shards) in (0, len(params))
        self.has_copies = not self._is_uniform or any(any(replicated) for _, replicated in scopes)

    def __bool__(self) -> bool:
        """Whether there are any, so that numbers must be added up."""
        return bool(self._circles or self._last or self._is_outside)

    def check_scaler(self) -> None:
        """Refuses a scaler that has an overflow known over the mesh of one gradient, where that is not enough.

        Raises:
            RuntimeError: Parameters are sharded over several.
        """
        if not self._is_uniform:
            raise RuntimeError(_SPLIT)

    def agree(
        self, settings: Any, squares: Sequence[torch.Tensor] = (), overflow: Any = 0.0, failed: bool = False
    ) -> Agreed:
        """Adds up numbers, in one collective for each mesh and one for the group; all processes must come here.

        Args:
            settings: What all of them must have in common.
            squares: For each of ``sums`` the sum of this process, of no dimension; none where it has failed.
            overflow: Whether a gradient of this process is not finite, a number or a tensor of no dimension.
            failed: Whether this process will not step.

        Raises:
            RuntimeError: A collective has failed, as where another process never comes.
            ValueError: This process is not among those of a parameter's mesh, which it cannot hear of.
        """
        if self._is_outside:
            raise ValueError(
                "max_grad_norm and scalers need every parameter's mesh to have this process, but one has not"
            )
        fingerprint = crc32(repr(settings).encode()) % _FINGERPRINTS
        first = next(iter((*self._circles, self._last)))
        assert first is not None
        numbers = torch.zeros(len(NUMBERS), dtype=torch.float64, device=first.device)
        numbers[FINGERPRINT], numbers[FINGERPRINT_SQUARED] = fingerprint, fingerprint**2
        if isinstance(overflow, torch.Tensor) or overflow:
            numbers[OVERFLOW] = overflow
        if failed:
            numbers[FAILED] = 1
        total = numbers[SQUARES].clone()
        for index, circle in enumerate(self._circles):
            # Of what was added before, only whether it is finite, for those who have not taken part in that.
            numbers[SQUARES] = total - total
            if squares:
                numbers[SQUARES] += squares[index].to(numbers.device)
            numbers = _added_up(numbers, circle, fingerprint)
            total = total.to(circle.device) + numbers[SQUARES]
        if self._last is not None:
            numbers[SQUARES] = squares[0] if squares and not self._circles else total
            numbers = _added_up(numbers, self._last, fingerprint)
            total = numbers[SQUARES]
        size = prod(circle.size for circle in (*self._circles, self._last) if circle)
        return Agreed(total, numbers[OVERFLOW], numbers[FAILED], numbers[DIFFERS], size)


def _added_up(numbers: torch.Tensor, circle: Circle, fingerprint: int) -> torch.Tensor:
    """``numbers`` of all processes of a circle, but with this process' own fingerprint."""
    numbers = numbers.to(circle.device)
    try:
        for group in circle.groups:
            distributed.all_reduce(numbers, group=group)
    except RuntimeError as error:
        raise RuntimeError(
            "the processes that hold this model together could not add up their norms: each of them must call step, "
            f"with max_grad_norm or under a GradScaler if one of them does ({error})"
        ) from error
    for index, own in ((FINGERPRINT, fingerprint), (FINGERPRINT_SQUARED, fingerprint**2)):
        numbers[DIFFERS] += numbers[index] != own * circle.size
        numbers[index] = own
    return numbers


def _check_apart(group: Any, covers: Sequence[Any]) -> None:
    """Refuses a group of which several processes hold the same parameters."""
    ranks = set(distributed.get_process_group_ranks(group))
    for mesh in covers:
        shared = sorted(ranks & _ranks_of(mesh))
        if len(shared) > 1:
            raise ValueError(
                f"norm_group must be of processes that hold other parameters, but of it {shared} are on one mesh of "
                "DTensors, over which norms are added up without it"
            )


def _ranks_of(mesh: Any) -> frozenset[int]:
    return frozenset(mesh.mesh.flatten().tolist())


def _covers(meshes: Iterable[Any]) -> list[Any]:
    """Those meshes whose processes are not among those of another, in order; of equals the one of fewest dimensions."""
    covers: list[Any] = []
    for mesh in meshes:
        ranks = _ranks_of(mesh)
        if not any(ranks < _ranks_of(other) for other in meshes):
            same = next((i for i, other in enumerate(covers) if _ranks_of(other) == ranks), None)
            if same is None:
                covers.append(mesh)
            elif mesh.ndim < covers[same].ndim:
                covers[same] = mesh
    return covers


def _groups_of(mesh: Any) -> list[Any]:
    """Process groups that cover a mesh: one if there is one, else one for each dimension."""
    if mesh.ndim == 1:
        return [mesh.get_group()]
    if mesh.size() == distributed.get_world_size():
        return [distributed.group.WORLD]
    return [mesh.get_group(dimension) for dimension in range(mesh.ndim)]


def _part_of(param: Any, homes: dict[Any, int], firsts: Sequence[int], here: int) -> int:
    """The sum that ``param`` counts in, in the process whose rank is ``here``, or -1."""
    if not is_shard(param):
        return 0 if not firsts or here == firsts[0] else -1
    mesh = param.device_mesh
    place, home = mesh.get_coordinate(), homes.get(mesh)
    if home is None or firsts[home] not in _ranks_of(mesh):
        return -1
    copied = any(at for at, placement in zip(place, param.placements, strict=True) if placement.is_replicate())
    return -1 if copied else home
