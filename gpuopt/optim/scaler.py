"""Loss scaling whose search for an overflow only reads the gradients."""

from __future__ import annotations

from typing import Any

import torch

from gpuopt.optim.base import Fused


class GradScaler(torch.amp.GradScaler):
    """``torch.amp.GradScaler``, which spares the optimizers of gpuopt a pass over their gradients.

    Torch's own ``step`` reads and writes every gradient to find out whether one is not finite, before it calls the
    optimizer. This one leaves that to the optimizer's pass that sums the squares of the gradients, which only reads,
    and which ``max_grad_norm`` needs anyway. Where a model is held by several processes, as DTensors or by a
    ``norm_group``, it has all of them know of an overflow in any, so that they skip the step and scale alike.
    Arguments, checkpoints and all else are torch's, and so are the results: other optimizers, gradients that were
    unscaled by ``unscale_``, and the scale itself are treated as ever.
    """

    def step(self, optimizer: torch.optim.Optimizer, *args: Any, **kwargs: Any) -> float | None:
        """As torch's."""
        if not isinstance(optimizer, Fused) or optimizer._has_sparse_grads():
            return super().step(optimizer, *args, **kwargs)
        optimizer._is_told = True
        try:
            return super().step(optimizer, *args, **kwargs)
        except BaseException:
            for name in ("grad_scale", "found_inf"):  # which torch would leave for whatever step comes next
                optimizer.__dict__.pop(name, None)
            raise
        finally:
            optimizer._is_told, optimizer._to_find_inf = False, None  # the step may have failed before it looked

    def _check_inf_per_device(self, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
        scale = self._scale
        finds = isinstance(optimizer, Fused) and optimizer._is_told and (optimizer._has_grads() or optimizer._is_shared)
        if not (isinstance(optimizer, Fused) and finds) or scale is None:
            return super()._check_inf_per_device(optimizer)
        found: dict[Any, torch.Tensor] = {scale.device: optimizer._will_find_inf(scale.device)}
        self._per_optimizer_states[id(optimizer)]["found_inf_per_device"] = found
        return found

    def _unscale_grads_(
        self, optimizer: torch.optim.Optimizer, inv_scale: torch.Tensor, found_inf: torch.Tensor, allow_fp16: bool
    ) -> dict[torch.device, torch.Tensor]:
        if not (isinstance(optimizer, Fused) and optimizer._is_shared):
            return super()._unscale_grads_(optimizer, inv_scale, found_inf, allow_fp16)
        return {found_inf.device: optimizer._unscale(inv_scale, found_inf, allow_fp16)}
