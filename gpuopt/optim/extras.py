"""What the optimizers do in the same pass, beyond what those of ``torch.optim`` do."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import isfinite
from typing import Any, Literal, TypedDict

import torch

from gpuopt.backends import check_name
from gpuopt.eight_bit import BITS, EightBit, check_rule, is_8bit
from gpuopt.kernels.formats import BY_DTYPE
from gpuopt.kernels.random import check_seed
from gpuopt.kernels.rules import Rule


class Extras(TypedDict, total=False):
    """Keywords that every optimizer takes. They are attributes of it too, and may be changed between steps.

    They are for all groups together, and in none. But for ``backend`` a state dict carries them.

    Attributes:
        backend: ``"triton"``, ``"cupy"``, ``"numba"`` or ``"numpy"``; None for the fastest that serves the parameters.
        max_grad_norm: Gradients of all groups together are scaled down to this norm where theirs is larger, as by
            ``torch.nn.utils.clip_grad_norm_`` but without being written. None for no clipping.
        error_if_nonfinite: Whether a norm that is infinite or undefined is an error, where there is a
            ``max_grad_norm``, which may be infinite. To say so, the host waits.
        zero_grads: Whether gradients are set to zero as they are read, also by a step that an overflow makes do
            nothing else, for which ``torch.amp.GradScaler`` leaves it to the step to unscale them.
        ema_decay: Decay of an exponential moving average of the parameters, kept as ``ema`` in their state and put in
            their place by :meth:`~gpuopt.optim.base.Fused.averaged_weights`. None for none.
        master_weights: Whether float16 and bfloat16 parameters have an original of float32's precision, which is
            stepped and which they are rounded from. Beside a bfloat16 parameter it takes a remainder of 16 bits, kept
            as ``param_remainder`` in its state; ``"24bit"`` for one of 8 bits. A float16 parameter has a float32
            original either way, kept as ``master_param``, and so has a flat one of ``FullyShardedDataParallel``. Where
            a parameter was written to since the last step, its original follows, and what is beside a bfloat16 one is
            dropped, but not where that was through ``.data``, of which PyTorch keeps no count.
        stochastic_rounding: Whether bfloat16 parameters and state are rounded stochastically, so that the mean of what
            is stored is the value, and small updates add up. A parameter that has an original is not rounded so, and
            state that ``state_dtype`` makes bfloat16 always is.
        seed: Of stochastic rounding, a whole number below 2^32. The same seed gives the same bits, on every backend and
            however parameters are sharded. Where several optimizers have parts of a model, give each one of its own.
        norm_group: A process group over which norm and overflow are added up after the meshes of DTensors, which need
            none: of the processes that hold other parameters of the same model, as the stages of a pipeline do, or flat
            shards, as with ``FullyShardedDataParallel`` and ``ZeroRedundancyOptimizer``. None for none.
        state_dtype: Of the rule's slots that are made from now on, of real parameters; None for that of the
            parameter, or of its original. With ``torch.bfloat16`` they are rounded stochastically: rounded to nearest,
            an average that decays by less than half a unit in a step, as by a beta of 0.999, would never fall. With
            ``"8bit"`` they are 8 bits, rounded so too, and a float32 for every 128 of them that follow each other in
            memory, kept as ``exp_avg_codes`` and ``exp_avg_scales``, and so on; a slot that is there already is
            converted, to 8 bits and, with any other value, back. Not for Adagrad.

    An original or an average that is switched off is dropped at the next step.

    Where parameters are DTensors or there is a ``norm_group``, all processes must step together, with the same extras.
    """

    backend: str | None
    max_grad_norm: float | None
    error_if_nonfinite: bool
    zero_grads: bool
    ema_decay: float | None
    master_weights: bool | Literal["24bit"]
    stochastic_rounding: bool
    seed: int
    norm_group: torch.distributed.ProcessGroup | None
    state_dtype: torch.dtype | EightBit | None


class Options(Extras, total=False):
    """The extras, and keywords that are torch's.

    ``differentiable`` must be False, and ``fused`` chooses who unscales gradients under ``torch.amp.GradScaler``: the
    step if it is true, else the scaler, in a pass of its own.
    """

    maximize: bool
    capturable: bool
    differentiable: bool
    fused: bool | None


class OptionsWithForeach(Options, total=False):
    """Also ``foreach``, which chooses nothing."""

    foreach: bool | None


DEFAULTS: Extras = {
    "backend": None,
    "max_grad_norm": None,
    "error_if_nonfinite": False,
    "zero_grads": False,
    "ema_decay": None,
    "master_weights": False,
    "stochastic_rounding": False,
    "seed": 0,
    "norm_group": None,
    "state_dtype": None,
}

LOCAL = frozenset(["backend", "norm_group"])
"""Extras that belong to where an optimizer runs, so that state dicts do not carry them."""


NAMES = frozenset(DEFAULTS)

_DISTRIBUTED = torch.distributed.is_available()
"""Whether this build of PyTorch knows process groups."""

TORCHS = frozenset(OptionsWithForeach.__annotations__) - NAMES
"""Those options that are no extras."""


def check(extras: Mapping[str, Any], owner: str, rule: Rule) -> None:
    """Refuses what cannot be, for the ``rule`` of a class that is called ``owner``.

    Raises:
        TypeError, ValueError: A keyword is unknown, or its value is none that it may have.
    """
    for name, value in extras.items():
        if name not in DEFAULTS:
            raise TypeError(f"{owner}() got an unexpected keyword argument {name!r}")
        is_switch = isinstance(DEFAULTS[name], bool) and name != "master_weights"  # type: ignore[literal-required]
        if is_switch and not isinstance(value, bool):
            raise TypeError(f"{name} must be True or False, but is {value!r}")
    check_name(extras.get("backend"))
    master, seed = extras.get("master_weights", False), extras.get("seed", 0)
    if not isinstance(master, bool) and not (isinstance(master, str) and master == "24bit"):
        raise ValueError(f"master_weights must be True, False or '24bit', but is {master!r}")
    check_seed(seed)
    norm, decay = extras.get("max_grad_norm"), extras.get("ema_decay")
    if norm is not None and not (_is_number(norm) and norm >= 0):
        raise ValueError(f"max_grad_norm must be a number >= 0 or None, but is {norm!r}")
    if extras.get("error_if_nonfinite") and norm is None:
        raise ValueError(
            "error_if_nonfinite must be False where max_grad_norm is None: give float('inf') to clip nothing"
        )
    if decay is not None and not (_is_number(decay) and isfinite(decay) and 0 <= decay <= 1):
        raise ValueError(f"ema_decay must be in [0, 1] or None, but is {decay!r}")
    group = extras.get("norm_group")
    if group is not None and not (_DISTRIBUTED and isinstance(group, torch.distributed.ProcessGroup)):
        raise ValueError(
            f"norm_group must be a process group of torch.distributed that has this process, or None, but is {group!r}"
        )
    dtype = extras.get("state_dtype")
    if is_8bit(dtype):
        check_rule(rule, owner)
    elif dtype is not None and not (isinstance(dtype, torch.dtype) and str(dtype).removeprefix("torch.") in BY_DTYPE):
        raise ValueError(f"state_dtype must be torch.{', torch.'.join(BY_DTYPE)}, {BITS!r} or None, but is {dtype!r}")


def rounds_state(stochastic_rounding: bool, state_dtype: torch.dtype | EightBit | None) -> bool:
    """Whether state of bfloat16 or 8 bits is rounded stochastically."""
    return stochastic_rounding or state_dtype in (torch.bfloat16, BITS)


def check_group(group: Mapping[str, Any], extras: Mapping[str, Any], index: int) -> None:
    """Refuses extras in a param group, unless they only repeat what the optimizer has for all of them.

    Raises:
        ValueError: One differs, or is ``max_grad_norm``: ``ZeroRedundancyOptimizer`` puts it there, and then has each
            process step some of the parameters, of which it would take the norm for that of all.
    """
    for name in NAMES.intersection(group):
        if name == "max_grad_norm" and group[name] is not None:
            raise ValueError(
                f"max_grad_norm must be given to the constructor alone, since the norm is that of all groups, but is "
                f"in group {index}; where a wrapper has put it there, as ZeroRedundancyOptimizer does, give it "
                "functools.partial(optimizer, max_grad_norm=..., norm_group=...) as the class instead"
            )
        if group[name] != extras[name]:
            raise ValueError(
                f"{name} must be given to the constructor, for all groups, or set as an attribute, but is in group "
                f"{index}: {group[name]!r}"
            )


def check_params(params: Iterable[torch.Tensor], extras: Mapping[str, Any]) -> None:
    """Refuses parameters that extras cannot be had for.

    Raises:
        ValueError: Gradients are to be clipped of parameters that ``FullyShardedDataParallel`` has flattened, and there
            is no ``norm_group``; or state of such is to be in 8 bits.
    """
    alone = extras["max_grad_norm"] is not None and extras["norm_group"] is None
    in_bits = extras["state_dtype"] == BITS
    if not (alone or in_bits) or not any(map(is_flat, params)):
        return
    if in_bits:
        raise ValueError(
            f"state_dtype must not be {BITS!r} for parameters that FullyShardedDataParallel has flattened, whose "
            "checkpoints take state with an entry for each element alone: use fully_shard"
        )
    if alone:
        raise ValueError(
            "max_grad_norm must be None for parameters that FullyShardedDataParallel has flattened, of which each "
            "process would take the norm of its own shard for that of all: give its process group as norm_group, or "
            "call clip_grad_norm_ of the wrapped module before step"
        )


def is_flat(param: torch.Tensor) -> bool:
    """Whether ``FullyShardedDataParallel`` has flattened a parameter."""
    return getattr(param, "_fsdp_flattened", False)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
