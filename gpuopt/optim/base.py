"""What the optimizers for PyTorch share: how a call of ``step`` becomes launches."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import chain
from typing import Any, ClassVar

import torch

from gpuopt.kernels.rules import Rule
from gpuopt.kernels.schedule import Common
from gpuopt.memory import memory_of
from gpuopt.optim import checkpoint
from gpuopt.optim.clipping import clip, find_inf, sum_squares
from gpuopt.optim.device_step import DeviceStep, Member
from gpuopt.optim.entries import States
from gpuopt.optim.extras import DEFAULTS, Extras, check
from gpuopt.optim.kept import Kept
from gpuopt.optim.param_state import EMA, MASTER, STEP, Wanted, real, resolve_grads, state_of, step_of

Group = dict[str, Any]


class Fused(torch.optim.Optimizer):
    """An optimizer of ``torch.optim`` whose step is gpuopt's. A subclass derives from one of them too.

    Attributes:
        last_grad_norm: Norm of all gradients of the last step with ``max_grad_norm``, before clipping, as a tensor of
            no dimension on their device; None before it. With a loss scale, that of the unscaled gradients. After an
            overflow it may be that of an earlier step, or infinite.
    """

    rule: ClassVar[Rule]

    _for_sparse: ClassVar[str] = ""
    """What to use for sparse gradients."""

    _step_supports_amp_scaling = True  # for torch.amp.GradScaler: step reads grad_scale and found_inf

    backend: str | None
    max_grad_norm: float | None
    error_if_nonfinite: bool
    zero_grads: bool
    ema_decay: float | None
    master_weights: bool
    state_dtype: torch.dtype | None

    last_grad_norm: torch.Tensor | None = None
    _kept: Kept | None = None
    _captured: tuple[Kept, ...] = ()
    _is_averaged: bool = False
    _scheduled: bool = False
    _checked: list[Any] | None = None
    _to_find_inf: torch.Tensor | None = None

    @contextmanager
    def _constructing(self, extras: Extras, **defaults: Any) -> Iterator[None]:
        """Around the constructor of ``torch.optim``: keeps ``extras``, and adds defaults that torch has not."""
        check(extras, type(self).__name__)
        for name, value in (DEFAULTS | extras).items():
            setattr(self, name, value)
        yield
        self.defaults.update(defaults)
        for group in self.param_groups:
            for name, value in defaults.items():
                group.setdefault(name, value)
        self._check_groups()
        self.state = States(self.state)

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step, of every parameter that has a gradient.

        Args:
            closure: Evaluates the model anew and returns the loss.

        Returns:
            The loss, if there is a closure.

        Raises:
            TypeError, ValueError: A tensor cannot be used. Nothing has been written then.
            RuntimeError: No backend can run, or not the one that was asked for, or the norm of the gradients is not
                finite and ``error_if_nonfinite``. Nothing has been written then.
        """
        if self._is_averaged:
            raise RuntimeError("step must not be called inside averaged_weights")
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        with torch.no_grad():
            self._step()
        return loss

    @contextmanager
    def averaged_weights(self) -> Iterator[None]:
        """In this context the parameters are their averages, for evaluation. It takes a copy of the parameters.

        Raises:
            RuntimeError: There is no average yet: ``ema_decay`` is None, or no step has been taken.
        """
        averages = [(p, self.state[p][EMA]) for p in self._params() if EMA in self.state.get(p, ())]
        if self.ema_decay is None or not averages:
            raise RuntimeError("there are no averaged weights: ema_decay must be given, and a step taken")
        if self._is_averaged:
            raise RuntimeError("the averaged weights are in place already")
        originals = [(p, p.detach().clone()) for p, _ in averages]
        self._is_averaged = True
        try:
            _assign(averages)
            yield
        finally:
            _assign(originals)
            self._is_averaged = False

    def state_dict(self) -> dict[str, Any]:
        """As torch's."""
        with checkpoint.plain_state(self):
            return super().state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """As torch's, but state keeps its dtype: it is only moved to its parameter's device."""
        with checkpoint.dtypes_kept(self):
            super().load_state_dict(state_dict)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """As torch's."""
        super().add_param_group(param_group)
        self._kept = None

    def __getstate__(self) -> dict[str, Any]:
        """For copies and pickles: all but the plans, which hold addresses."""
        own = {name: getattr(self, name) for name in (*DEFAULTS, "last_grad_norm", "_scheduled")}
        return {**super().__getstate__(), **own}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        for group in self.param_groups:
            for name, value in self.defaults.items():  # some of which torch's checkpoints have not
                group.setdefault(name, value)
        self.state = States(self.state)
        self._kept = None

    def _has_grads(self) -> bool:
        """Whether a parameter has a gradient."""
        return any(param.grad is not None for param in self._params())

    def _will_find_inf(self, device: torch.device) -> torch.Tensor:
        """Has the next step find out whether a gradient is not finite, and then do nothing.

        Returns:
            A tensor of no dimension on ``device``, which that step sets to 1 if it finds one, else to 0.
        """
        self._to_find_inf = torch.zeros((), dtype=torch.float32, device=device)
        return self._to_find_inf

    def _options(self, group: Group) -> tuple[str, ...]:
        """The optional slots of the rule that a group asks for."""
        return ()

    def _settings(self, group: Group) -> tuple[Any, ...]:
        """A group's values for ``rule.settings``, numbers or tensors of one element."""
        raise NotImplementedError

    def _decoupled(self, group: Group) -> bool:
        """Whether weight decay is decoupled."""
        return False

    def _counts(self, group: Group) -> bool:
        """Whether the state has a step count."""
        return True

    def _initial(self) -> float:
        """What the first slot starts from."""
        return 0.0

    def _params(self) -> Iterator[torch.Tensor]:
        return chain.from_iterable(group["params"] for group in self.param_groups)

    def _check_extras(self) -> None:
        extras = [getattr(self, name) for name in DEFAULTS]
        if extras != self._checked:
            check(dict(zip(DEFAULTS, extras, strict=True)), type(self).__name__)
            self._checked = extras

    def _check_groups(self) -> None:
        for group in self.param_groups:
            if group.get("differentiable"):
                name = type(self).__name__
                raise ValueError(
                    "differentiable must be False, since autograd does not see into a fused step; "
                    f"torch.optim.{name} can be differentiated"
                )

    def _step(self) -> None:
        capturing = self._is_captured()
        self._check_extras()
        to_find_inf, self._to_find_inf = self._to_find_inf, None
        grad_scale = getattr(self, "grad_scale", None)
        found_inf = getattr(self, "found_inf", None) if to_find_inf is None else to_find_inf
        rows = [self._row(group) for group in self.param_groups]
        self._schedule_if_needed(chain.from_iterable(rows), found_inf)
        if to_find_inf is None and self._skips(found_inf):
            return
        kept, self._kept = self._kept, None  # until all is well again
        still_holds = kept is not None and kept.fits(self.param_groups, self._key(), self.state) and kept.take_grads()
        if kept is None or not still_holds:
            if not self._has_grads():
                self._kept = kept
                return
            if capturing:
                raise RuntimeError(
                    "a CUDA graph can capture step() only after one outside of the graph, with gradients for the same "
                    "parameters and of the same strides"
                )
            kept = self._plan(rows)
        if capturing and kept not in self._captured:
            self._captured = (*self._captured, kept)
        for device_step in kept.device_steps:
            device_step.place(rows, grad_scale, found_inf, clipped=self.max_grad_norm is not None)
        if to_find_inf is not None or self.max_grad_norm is not None:
            sums = sum_squares(kept.device_steps)
            if to_find_inf is not None:
                find_inf(kept.device_steps, sums, kept.grads(), to_find_inf)
            if self.max_grad_norm is not None:
                self.last_grad_norm = clip(kept.device_steps, sums, self.max_grad_norm, self.error_if_nonfinite)
        if to_find_inf is not None and self._skips(to_find_inf):
            return  # nothing is kept, copies of gradients and of parameters with gaps least of all
        if not still_holds:
            kept.keep_state()
        for device_step in kept.device_steps:
            device_step.step()
        torch.autograd.graph.increment_version(kept.params)
        if self.zero_grads:
            torch.autograd.graph.increment_version(kept.grads())
        self._kept = kept

    def _skips(self, found_inf: Any) -> bool:
        """Whether the host sees that a step must do nothing, except to zero gradients that are to be zeroed."""
        # Where no parameter has a gradient GradScaler's found_inf is no tensor.
        if self._scheduled or not isinstance(found_inf, torch.Tensor) or found_inf.item() == 0:
            return False
        if self.zero_grads:
            torch._foreach_zero_([param.grad for param in self._params() if param.grad is not None])
        return True

    def _is_captured(self) -> bool:
        """Whether a CUDA graph captures this step, which must be one that can be."""
        if not (torch.cuda.is_initialized() and torch.cuda.is_current_stream_capturing()):  # type: ignore[no-untyped-call]
            return False
        if not all(group.get("capturable") for group in self.param_groups):
            raise RuntimeError(
                f"Attempting CUDA graph capture of step() for an instance of {type(self).__name__} but param_groups' "
                "capturable is False."
            )
        if self.max_grad_norm is not None and self.error_if_nonfinite:
            raise RuntimeError("error_if_nonfinite makes the host wait, which a CUDA graph cannot capture")
        return True

    def _schedule_if_needed(self, settings: Iterable[Any], found_inf: Any) -> None:
        """Has step counts live on the devices from now on where the host cannot know them, or a setting."""
        if not self._scheduled:
            on_gpu = (isinstance(value, torch.Tensor) and value.is_cuda for value in (*settings, found_inf))
            self._scheduled = any(group.get("capturable") for group in self.param_groups) or any(on_gpu)

    def _key(self) -> tuple[Any, ...]:
        """What of groups and attributes a plan depends on, besides tensors."""
        groups = [
            (
                self._options(group),
                self._counts(group),
                bool(group.get("capturable")),
                bool(group.get("differentiable")),
            )
            for group in self.param_groups
        ]
        switches = (self.max_grad_norm is not None, self.ema_decay is not None, self.master_weights)
        extras = (self.backend, self.zero_grads, switches, self._scheduled)
        return groups, extras

    def _row(self, group: Group) -> tuple[Any, ...]:
        """A group's settings in the order of :func:`gpuopt.kernels.schedule.row_at`."""
        common = Common(
            group["lr"],
            group["weight_decay"],
            float(self._decoupled(group)),
            float(group["maximize"]),
            0.0 if self.ema_decay is None else 1 - self.ema_decay,
        )
        return (*common, *self._settings(group))

    def _plan(self, rows: list[tuple[Any, ...]]) -> Kept:
        """Checks everything, makes the state that is missing, and plans a step for each device."""
        self._check_groups()
        if not isinstance(self.state, States):  # somebody has set it
            self.state = States(self.state)
        if self.zero_grads:
            resolve_grads(self._params())
        members = [
            self._member(group, at, param)
            for group, settings in enumerate(self.param_groups)
            for at, param in enumerate(settings["params"])
            if param.grad is not None
        ]
        for index, member in enumerate(members):
            member.index = index
            is_on_gpu = isinstance(member.count, torch.Tensor) and member.count.is_cuda
            self._scheduled = self._scheduled or (is_on_gpu and member.param.is_cuda)
        device_steps = [
            DeviceStep(
                self.rule,
                [member for member in members if member.param.device == device],
                self.backend,
                zero_grads=self.zero_grads,
                scheduled=self._scheduled,
                replayed=any(group.get("capturable") for group in self.param_groups),
            )
            for device in dict.fromkeys(member.param.device for member in members)
        ]
        for device_step in device_steps:
            device_step.prepare(rows)
        return Kept(members, device_steps, self.param_groups, self._key(), self.state, self.zero_grads)

    def _member(self, index: int, at: int, param: torch.Tensor) -> Member:
        """A parameter with its gradient, and its state, which is made if need be but not yet kept."""
        group = self.param_groups[index]
        name = f"{at} of group {index}"
        if "param_names" in group:
            name += f" ({group['param_names'][at]!r})"
        grad = param.grad
        assert grad is not None
        if grad.is_sparse:
            advice = f", please consider {self._for_sparse} instead" if self._for_sparse else ""
            raise RuntimeError(f"{type(self).__name__} does not support sparse gradients{advice} (grad {name})")
        if param.is_conj():
            raise ValueError(f"param {name} must not be a view that conjugates, but is one: call resolve_conj()")
        memory_of(real(param.detach()), f"param {name}")
        slots = tuple(slot for slot in self.rule.slots if slot in (*self.rule.required, *self._options(group)))
        wanted = Wanted(slots, self._initial(), self.state_dtype, self.master_weights, self.ema_decay is not None)
        old = self.state.get(param, {})
        state = state_of(param, old, wanted)
        return Member(
            name,
            index,
            at,
            param,
            grad,
            state,
            slots,
            step_of(old, slots),
            self._counts(group) or STEP in old,
            average=wanted.average,
            master=self.master_weights and MASTER in state,
        )


def _assign(pairs: Iterable[tuple[torch.Tensor, torch.Tensor]]) -> None:
    """Puts the values of each second tensor into the first."""
    with torch.no_grad():
        for to, source in pairs:
            to.copy_(source)
