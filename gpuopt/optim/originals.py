"""What a parameter of 16 bits is rounded from: its original, which is what is stepped.

That of a bfloat16 parameter is the parameter and a remainder beside it, see :mod:`gpuopt.kernels.formats.split32` and
:mod:`~gpuopt.kernels.formats.split24`; that of any other parameter of 16 bits is a float32 of which it is a copy.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from gpuopt.kernels.formats import FORMATS, Format
from gpuopt.kernels.warn import warn
from gpuopt.optim.extras import is_flat
from gpuopt.optim.shards import local, versions_of, with_local
from gpuopt.watched import Entries

MASTER, REMAINDER = "master_param", "param_remainder"
"""Entries of the state: the float32, and what is beside a bfloat16."""

NARROW = (torch.float16, torch.bfloat16)

MasterWeights = bool | str
"""Whether there are originals; ``"24bit"`` where those of bfloat16 parameters are to be of 24 bits instead of 32."""

_REMAINDERS = {torch.int16: FORMATS["split32"], torch.int8: FORMATS["split24"]}


def remainder_dtype(param: torch.Tensor, master_weights: MasterWeights) -> torch.dtype | None:
    """The dtype of the remainder beside a parameter; None where it has none.

    What ``FullyShardedDataParallel`` has flattened has none, since that puts state of floating point alone together.
    """
    if not master_weights or param.dtype is not torch.bfloat16 or is_flat(param):
        return None
    return torch.int8 if master_weights == "24bit" else torch.int16


def format_with(remainder: torch.Tensor) -> Format:
    """The format of a parameter that has this remainder."""
    return _REMAINDERS[remainder.dtype]


def original_in(state: Mapping[str, Any]) -> tuple[str, torch.Tensor] | None:
    """The entry of a state that holds an original, by its name; None where there is none.

    There is none in what ``torch.optim`` has loaded either: it has cast it, and stepped the parameter without.
    """
    master, remainder = state.get(MASTER), state.get(REMAINDER)
    if master is not None:
        return (MASTER, master) if master.dtype is torch.float32 else None
    if remainder is None:
        return None
    remainder = as_kept(remainder)
    return (REMAINDER, remainder) if remainder.dtype in _REMAINDERS else None


def check_saved(state: Mapping[str, Any], name: str) -> None:
    """Refuses a remainder that is none.

    Raises:
        ValueError: It is neither of int8, nor of int16, nor pairs of bytes, nor of floating point, as torch casts it.
    """
    remainder = state.get(REMAINDER)
    if remainder is None:
        return
    is_tensor = isinstance(remainder, torch.Tensor)
    if is_tensor and remainder.dtype is torch.uint8 and remainder.dim() > 0 and remainder.shape[-1] == 2:
        return
    if not (is_tensor and (remainder.dtype in _REMAINDERS or remainder.is_floating_point())):
        said = f"{remainder.dtype} and shape {tuple(remainder.shape)}" if is_tensor else repr(remainder)
        raise ValueError(
            f"{REMAINDER} of parameter {name} must be a tensor of int8, or of bytes with a last dimension of 2, but is "
            f"of {said}"
        )


def as_saved(remainder: torch.Tensor) -> torch.Tensor:
    """A remainder as a state dict has it: one of int16 as pairs of bytes, in the same memory.

    Neither NCCL nor gloo moves int16, as the gathering of a sharded checkpoint does, and all are to be alike.
    """
    if remainder.dtype is not torch.int16:
        return remainder
    own = local(remainder).unsqueeze(-1).view(torch.uint8)
    return with_local(remainder, own, (*remainder.shape, 2), (*(2 * stride for stride in remainder.stride()), 1))


def as_kept(saved: torch.Tensor) -> torch.Tensor:
    """What :func:`as_saved` was made of."""
    if saved.dtype is not torch.uint8:
        return saved
    own = local(saved).contiguous().view(torch.int16).squeeze(-1)
    return with_local(saved, own, saved.shape[:-1], [stride // 2 for stride in saved.stride()[:-1]])


def values_of(param: torch.Tensor, state: Mapping[str, Any]) -> torch.Tensor:
    """The original of a parameter in float32, what of it is in this process; itself where it has none."""
    own = local(param).detach()
    found = original_in(state)
    if found is None:
        return own
    name, tensor = found
    return local(tensor) if name == MASTER else _joined(own, local(tensor))


def drop_if_written(param: torch.Tensor, state: Any) -> None:
    """Drops the remainder of a parameter that others have written to since it was stepped, and says so."""
    if not isinstance(state, Entries) or state.versions is None or state.entry(REMAINDER) is None:
        return
    now = versions_of(param)
    if state.versions == now:
        return
    state.versions = now
    local(state.entry(REMAINDER)).zero_()
    warn(
        f"a parameter of shape {tuple(param.shape)} was written to since it was stepped, so that what its original has "
        "beyond bfloat16 is dropped, for all of its elements"
    )


def adopt(param: torch.Tensor, remainder: torch.Tensor, earlier: torch.Tensor) -> None:
    """Has a bfloat16 parameter and its new remainder hold what an earlier entry of the state says.

    Where a float32 original, rounded, is not the parameter, others have written to it, and nothing is beside it. Of two
    bfloat16 that are as near, it may have been rounded to the other one: there the parameter follows.
    """
    is_original = earlier.is_floating_point()
    original = earlier if is_original else _joined(param, earlier)
    high, low = _split(original, remainder.dtype)
    own = param.view(torch.int16)
    belongs = original == original
    if is_original:
        belongs &= (high == own) | (original.to(torch.bfloat16).view(torch.int16) == own)
    remainder.copy_(torch.where(belongs, low, torch.zeros_like(low)))
    own.copy_(torch.where(belongs, high, own))


def follow(param: torch.Tensor, original: torch.Tensor) -> None:
    """Has a float32 original follow where ``param`` is not its rounded copy, because others have written to it."""
    differs = original.to(param.dtype).view(torch.int16) != param.view(torch.int16)
    original.copy_(torch.where(differs, param.to(original.dtype), original))


def _joined(high: torch.Tensor, low: torch.Tensor) -> torch.Tensor:
    """As the formats load both."""
    shift = 8 if low.dtype is torch.int8 else 0
    bits = (high.view(torch.int16).to(torch.int32) << 16) + (low.to(torch.int32) << shift)
    value = bits.view(torch.float32)
    return torch.where(value.isnan(), high.float(), value)


def _split(original: torch.Tensor, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    """As the formats store what is not NaN, for a remainder of ``dtype``."""
    bits = original.view(torch.int32)
    shift = 8 if dtype is torch.int8 else 0
    if shift:
        bits = (bits + 0x7F + ((bits >> 8) & 1)) & ~0xFF
    high = (bits + 0x8000) >> 16
    return high.to(torch.int16), ((bits - (high << 16)) >> shift).to(dtype)
