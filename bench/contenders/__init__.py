"""The registry of contenders: gpuopt on its drivers, and those whom it is measured against."""

from __future__ import annotations

from gpuopt.bench.contenders.contender import Contender, Entrant, Status
from gpuopt.bench.contenders.libraries import guests
from gpuopt.bench.contenders.naive import naive_contender
from gpuopt.bench.contenders.ours import our_contenders
from gpuopt.bench.contenders.torch import torch_contenders

__all__ = ["Contender", "Entrant", "Status", "contenders"]


def contenders(device: str) -> list[Contender]:
    """All contenders of a device, ``"cpu"`` or ``"cuda"``, in the order of tables, and of who gets memory first."""
    mine = [contender for contender in our_contenders() if contender.device == device]
    return [*mine, *torch_contenders(device), naive_contender(device), *guests(device)]
