"""Parameters whose gradients are sparse: torch's own arithmetic steps them, and touches what a gradient has alone.

``torch.optim`` has it for SGD and Adagrad. What gpuopt does beside a step passes over whole tensors, and is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch.optim.adagrad import adagrad
from torch.optim.sgd import sgd

from gpuopt.kernels.rules import RULES, Rule
from gpuopt.optim.eight_bit import encoded_in
from gpuopt.optim.originals import NARROW
from gpuopt.optim.selection import Scaling
from gpuopt.optim.state import STEP, Wanted, check_state, state_of


class Sparse(NamedTuple):
    """A parameter that has a sparse gradient.

    Attributes:
        name: How errors call it.
        group: The group it is of.
        param: Itself.
    """

    name: str
    group: dict[str, Any]
    param: torch.Tensor


def check(
    each: Sparse, rule: Rule, state: Mapping[str, Any], extras: Mapping[str, Any], scaling: Scaling, captured: bool
) -> None:
    """Refuses what a sparse gradient cannot be had with.

    Raises:
        RuntimeError: A setting, an extra, an unscaling in the step, or the capture of a graph.
        ValueError: Something is missing of the parameter's ``state``.
    """
    check_state(each.name, state, rule, rule.required)
    called = f"where a gradient is sparse (grad {each.name})"
    for slot in rule.slots:
        if encoded_in(state, slot) is not None:
            raise RuntimeError(f"{slot} must not be in 8 bits {called}, but is: load state_dict_as(torch.float32)")
    if each.group["weight_decay"] != 0:
        raise RuntimeError(f"weight_decay must be 0 {called}, but is {each.group['weight_decay']}")
    for name, allowed in (
        ("max_grad_norm", (None,)),
        ("ema_decay", (None,)),
        ("master_weights", (False,) if each.param.dtype in NARROW else (False, True, "24bit")),
        ("stochastic_rounding", (False,) if each.param.dtype is torch.bfloat16 else (False, True)),
        ("state_dtype", (None, each.param.dtype)),
    ):
        if extras[name] not in allowed:
            raise RuntimeError(f"{name} must be {allowed[0]} {called}, but is {extras[name]}")
    if scaling.loss_scale is not None or scaling.found_inf is not None:
        raise RuntimeError(
            f"fused and zero_grads must be off {called} under a GradScaler, which can unscale it only before the step"
        )
    if each.group.get("momentum") and each.param.dtype is torch.float16 and each.param.device.type == "cpu":
        raise RuntimeError(f"momentum must be 0 {called} and float16 on a CPU, where PyTorch cannot add two of them")
    if captured:
        raise RuntimeError(f"a CUDA graph cannot capture step() {called}")


def step_sgd(group: dict[str, Any], param: torch.Tensor, state: dict[str, Any]) -> None:
    """The step of ``torch.optim.SGD``, whose momentum becomes a sparse tensor too if it begins with this step."""
    assert param.grad is not None
    buffers = [state.get("momentum_buffer")]
    names = ("weight_decay", "momentum", "lr", "dampening", "nesterov", "maximize")
    settings = {name: group[name] for name in names}
    sgd([param], [param.grad], buffers, has_sparse_grad=True, foreach=False, fused=False, **settings)
    if buffers[0] is not None:
        state["momentum_buffer"] = buffers[0]


def step_adagrad(group: dict[str, Any], param: torch.Tensor, state: dict[str, Any], initial: float) -> None:
    """The step of ``torch.optim.Adagrad``, with a sum that starts from ``initial``."""
    assert param.grad is not None
    if state.get("sum") is None:
        state |= state_of(param, state, Wanted(RULES["adagrad"], ("sum",), initial))
    state.setdefault(STEP, torch.tensor(0.0, device="cpu"))
    settings = {name: group[name] for name in ("lr", "weight_decay", "lr_decay", "eps", "maximize")}
    sums, steps = [state["sum"]], [state[STEP]]
    adagrad([param], [param.grad], sums, steps, has_sparse_grad=True, foreach=False, fused=False, **settings)
