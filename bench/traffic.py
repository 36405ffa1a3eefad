"""How many bytes a step moves, counted as it makes them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gpuopt.bench.contenders.contender import Entrant
from gpuopt.bench.launches import counted
from gpuopt.bench.workloads import Workload
from gpuopt.kernels.formats import FORMATS

ONLY_WRITTEN = ("copy_", "fill_", "zero_")
"""Operators of PyTorch that do not read what they write to."""


def moved(workload: Workload, entrant: Entrant) -> int | None:
    """Bytes that one step reads and writes, were there no caches; None where nothing tells.

    gpuopt moves what :attr:`Workload.bytes` says, and reads the gradients once more for each sum of squares that its
    driver is asked for. Of PyTorch, it is what all operators take and give.
    """
    entrant.prepare()
    if entrant.driver is not None:
        with counted(entrant.driver) as calls:
            entrant.step()
        elements = sum(table.numel for name, table in calls if name == "sum_squares")
        return workload.bytes + FORMATS[workload.formats.grad].nbytes(elements)
    return _of_operators(entrant.step) if entrant.by_operators else None


def _of_operators(step: Callable[[], object]) -> int:
    from torch.utils._python_dispatch import TorchDispatchMode

    total = 0

    class Counting(TorchDispatchMode):  # type: ignore[no-untyped-call]
        def __torch_dispatch__(
            self, operator: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
        ) -> Any:
            nonlocal total
            given = kwargs or {}
            result = operator(*args, **given)
            if not operator.is_view:
                total += _of_operator(operator, args, given, result)
            return result

    with Counting():  # type: ignore[no-untyped-call]
        step()
    return total


def _of_operator(operator: Any, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> int:
    """Each tensor that is taken is read, but for a few; what may change, and what is new, is written."""
    name = operator._schema.name.removeprefix("aten::_foreach_").removeprefix("aten::")
    arguments = operator._schema.arguments
    values = dict(zip((argument.name for argument in arguments), args, strict=False)) | kwargs
    read: dict[int, int] = {}
    written: dict[int, int] = {}
    for argument in arguments:
        tensors = _sizes(values.get(argument.name))
        # A fused step may unscale gradients in place, and does where it is given a scale.
        may_write = argument.alias_info is not None and argument.alias_info.is_write
        if may_write and not (argument.name == "grads" and values.get("grad_scale") is None):
            written |= tensors
            if name in ONLY_WRITTEN:
                continue
        read |= tensors
    written |= {key: size for key, size in _sizes(result).items() if key not in read}
    return sum(read.values()) + sum(written.values())


def _sizes(value: Any) -> dict[int, int]:
    """Bytes of all tensors in it, of a DTensor those that are here, by where they are."""
    import torch
    from torch.utils._pytree import tree_leaves

    tensors = [getattr(leaf, "_local_tensor", leaf) for leaf in tree_leaves(value) if isinstance(leaf, torch.Tensor)]
    return {tensor.data_ptr(): tensor.nbytes for tensor in tensors}
