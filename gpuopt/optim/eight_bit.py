"""State in 8 bits of the optimizers for PyTorch: tensors of codes and scales, and what state dicts have in their place.

Codes are placed and laid out as their parameter is. Scales are of what is in this process, a tensor of one dimension.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from math import prod
from typing import Any

import torch

from gpuopt import eight_bit
from gpuopt.eight_bit import format_of, names_of
from gpuopt.kernels.formats import BLOCK, Format
from gpuopt.kernels.formats.format import SCALES
from gpuopt.kernels.rules import Rule
from gpuopt.optim.originals import NARROW
from gpuopt.optim.shards import is_shard, local, with_local

VALUES = "values"
"""The key of values in place of codes, in a state dict."""


def encode(values: torch.Tensor, format: Format) -> tuple[torch.Tensor, torch.Tensor]:
    """Codes and scales of a tensor, placed and laid out as it is; see :func:`gpuopt.eight_bit.encode`."""
    own = local(values).detach()
    encoded = eight_bit.encode(_in_order(own).float().cpu().numpy(), format)
    codes = torch.empty_like(values.detach(), dtype=torch.uint8)
    scales = torch.empty(len(encoded[1]), dtype=torch.float32, device=own.device)
    for made, array in zip((_in_order(local(codes)), scales), encoded, strict=True):
        made.copy_(torch.from_numpy(array))
    return codes, scales


def decode(codes: torch.Tensor, scales: torch.Tensor, format: Format) -> torch.Tensor:
    """What codes say, in float32, placed and laid out as they are; see :func:`gpuopt.eight_bit.decode`."""
    own = _in_order(local(codes)).cpu().numpy()
    made = torch.empty_like(codes, dtype=torch.float32)
    _in_order(local(made)).copy_(torch.from_numpy(eight_bit.decode(own, scales.cpu().numpy(), format)))
    return made


def values_in(state: Mapping[str, Any], rule: Rule, slot: str, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """The values of a slot that is in 8 bits, placed and laid out as its codes, rounded to ``dtype``."""
    values: torch.Tensor = eight_bit.restored(rule, slot, partial(_values_of, state, rule))
    return values.to(dtype)


def to_encode(state: Mapping[str, Any], rule: Rule, slot: str) -> torch.Tensor:
    """What is encoded of a slot that is there with its values.

    Raises:
        ValueError: Another slot, on which it depends, has another shape.
    """
    shape = state[slot].shape
    for other in rule.slots if eight_bit.has_reduced(rule) else ():
        if state.get(other) is not None and state[other].shape != shape:
            raise ValueError(
                f"{other} must have the shape of {slot}, {tuple(shape)}, but has {tuple(state[other].shape)}"
            )
    values: torch.Tensor = eight_bit.reduced(rule, slot, partial(_values_of, state, rule))
    return values


def _values_of(state: Mapping[str, Any], rule: Rule, slot: str) -> torch.Tensor | None:
    """What is there of a slot, with its values or else in codes, in float32 or wider; None where it is absent."""
    values, found = state.get(slot), encoded_in(state, slot)
    if found is not None:
        return decode(*found, format_of(rule, slot))
    return values.float() if values is not None and values.dtype in NARROW else values


def zeros(param: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Codes and scales of zeros for a parameter."""
    own = local(param)
    codes = torch.zeros_like(param.detach(), dtype=torch.uint8)
    return codes, torch.zeros(SCALES.entries(own.numel()), dtype=torch.float32, device=own.device)


def encoded_in(state: Mapping[str, Any], slot: str) -> tuple[torch.Tensor, torch.Tensor] | None:
    """Codes and scales of a slot; None where it is not there, or with its values, which go before any codes."""
    codes, scales = map(state.get, names_of(slot))
    return None if codes is None or scales is None or state.get(slot) is not None else (codes, scales)


def check_entries(state: Mapping[str, Any], rule: Rule, name: str) -> None:
    """Refuses codes and scales that do not belong together.

    Raises:
        ValueError: One is missing, of another dtype, or there is not a scale for every block of codes.
    """
    present = {key for key, entry in state.items() if entry is not None}
    for slot in rule.slots:
        names = names_of(slot)
        codes, scales = map(state.get, names)
        if present.isdisjoint(names):
            continue
        if missing := [each for each in names if each not in present]:
            raise ValueError(f"state of {name} must have {' and '.join(names)} or neither, but has no {missing[0]}")
        if not (isinstance(codes, torch.Tensor) and codes.dtype is torch.uint8):
            raise ValueError(f"{names.codes} of {name} must be a tensor of uint8, but is {_said(codes)}")
        shape = (SCALES.entries(local(codes).numel()),)
        if not (isinstance(scales, torch.Tensor) and scales.dtype is torch.float32 and tuple(scales.shape) == shape):
            raise ValueError(
                f"{names.scales} of {name} must be a tensor of float32 and shape {shape}, an entry for every {BLOCK} "
                f"codes, but is {_said(scales)}"
            )


def as_saved(state: Mapping[str, Any], rule: Rule) -> dict[str, Any]:
    """The state of a parameter as state dicts have it, which distributed checkpoints can reshard.

    Of a DTensor whose blocks no sharding cuts, scales are one too. Of any other, what codes say is in place of them,
    under whose name a flat checkpoint is loaded, and in a dict of its own, so that it is never cast to codes, nor codes
    to it.
    """
    saved = dict(state)
    for slot in rule.slots:
        names, found = names_of(slot), encoded_in(state, slot)
        if found is None or not is_shard(found[0]):
            continue
        if _keeps_blocks_whole(found[0]):
            saved[names.scales] = _placed_as(*found)
        else:
            del saved[names.scales]
            saved[names.codes] = {VALUES: decode(*found, format_of(rule, slot))}
    return saved


def as_values(state: Mapping[str, Any], rule: Rule, dtype: torch.dtype) -> dict[str, Any]:
    """The state of a parameter with values of ``dtype`` in place of codes and scales."""
    saved = dict(state)
    for slot in rule.slots:
        found = encoded_in(state, slot)
        if found is not None:
            for name in names_of(slot):
                del saved[name]
            saved[slot] = values_in(state, rule, slot, dtype)
    return saved


def as_kept(saved: Mapping[str, Any], rule: Rule) -> dict[str, Any]:
    """What :func:`as_saved` was made of. Of what a flat checkpoint has not, torch has put an empty dict."""
    state = dict(saved)
    for slot in rule.slots:
        names = names_of(slot)
        codes, scales = map(state.get, names)
        for name, entry in zip(names, (codes, scales), strict=True):
            if isinstance(entry, dict):
                del state[name]
        if isinstance(codes, dict) and VALUES in codes:
            state[names.codes], state[names.scales] = encode(codes[VALUES], format_of(rule, slot))
        elif isinstance(scales, torch.Tensor):
            state[names.scales] = local(scales).reshape(-1)
    return state


def _keeps_blocks_whole(codes: Any) -> bool:
    """Whether no sharding of its kind cuts a block of a DTensor, on any number of processes."""
    last = codes.dim() - 1
    uncut = all(placement.is_replicate() or placement.dim != last for placement in codes.placements)
    return last >= 0 and codes.shape[last] % BLOCK == 0 and codes.is_contiguous() and uncut


def _placed_as(codes: torch.Tensor, scales: torch.Tensor) -> torch.Tensor:
    """Scales as a DTensor that is placed as its codes, with an entry for each of their blocks."""
    (*own, own_last), (*whole, last) = local(codes).shape, codes.shape
    shape = (*whole, last // BLOCK)
    stride = [prod(shape[dim + 1 :]) for dim in range(len(shape))]
    return with_local(codes, scales.reshape(*own, own_last // BLOCK), shape, stride)


def _in_order(own: torch.Tensor) -> torch.Tensor:
    """The elements in the order of memory: a view, or of a tensor with gaps of a copy."""
    if own.stride() != torch.empty_like(own, device="meta").stride():
        own = torch.empty_like(own).copy_(own)
    return own.as_strided((own.numel(),), (1,))


def _said(entry: Any) -> str:
    return f"of {entry.dtype} and shape {tuple(entry.shape)}" if isinstance(entry, torch.Tensor) else repr(entry)
