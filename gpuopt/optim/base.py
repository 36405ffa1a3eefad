"""What the optimizers for PyTorch share: what torch.optim promises, and the way of a step."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from itertools import chain
from operator import attrgetter
from threading import get_ident
from typing import Any, ClassVar, Literal, TypeVar, cast, overload

import torch

from gpuopt import backends
from gpuopt.eight_bit import EightBit
from gpuopt.kernels.rules import Rule
from gpuopt.kernels.schedule import Common
from gpuopt.optim import checkpoint, sparse
from gpuopt.optim.extras import DEFAULTS, NAMES, TORCHS, check, check_group, check_params, is_flat, rounds_state
from gpuopt.optim.member import Recipe
from gpuopt.optim.norm import Read, check_finite, clip, read, tell_overflow, total, unscale
from gpuopt.optim.originals import NARROW, drop_if_written, values_of
from gpuopt.optim.processes import Processes
from gpuopt.optim.rows import Rows
from gpuopt.optim.selection import Scaling, Selection, Settings
from gpuopt.optim.settings import SWITCHES, check_number, check_switch, names_of
from gpuopt.optim.shards import increment_versions, is_shard, local, placed_grad, reshard_modules, versions_of
from gpuopt.optim.state import EMA, STEP
from gpuopt.watched import Entries, States

Group = dict[str, Any]

_extras_of = attrgetter(*DEFAULTS)


_Loss = TypeVar("_Loss")
_Method = TypeVar("_Method", bound=Callable[..., Any])


def _outside_of_graphs(method: _Method) -> _Method:
    """``method``, which ``torch.compile`` calls as it is instead of compiling it."""
    reason = "the optimizers of gpuopt launch kernels of their own"
    return cast(_Method, torch.compiler.disable(method, reason=reason))  # type: ignore[no-untyped-call]


class Fused(torch.optim.Optimizer):
    """An optimizer for PyTorch whose step is gpuopt's.

    A subclass names its ``rule``, and has ``_settings`` and what else differs from here say how a group becomes the
    rule's settings. Inside :meth:`_constructing` it calls the constructor of a class of ``torch.optim``, from which it
    then derives too, or that of this class, with parameters and a dict of defaults: the settings of groups, with
    ``lr``, ``weight_decay`` and ``maximize`` among them.

    Attributes:
        last_grad_norm: Norm of all gradients of the last step with ``max_grad_norm``, those of other processes that
            hold a part of the model among them, before clipping, as a tensor of no dimension; None before it. With a
            loss scale, that of the unscaled gradients. After an overflow it may be that of an earlier step, or
            infinite.
    """

    rule: ClassVar[Rule]

    _for_sparse: ClassVar[str] = ""
    """What to use for sparse gradients."""

    _takes_sparse: ClassVar[bool] = False
    """Whether there is :meth:`_step_sparse`."""

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

    last_grad_norm: torch.Tensor | None = None
    _unsaid: dict[str, Any]
    _rows: Rows | None = None
    _captured: tuple[Selection, ...] = ()
    _stepping: dict[str, int]
    _is_averaged: bool = False
    _is_torn: bool = False
    _scheduled: bool = False
    _checked: tuple[Any, ...] | None = None
    _agreed: tuple[Any, ...] | None = None
    """Settings that are known to be those of all processes that hold the model."""
    _to_find_inf: torch.Tensor | None = None
    _is_told: bool = False
    """Whether gpuopt's own scaler is about to call step."""

    @contextmanager
    def _constructing(self, options: Mapping[str, Any], **defaults: Any) -> Iterator[dict[str, Any]]:
        """Around the constructor of the base, for which it gives those of ``options`` that are no extras.

        ``defaults`` are options of groups that the base has not, with their defaults.
        """
        own = set(defaults)
        extras = {name: value for name, value in options.items() if name not in TORCHS | own}
        check(extras, type(self).__name__, self.rule)
        for name, value in {**DEFAULTS, **extras}.items():
            setattr(self, name, value)
        self._unsaid = {name: value for name, value in DEFAULTS.items() if name not in extras}
        self._stepping = {}
        # What is at its default is in no group, as in those of torch, whose checkpoints have not got it.
        defaults = {name: options[name] for name in defaults if options.get(name, defaults[name]) != defaults[name]}
        yield {name: value for name, value in options.items() if name in TORCHS - own}
        self.defaults.update(defaults)
        for group in self.param_groups:
            for name, value in defaults.items():
                group.setdefault(name, value)
        self._recipe()
        check_params(self._params(), self._extras())
        self.state = States(self.state)

    @property
    def _step_supports_amp_scaling(self) -> bool:
        """Whether ``torch.amp.GradScaler`` leaves gradients as they are, and ``grad_scale`` and ``found_inf`` to us.

        As in torch's classes, where they are fused. That scaler does not call ``step`` at all after an overflow
        otherwise, where ``zero_grads`` would be left undone, and other processes would wait for this one. Flat shards
        have a scaler of their own, which does not call it in any of them.
        """
        return (
            self._is_told
            or self.zero_grads
            or any(group.get("fused") for group in self.param_groups)
            or (any(map(is_shard, self._params())) and self._processes().has_copies)
            or (self.norm_group is not None and not any(map(is_flat, self._params())))
        )

    @_step_supports_amp_scaling.setter
    def _step_supports_amp_scaling(self, _: bool) -> None:
        """Torch's constructors set what the groups say anyway."""

    @overload
    def step(self, closure: None = None) -> None: ...

    @overload
    def step(self, closure: Callable[[], _Loss]) -> _Loss: ...

    @_outside_of_graphs
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step, of every parameter that has a gradient.

        Args:
            closure: Evaluates the model anew and returns the loss.

        Returns:
            The loss, if there is a closure.

        Raises:
            TypeError, ValueError: A tensor cannot be used. Nothing has been written then.
            RuntimeError: No backend can run, or not the one that was asked for, or the norm of the gradients is not
                finite and ``error_if_nonfinite``, or another thread is in a step, or an earlier one was interrupted
                while it wrote. Nothing has been written then.
        """
        if self._is_averaged:
            raise RuntimeError("step must not be called inside averaged_weights")
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        me = get_ident()
        try:  # Ctrl-C may come between any two of these, after which a lock would stay taken
            if self._stepping.setdefault("thread", me) != me:
                raise RuntimeError("step must not be called while another thread is in a step of the same optimizer")
            with torch.no_grad():
                self._step()
        finally:
            if self._stepping.get("thread") == me:
                self._stepping.clear()
        return loss

    @contextmanager
    def averaged_weights(self) -> Iterator[None]:
        """In this context the parameters are their averages, for evaluation. It takes a copy of the parameters.

        Modules of FSDP2 gather them anew, when it begins and when it has ended.

        Raises:
            RuntimeError: There is no average yet: ``ema_decay`` is None, or no step has been taken. Or parameters are
                those of ``FullyShardedDataParallel``.
        """
        if any(map(is_flat, self._params())):
            raise RuntimeError(
                "averaged_weights must not be called for parameters that FullyShardedDataParallel has flattened, since "
                "its outermost module goes on with what it has gathered: use fully_shard, or read ema from the state"
            )
        states = [(p, self.state.get(p, {})) for p in self._params()]
        averages = [(p, dict.__getitem__(state, EMA)) for p, state in states if EMA in state]
        if self.ema_decay is None or not averages:
            raise RuntimeError("there are no averaged weights: ema_decay must be given, and a step taken")
        if self._is_averaged:
            raise RuntimeError("the averaged weights are in place already")
        originals = [(p, local(p).detach().clone()) for p, _ in averages]
        untouched = [
            (p, state) for p, state in states if isinstance(state, Entries) and state.versions == versions_of(p)
        ]
        self._is_averaged = True
        try:
            _assign(averages)
            yield
        finally:
            _assign(originals)
            for p, state in untouched:
                state.versions = versions_of(p)
            self._is_averaged = False

    def master_weight(self, param: torch.Tensor) -> torch.Tensor:
        """What is stepped and ``param`` is rounded from, with ``master_weights``, as a new tensor of float32.

        Of a parameter without, as one that was never stepped, its own values.
        """
        drop_if_written(param, self.state.get(param))
        whole = param.detach().to(torch.float32 if param.dtype in NARROW else param.dtype, copy=True)
        local(whole).copy_(values_of(param, self.state.get(param, {})))
        return whole

    def add_param_group(self, param_group: Group) -> None:
        """As torch's.

        Raises:
            TypeError, ValueError: As torch's, or a setting is no number, or an extra is among them, of which there is
                one for all groups.
        """
        if isinstance(param_group, dict):
            index = len(self.param_groups)
            check_group(param_group, self._extras(), index)
            group = {**self.defaults, **param_group}
            for name in SWITCHES & set(group):
                check_switch(group[name], f"{name} of group {index}")
            for name, value in zip(names_of(self.rule), self._row(group), strict=True):
                check_number(value, f"{name} of group {index}")
        super().add_param_group(param_group)

    def state_dict(self) -> dict[str, Any]:
        """As torch's, with those extras in every group that are not at their defaults, but for ``backend``."""
        self._drop_what_was_written()
        with checkpoint.saving(self):
            return super().state_dict()

    def state_dict_as(self, dtype: torch.dtype) -> dict[str, Any]:
        """As :meth:`state_dict`, but where state is in 8 bits with tensors of ``dtype``, as ``torch.optim`` has them.

        Both load it, gpuopt into 8 bits again where these are asked for.

        Raises:
            ValueError: It is another dtype than float32, float64 and bfloat16, which have room for squares.
        """
        if dtype not in (torch.float32, torch.float64, torch.bfloat16):
            raise ValueError(f"dtype must be torch.float32, torch.float64 or torch.bfloat16, but is {dtype!r}")
        self._drop_what_was_written()
        with checkpoint.saving(self, dtype):
            return super().state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """As torch's, but state keeps its dtype: it is only moved to its parameter's device.

        Extras are what they were when the state dict was made, unless the constructor was given another value, or the
        attribute was set to one since: that stays, and is warned of.

        Raises:
            ValueError: It is of another rule, or state is incomplete, or it does not fit the groups. Nothing has
                changed then.
        """
        with checkpoint.loading(self):
            super().load_state_dict(state_dict)
        self._is_torn = False

    def __repr__(self) -> str:
        """As torch's, with the extras, and which backend steps."""
        extras = self._extras()
        used = sorted({name for name in self._backends() if name != self.backend})
        extras["backend"] = f"{self.backend}" + f" ({', '.join(used)})" * bool(used)
        lines = "".join(f"    {name}: {value}\n" for name, value in sorted(extras.items()))
        return super().__repr__().removesuffix(")") + f"\nAll groups\n{lines})"

    def __getstate__(self) -> dict[str, Any]:
        """For copies and pickles: all but the plans, which hold addresses.

        Raises:
            TypeError: There is a ``norm_group``, which cannot be copied.
        """
        if self.norm_group is not None:
            raise TypeError("norm_group must be None for copies and pickles of an optimizer: use its state_dict")
        self._drop_what_was_written()
        own = {name: getattr(self, name) for name in ("last_grad_norm", "_scheduled", "_is_torn")}
        return {**super().__getstate__(), **self._extras(), **own, "_unsaid": dict(self._unsaid)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        for name, value in DEFAULTS.items():  # of a pickle from before there was one of them
            self.__dict__.setdefault(name, value)
        for group in self.param_groups:
            for name, value in self.defaults.items():  # some of which torch's checkpoints have not
                group.setdefault(name, value)
        self.state = States(self.state)
        self._stepping = {}
        if "_unsaid" not in self.__dict__:  # of a pickle from before there was this
            extras = self._extras()
            self._unsaid = {name: default for name, default in DEFAULTS.items() if extras[name] == default}

    def _drop_what_was_written(self) -> None:
        """Drops the remainders of parameters that others have written to, before anything is made of them."""
        for param in self._params():
            drop_if_written(param, self.state.get(param))

    def _has_sparse_grads(self) -> bool:
        """Whether the gradient of a parameter is sparse, and that is no error."""
        return self._takes_sparse and any(p.grad is not None and p.grad.is_sparse for p in self._params())

    def _has_grads(self) -> bool:
        """Whether a parameter has a gradient."""
        return any(param.grad is not None for param in self._params())

    def _processes(self) -> Processes:
        """Those that hold the model."""
        if self._rows is not None and self._rows.fit(self.param_groups, self._recipe(), self.state):
            return self._rows.processes
        return self._new_processes()

    def _new_processes(self) -> Processes:
        return Processes(list(dict.fromkeys(self._params())), self.norm_group)

    def _has_wide_params(self) -> bool:
        """Whether a parameter is of float64, or of pairs of them."""
        return any(param.dtype in (torch.float64, torch.complex128) for param in self._params())

    @property
    def _is_shared(self) -> bool:
        """Whether other processes hold a part of the model, or may."""
        return self.norm_group is not None or any(map(is_shard, self._params()))

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

    def _step_sparse(self, group: Group, param: torch.Tensor, state: dict[str, Any]) -> None:
        """Steps a parameter whose gradient is sparse, and fills its state."""
        raise NotImplementedError

    def _counts(self, group: Group) -> bool:
        """Whether the state has a step count."""
        return True

    def _initial(self) -> float:
        """What the first slot starts from."""
        return 0.0

    def _params(self) -> Iterator[torch.Tensor]:
        return chain.from_iterable(group["params"] for group in self.param_groups)

    def _backends(self) -> Iterator[str]:
        """For each kind of device that holds parameters, the backend that steps there."""
        for device in sorted({param.device.type for param in self._params()}):
            try:
                yield backends.choose(device, self.backend, prefer="triton").name
            except (RuntimeError, ValueError):
                yield f"none on {device}"

    def _check_extras(self) -> None:
        values = _extras_of(self)
        for index, group in enumerate(self.param_groups):
            if not NAMES.isdisjoint(group):
                check_group(group, self._extras(), index)
        if values != self._checked:
            extras = self._extras()
            check(extras, type(self).__name__, self.rule)
            check_params(self._params(), extras)
            self._checked = values

    def _extras(self) -> dict[str, Any]:
        return dict(zip(DEFAULTS, _extras_of(self), strict=True))

    def _step(self) -> None:
        """The way of a step."""
        waiting = self.max_grad_norm is not None or self._to_find_inf is not None or hasattr(self, "found_inf")
        with self._others_waiting(waiting):
            self._check_extras()
            captured = self._is_captured()
            scaling = self._take_scaling()
            settings = [self._row(group) for group in self.param_groups]
            self._schedule_if_needed(settings, scaling)
            rows, self._rows = self._rows_that_fit(), None  # until all is well again
            selections = rows.select(captured)
            self._check_sparse(rows, scaling, captured)
            if scaling.is_there and not self._is_told:
                rows.processes.check_scaler()
            if captured:
                self._captured += tuple(each for each in selections if each not in self._captured)
            for selection in selections:
                selection.place(settings, scaling, clipped=self.max_grad_norm is not None)
            for selection in selections:
                selection.renew_originals()
            own = self._read_grads(selections, rows.processes, scaling)
        if own is not None:
            self._find_norm(selections, rows.processes, scaling, own, captured)
        self._launch(selections, rows)
        # State that was made for a step that did nothing may not fit what comes next.
        self._rows = None if rows.new else rows

    @contextmanager
    def _others_waiting(self, waiting: bool = True) -> Iterator[None]:
        """In this context a failure is made known to other processes that hold the model, where they wait for this."""
        try:
            yield
        except Exception:
            if waiting and not _is_capturing():
                with suppress(Exception):  # the first error is the one to be seen
                    processes = self._new_processes()
                    if processes:
                        self._place_grads()  # as the others do, some of which may take a collective
                        processes.agree(None, failed=True)
            raise

    def _place_grads(self) -> None:
        """Has gradients of DTensors placed as those are, as far as they can be."""
        for param in dict.fromkeys(self._params()):
            if is_shard(param) and param.grad is not None:
                with torch.no_grad(), suppress(TypeError, ValueError):
                    placed_grad(param, "")

    def _take_scaling(self) -> Scaling:
        """What a gradient scaler has left, which is for this step alone."""
        to_find, self._to_find_inf = self._to_find_inf, None
        found_inf = getattr(self, "found_inf", None) if to_find is None else to_find
        if not isinstance(found_inf, torch.Tensor):  # as GradScaler's is where no parameter has a gradient
            found_inf = None
        is_there = to_find is not None or hasattr(self, "found_inf")
        return Scaling(getattr(self, "grad_scale", None), found_inf, to_find is not None, is_there)

    def _rows_that_fit(self) -> Rows:
        """Those of the last step, or new ones where parameters, state as a whole, or options are others."""
        recipe = self._recipe()
        if self._rows is not None and self._rows.fit(self.param_groups, recipe, self.state):
            return self._rows
        if self._is_torn:
            raise RuntimeError(
                "an earlier step was interrupted while it wrote, so parameters and state may be between two steps: "
                "load a checkpoint, or call load_state_dict(state_dict()) to go on with them as they are"
            )
        check_params(self._params(), self._extras())
        if not isinstance(self.state, States):  # somebody has set it
            self.state = States(self.state)
        counts = ((param, dict.get(state, STEP)) for param, state in self.state.items())
        if any(isinstance(count, torch.Tensor) and count.is_cuda and param.is_cuda for param, count in counts):
            self._scheduled = True
            recipe = self._recipe()
        return Rows(self.param_groups, recipe, self.state)

    def _check_sparse(self, rows: Rows, scaling: Scaling, captured: bool) -> None:
        """Refuses what parameters cannot have whose gradients are sparse."""
        extras = self._extras() if rows.sparse else {}
        for each in rows.sparse:
            sparse.check(each, self.rule, self.state.get(each.param, {}), extras, scaling, captured)

    def _read_grads(self, selections: list[Selection], processes: Processes, scaling: Scaling) -> Read | None:
        """Reads the gradients once, where a norm or an overflow is to be found; None where nothing is to be known."""
        if (selections or processes) and (scaling.is_to_be_found or self.max_grad_norm is not None):
            return read(selections, processes.sums, scaling)
        return Read([], scaling.found_inf) if processes and scaling.is_there else None

    def _find_norm(
        self, selections: list[Selection], processes: Processes, scaling: Scaling, own: Read, captured: bool
    ) -> None:
        """Ends the norm of what all processes have read, and has all know of an overflow."""
        sums, overflow = own.parts[0] if own.parts else [], own.overflow
        if processes:
            sums, overflow = self._agree(processes, scaling, own, captured)
        if overflow is not None and (processes or scaling.is_to_be_found):
            tell_overflow(selections, scaling, overflow)
        if self.max_grad_norm is not None:
            outcome = clip(selections, sums, self.max_grad_norm, scaling)
            is_wide = any(each.is_wide for each in selections) if selections else self._has_wide_params()
            norm = (outcome.wide if is_wide else outcome.narrow)[0]
            if self.error_if_nonfinite:
                check_finite(norm, overflow)
            self.last_grad_norm = norm

    def _agree(
        self, processes: Processes, scaling: Scaling, own: Read, captured: bool
    ) -> tuple[list[torch.Tensor], torch.Tensor]:
        """The sum of squares, and whether there is an overflow, of all processes together.

        On a GPU the host looks whether they agree on all else where it waits for the norm anyway, where settings are
        new, and where a scaler is not gpuopt's.
        """
        settings = self.max_grad_norm, self.error_if_nonfinite, scaling.is_to_be_found
        overflow = 0.0 if own.overflow is None else own.overflow != 0
        agreed = processes.agree(settings, [total(part) for part in own.parts], overflow)
        is_foreign = scaling.is_there and not self._is_told
        looks = self.error_if_nonfinite or is_foreign or agreed.is_on_host or self._agreed != settings
        if looks and not captured:
            agreed.check(f"max_grad_norm ({self.max_grad_norm}), error_if_nonfinite and scaler")
            if is_foreign:
                agreed.check_scaler()
            self._agreed = settings
        return [agreed.squares.reshape(1)], agreed.overflow != 0

    def _unscale(self, inverse_scale: torch.Tensor, found_inf: torch.Tensor, allow_fp16: bool) -> torch.Tensor:
        """Multiplies gradients by ``inverse_scale``; whether one is not finite, in any process that holds the model."""
        with self._others_waiting():
            found = unscale(list(dict.fromkeys(self._params())), inverse_scale, found_inf, allow_fp16)
        agreed = self._processes().agree("unscale", overflow=found)
        if agreed.is_on_host:
            agreed.check("unscale_")
        return (agreed.overflow != 0).to(found)

    def _launch(self, selections: list[Selection], rows: Rows) -> None:
        """Steps everything, and lets the optimizer have state that is new, unless an overflow is known to the host."""
        self._is_torn = True
        for each in rows.sparse:  # first, since torch may know no arithmetic for them
            self._launch_sparse(each)
        if not (selections and selections[0].skips):
            rows.keep_state()
        bystanders = rows.bystanders() if self.master_weights and not rows.is_whole else []
        for selection in selections:
            selection.step()
        for member in bystanders:
            member.keep_versions()
        self._is_torn = False

    def _launch_sparse(self, each: sparse.Sparse) -> None:
        """Steps a parameter whose gradient is sparse, by torch."""
        state = self.state.get(each.param, {})
        known = set(state)
        self._step_sparse(each.group, each.param, state)
        if not known and state:
            dict.__setitem__(self.state, each.param, state)
        if self.zero_grads and each.param.grad is not None:
            each.param.grad.zero_()

    def _is_captured(self) -> bool:
        """Whether a CUDA graph captures this step, which must be one that can be."""
        if not _is_capturing():
            return False
        if not all(group.get("capturable") for group in self.param_groups):
            raise RuntimeError(
                f"Attempting CUDA graph capture of step() for an instance of {type(self).__name__} but param_groups' "
                "capturable is False."
            )
        if self.max_grad_norm is not None and self.error_if_nonfinite:
            raise RuntimeError("error_if_nonfinite makes the host wait, which a CUDA graph cannot capture")
        return True

    def _schedule_if_needed(self, settings: Settings, scaling: Scaling) -> None:
        """Has step counts live on the devices from now on where the host cannot know them, or a setting."""
        if not self._scheduled:
            scalars = (*chain.from_iterable(settings), scaling.found_inf)
            self._scheduled = any(group.get("capturable") for group in self.param_groups) or any(
                isinstance(scalar, torch.Tensor) and scalar.is_cuda for scalar in scalars
            )

    def _recipe(self) -> Recipe:
        """What rows are made by."""
        for group in self.param_groups:
            if group.get("differentiable"):
                raise ValueError(
                    "differentiable must be False, since autograd does not see into a fused step; "
                    f"torch.optim.{type(self).__name__} can be differentiated"
                )
        storage = self.state_dtype, self.master_weights, self.stochastic_rounding
        extras = self.backend, self.zero_grads, *storage, self.norm_group
        averages = self.ema_decay is not None
        capturable = any(group.get("capturable") for group in self.param_groups)
        slots = tuple([(*self.rule.required, *self._options(group)) for group in self.param_groups])
        counts = tuple([self._counts(group) for group in self.param_groups])
        own = self.rule, type(self).__name__, self._for_sparse, self._takes_sparse
        return Recipe._make((*own, *extras, averages, self._initial(), self._scheduled, capturable, slots, counts))

    def _row(self, group: Group) -> tuple[Any, ...]:
        """A group's settings in the order of :func:`gpuopt.kernels.schedule.row_at`."""
        average_weight = 0.0 if self.ema_decay is None else 1 - self.ema_decay
        switches = float(self._decoupled(group)), float(group["maximize"])
        seed = float(self.seed) if rounds_state(self.stochastic_rounding, self.state_dtype) else -1.0
        return (*Common(group["lr"], group["weight_decay"], *switches, average_weight, seed), *self._settings(group))


def _assign(pairs: Sequence[tuple[torch.Tensor, torch.Tensor]]) -> None:
    """Puts the values of each second tensor into the first, and has modules know that hold a copy of it."""
    are_sharded = any(is_shard(to) for to, _ in pairs)
    if are_sharded and _has_cuda():  # copies of offloaded parameters to a GPU may still go on
        torch.cuda.synchronize()
    with torch.no_grad():
        for to, source in pairs:
            local(to).detach().copy_(local(source))
    increment_versions([to for to, _ in pairs], are_sharded)
    if are_sharded:
        reshard_modules()


def _has_cuda() -> bool:
    """Whether CUDA is in use."""
    return bool(torch.cuda.is_initialized())  # type: ignore[no-untyped-call]


def _is_capturing() -> bool:
    """Whether a CUDA graph is being captured."""
    return _has_cuda() and torch.cuda.is_current_stream_capturing()
