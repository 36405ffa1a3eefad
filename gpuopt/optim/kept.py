"""What a step keeps for the next, and how it finds out in little time whether that still holds."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from operator import is_, itemgetter
from typing import Any

import torch

from gpuopt.optim.device_step import DeviceStep, Member
from gpuopt.optim.entries import Entries, Notice, States
from gpuopt.optim.grads import Grads, GradsByC, GradsByPython
from gpuopt.optim.layouts import Layouts
from gpuopt.optim.param_state import STEP

_params_of = itemgetter("params")


class Kept:
    """Steps for each device, and what they were planned for.

    Made from ``members``, all that is stepped; ``groups``, the optimizer's; ``key``, what else the plan depends on;
    ``state``, the optimizer's; and ``zero_grads``, whether gradients are set to zero.

    Parameters are known by identity and layout, state by address and by the notice that its dicts give. Gradients,
    which are not kept alive, are known by address, and unless they are the very objects of the last step, by dtype and
    strides: PyTorch itself sees to it that a new gradient has the shape and the device of its parameter.

    Attributes:
        device_steps: A step for each device.
        params: The parameters that are stepped, those that have a gradient.
    """

    def __init__(
        self,
        members: Sequence[Member],
        device_steps: Sequence[DeviceStep],
        groups: Sequence[dict[str, Any]],
        key: Any,
        state: States,
        zero_grads: bool,
    ) -> None:
        self.device_steps = device_steps
        self.params = [member.param for member in members]
        self._all_params = list(chain.from_iterable(map(_params_of, groups)))
        self._lengths = list(map(len, map(_params_of, groups)))
        self._without_grad = [param for param in self._all_params if param.grad is None]
        self._key = key
        self._state = state
        self._notice = state.notice = Notice()
        self._stateful = [member.param for member in members if member.state]
        self._stateless = [member.param for member in members if not member.state]
        self._states = [Entries(member.state, self._notice) for member in members if member.state]
        # The counts are views into memory of ours, so that only the others can be elsewhere.
        entries = [
            entry
            for state in self._states
            for name, entry in state.items()
            if name != STEP and isinstance(entry, torch.Tensor)
        ]
        self._layouts = Layouts(self.params, entries)
        needs_grads = any(map(torch.is_complex, self.params)) or any(step.plans.packs_grads for step in device_steps)
        c = self._layouts.c
        self._grads: Grads = (
            GradsByPython(self.params, needs_grads, zero_grads)
            if c is None or needs_grads
            else GradsByC(self.params, c, self._layouts.handles[: len(self.params)])
        )

    def keep_state(self) -> None:
        """Gives the optimizer the state that was made for the step, once nothing stands in the way of it."""
        for param in self._stateless:
            self._state.pop(param, None)
        self._state.update(zip(self._stateful, self._states, strict=True))
        self._notice.changed = False

    def fits(self, groups: Sequence[dict[str, Any]], key: Any, state: Any) -> bool:
        """Whether parameters and state are those that the steps were planned for, where they were."""
        return (
            list(map(len, map(_params_of, groups))) == self._lengths
            and key == self._key
            and state is self._state
            and not self._notice.changed
            and all(map(is_, chain.from_iterable(map(_params_of, groups)), self._all_params))
            and self._layouts.same()
        )

    def grads(self) -> list[torch.Tensor]:
        """The gradients that there are now."""
        return [param.grad for param in self.params if param.grad is not None]

    def take_grads(self) -> bool:
        """Takes the gradients of this step; False where they are not of the same parameters, or lie otherwise."""
        if any(param.grad is not None for param in self._without_grad):
            return False
        return self._grads.take(self.device_steps)
