"""Optimizers for dicts of NumPy or CuPy arrays, and one step as a function.

    optimizer = gpuopt.arrays.Adam(lr=0.001)
    optimizer.update(params, grads)

Both dicts go from names to arrays; parameters are updated in place. State is made as zeros at the first update.
Every class takes, besides its own arguments, those of :class:`Common`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from math import inf
from types import MappingProxyType
from typing import Any, ClassVar, NamedTuple, TypedDict, Unpack

import numpy as np
from numpy.typing import DTypeLike

from gpuopt import array_codes, backends, checkpoint
from gpuopt.eight_bit import BITS, EightBit, check_rule, is_8bit
from gpuopt.kernels.formats import BY_DTYPE
from gpuopt.kernels.prologue import Prologue, prologue_at
from gpuopt.kernels.random import check_seed, key_at
from gpuopt.kernels.rules import RULES, Rule, adagrad, adam, rmsprop, sgd
from gpuopt.kernels.variant import hyper_row, slots_of
from gpuopt.memory import axes_of, copy_of, full_like, library_of, memory_of, moved_to
from gpuopt.plan import Selection, Tensor, in_model, select_all, stored
from gpuopt.seen import Seen

__all__ = ["NAG", "SGD", "AdaGrad", "Adam", "AdamW", "Momentum", "Optimizer", "RMSProp", "step"]


class Options(TypedDict, total=False):
    """Keywords that every class takes.

    Attributes:
        maximize: Whether to go up the gradient.
        state_dtype: Dtype of the state that is made from now on; None for each parameter's own. With bfloat16 it is
            rounded stochastically, as it would stand still otherwise. With ``"8bit"`` so are 8 bits, beside a float32
            for every 128 of them that follow each other in memory, as ``exp_avg_codes`` and ``exp_avg_scales``, and so
            on; state that is there already is converted, to 8 bits and, with anything else, back. Not for AdaGrad.
        stochastic_rounding: Whether bfloat16 parameters and state are rounded stochastically, so that the mean of what
            is stored is the value, and small updates add up.
        seed: Of stochastic rounding, a whole number below 2^32. Random bits go by the order in which names came.
        backend: ``"numpy"``, ``"numba"``, ``"cupy"`` or ``"triton"``; None for the fastest that serves the arrays.
    """

    maximize: bool
    state_dtype: DTypeLike | EightBit | None
    stochastic_rounding: bool
    seed: int
    backend: str | None


LATER: dict[str, Any] = {"stochastic_rounding": False, "seed": 0}
"""Settings of every class that older checkpoints have not, with their defaults."""


class Common(Options, total=False):
    """Also ``weight_decay``: coupled, that is, added to the gradient; decoupled in :class:`AdamW`."""

    weight_decay: float


class Optimizer:
    """What the optimizers share: state, checks, plans and checkpoints.

    Settings are attributes and may be changed between updates, as ``optimizer.lr = 0.1``.

    Attributes:
        iter: Number of updates so far.
        choice: The backend of the last update and why it was picked; None before the first.
    """

    rule: ClassVar[Rule]
    settings: ClassVar[tuple[str, ...]] = ("lr", "weight_decay", "maximize")
    fractions: ClassVar[tuple[str, ...]] = ()
    """Those settings that must be in [0, 1). Every other number must be finite and at least 0."""
    switches: ClassVar[tuple[str, ...]] = ("maximize",)
    """Those settings that are on or off."""

    def __init__(self, lr: float, **common: Unpack[Common]) -> None:
        for name in common:
            if name not in Common.__annotations__:
                raise TypeError(f"{type(self).__name__}() got an unexpected keyword argument {name!r}")
        self.lr = lr
        self.weight_decay = common.get("weight_decay", 0.0)
        self.maximize = common.get("maximize", False)
        self.state_dtype = common.get("state_dtype")
        self.stochastic_rounding = common.get("stochastic_rounding", False)
        self.seed = common.get("seed", 0)
        self.backend = common.get("backend")
        self.iter = 0
        self._state: dict[str, dict[str, Any]] = {}
        self.choice: backends.Choice | None = None
        self._kept: _Kept | None = None

    def update(self, params: Mapping[str, Any], grads: Mapping[str, Any]) -> None:
        """One step, in place.

        A name that comes later starts from new state but takes part in the count: its first step is that of ``iter``.
        State of an option that is switched off is dropped.

        Args:
            params: Arrays by name, of float32, float64, float16 or bfloat16 and of any shape and strides.
            grads: For each name the gradient, of the same shape and in the same memory. It is only read.

        Raises:
            TypeError, ValueError: An argument cannot be used. Nothing has been written then.
            RuntimeError: No backend can run, or not the one that was asked for. Nothing has been written then.
        """
        self._check_settings()
        step = self.iter + 1
        seed = self.seed if self._rounds_state() else -1
        row = hyper_row(self._prologue(), self._hyper(step), key=key_at(step, seed))  # type: ignore[arg-type]
        # A mapping may make its arrays when asked: these must live until the step has run.
        arrays, gradients = _paired(params, grads)
        if arrays:
            self._selection_of(arrays, gradients, row).run([row])
        self.iter = step

    @property
    def state(self) -> Mapping[str, Mapping[str, Any]]:
        """For each parameter's name its slots by the names of ``torch.optim``; in 8 bits, its codes and scales.

        The arrays are those in use; to put others in their place, :meth:`load_state_dict`.
        """
        return MappingProxyType({name: MappingProxyType(slots) for name, slots in self._state.items()})

    def state_dict(self) -> dict[str, Any]:
        """Class, settings, count and a copy of the state: all that a later :meth:`load_state_dict` needs."""
        return {
            "optimizer": type(self).__name__,
            "iter": self.iter,
            "settings": {name: getattr(self, name) for name in (*self.settings, *LATER)},
            "state": {
                name: {slot: copy_of(array) for slot, array in slots.items()} for name, slots in self._state.items()
            },
        }

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Goes on from a state dict of the same class. State moves to the parameters' memory at the next update.

        Where it has state in 8 bits, and ``state_dtype`` is None, that is 8 bits then.

        Raises:
            TypeError, ValueError: It is of another optimizer, or its entries are not those of :meth:`state_dict`.
                Nothing has changed then.
        """
        expected = {"optimizer", "iter", "settings", "state"}
        if set(state_dict) != expected:
            raise ValueError(f"state_dict must have the keys {sorted(expected)}, but has {sorted(state_dict)}")
        mine, theirs = type(self).__name__, state_dict["optimizer"]
        if theirs != mine:
            raise ValueError(f"state_dict must be of {mine}, but is of {theirs}")
        settings, count = state_dict["settings"], state_dict["iter"]
        if not set(self.settings) <= set(settings) <= {*self.settings, *LATER}:
            raise ValueError(f"settings of {mine} must be {sorted(self.settings)}, but are {sorted(settings)}")
        checked = {name: self._checked(name, value) for name, value in {**LATER, **settings}.items()}
        if not isinstance(count, int) or count < 0:
            raise ValueError(f"iter must be an integer >= 0, but is {count!r}")
        state = {}
        for name, slots in state_dict["state"].items():
            array_codes.check(slots, self.rule, repr(name))
            state[name] = {slot: copy_of(array) for slot, array in slots.items()}
        for name, value in checked.items():
            setattr(self, name, value)
        if self.state_dtype is None and any(array_codes.coded(slots, self.rule) for slots in state.values()):
            self.state_dtype = BITS
        self.iter, self._state, self._kept = count, state, None

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes :meth:`state_dict` as npz. An interrupted write leaves an older file as it was."""
        checkpoint.save(path, self.state_dict())

    def load(self, path: str | os.PathLike[str]) -> None:
        """Goes on from a file of :meth:`save`.

        Raises:
            ValueError: As :meth:`load_state_dict`, or the file is no checkpoint.
        """
        self.load_state_dict(checkpoint.load(path))

    def _hyper(self, step: int) -> tuple[float, ...]:
        """The rule's hyper at ``step``, the first being 1."""
        raise NotImplementedError

    def _prologue(self) -> tuple[float, ...]:
        return prologue_at(self.lr, self.weight_decay, maximize=self.maximize)

    def _options(self) -> tuple[str, ...]:
        """The optional slots of the rule that the settings ask for."""
        return ()

    def _initial(self) -> float:
        """What state starts from."""
        return 0.0

    def _rounds_state(self) -> bool:
        """Whether state of bfloat16 or 8 bits is rounded stochastically."""
        if self.stochastic_rounding or self.state_dtype is None:
            return self.stochastic_rounding
        return is_8bit(self.state_dtype) or _dtype(self.state_dtype).name == "bfloat16"

    def _check_settings(self) -> None:
        for name in (*self.settings, *LATER):
            setattr(self, name, self._checked(name, getattr(self, name)))
        if is_8bit(self.state_dtype):
            check_rule(self.rule, type(self).__name__)
        elif self.state_dtype is not None:
            _dtype(self.state_dtype)
        backends.check_name(self.backend)

    def _checked(self, name: str, value: Any) -> float | bool:
        """A setting as a Python number, so that hyper is computed in float64 whatever it was given as."""
        if name == "seed":
            check_seed(value)
            return int(value)
        if name in self.switches or name == "stochastic_rounding":
            if not isinstance(value, bool | np.bool_):
                raise TypeError(f"{name} must be True or False, but is {value!r}")
            return bool(value)
        if isinstance(value, bool) or not isinstance(value, int | float | np.integer | np.floating):
            raise TypeError(f"{name} must be a number, but is {value!r}")
        try:
            number = float(value)
        except OverflowError:
            number = inf
        if name in self.fractions:
            if not 0 <= number < 1:
                raise ValueError(f"{name} must be in [0, 1), but is {value!r}")
        elif not 0 <= number < inf:
            raise ValueError(f"{name} must be a finite number >= 0, but is {value!r}")
        return number

    def _selection_of(self, params: dict[str, Any], gradients: list[Any], row: tuple[float, ...]) -> Selection:
        """What is kept if the arrays are the same, else a selection of new rows, which takes the hyper of ``row``."""
        names, arrays = list(params), list(params.values())
        slots = [slot for slot in self.rule.slots if slot in self.rule.required + self._options()]
        rounds = self.stochastic_rounding, self._rounds_state(), is_8bit(self.state_dtype)
        key = (names, slots, self.backend, rounds)
        kept, self._kept = self._kept, None  # until all is well again
        if kept is not None and key == kept.key and kept.params.same(arrays) and _look(arrays) == kept.look:
            if kept.grads.same(gradients) and not kept.selection.packs_grads:
                self._kept = kept
                return kept.selection
            if kept.selection.take(gradients):
                self._kept = kept._replace(grads=Seen(gradients))
                return kept.selection
        state = {name: self._state_of(name, array, slots) for name, array in params.items()}
        choice = backends.choose("cuda" if library_of(arrays[0]) == "cupy" else "cpu", self.backend)
        places = {name: index for index, name in enumerate({**self._state, **state})}
        tensors = [
            Tensor(
                repr(name),
                (
                    stored(param, self.stochastic_rounding),
                    grad,
                    *(self._stored(state[name], slot) for slot in slots_of(self.rule)[2:]),
                ),
                whereabouts=in_model(places[name]),
            )
            for name, param, grad in zip(names, arrays, gradients, strict=True)
        ]
        selection = select_all(self.rule, tensors, choice.driver)
        selection.place([row])
        selection.prepare()
        self._state.update(state)
        self.choice = choice
        self._kept = _Kept(selection, key, Seen(arrays), _look(arrays), Seen(gradients), list(state.values()))
        return selection

    def __repr__(self) -> str:
        settings = {name: getattr(self, name) for name in self.settings}
        dtype = self.state_dtype
        if isinstance(dtype, type | np.dtype):
            dtype = np.dtype(dtype).name
        later = {name: getattr(self, name) for name in LATER}
        shown = {**settings, "state_dtype": dtype, **later, "backend": self.backend}
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in shown.items())})"

    def __getstate__(self) -> dict[str, Any]:
        """Everything but the plans, which hold addresses: for copies and pickles.

        Arrays are in the order of their memory, with their axes beside them, since NumPy's pickles keep few orders.
        """
        state = {
            name: {slot: (array.transpose(axes_of(array)), axes_of(array)) for slot, array in slots.items()}
            for name, slots in self._state.items()
        }
        return {**self.__dict__, "_kept": None, "_state": state}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._state = {
            name: {slot: array.transpose([axes.index(k) for k in range(array.ndim)]) for slot, (array, axes) in slots}
            for name, slots in ((name, slots.items()) for name, slots in state["_state"].items())
        }

    def _state_of(self, name: str, param: Any, slots: Sequence[str]) -> dict[str, Any]:
        """The state of one parameter, in its memory, with what is not there yet made new."""
        memory_of(param, f"param {name!r}")
        old = self._state.get(name, {})
        if is_8bit(self.state_dtype):
            old = dict(array_codes.parted(old, self.rule, slots))
            encoded = [array_codes.encoded(param, old, self.rule, slot) for slot in slots]
            return {name: array for entries in encoded for name, array in entries.items()}
        dtype = None if self.state_dtype is None else _dtype(self.state_dtype)
        old = array_codes.decoded(old, self.rule, np.dtype(np.float32) if dtype is None else dtype)
        return {
            slot: moved_to(old[slot], param)
            if slot in old
            else full_like(param, self._initial(), param.dtype if dtype is None else dtype)
            for slot in slots
        }

    def _stored(self, state: Mapping[str, Any], slot: str) -> Any:
        """A slot as a :class:`~gpuopt.plan.Tensor` takes it; None where it is absent."""
        return array_codes.found(state, self.rule, slot) or stored(state.get(slot), self._rounds_state())


def _look(arrays: Sequence[Any]) -> tuple[list[Any], ...]:
    """What of arrays may be changed in place and matters: the dtype, and in NumPy whether they may be written."""
    writable = [array.flags.writeable for array in arrays] if library_of(arrays[0]) == "numpy" else []
    return [array.dtype for array in arrays], writable


class _Kept(NamedTuple):
    """A selection and what it was made for. State is kept alive, parameters and gradients are not."""

    selection: Selection
    key: tuple[Any, ...]
    params: Seen
    look: tuple[list[Any], ...]
    grads: Seen
    state: list[dict[str, Any]]


class SGD(Optimizer):
    r"""Stochastic gradient descent: :math:`p \leftarrow p - \eta g`.

    Args:
        lr: Learning rate :math:`\eta`.
        **common: See :class:`Common`.
    """

    rule = RULES["sgd"]

    def __init__(self, lr: float = 0.01, **common: Unpack[Common]) -> None:
        super().__init__(lr, **common)
        self._check_settings()

    def _hyper(self, step: int) -> tuple[float, ...]:
        return sgd.hyper_at(step, self.lr)


class Momentum(Optimizer):
    r"""Gradient descent with momentum, by velocity: :math:`v \leftarrow \mu v - \eta g;\ p \leftarrow p + v`.

    PyTorch's momentum keeps :math:`v / -\eta` instead, which differs once the learning rate changes.
    Source: Sutskever et al., "On the importance of initialization and momentum in deep learning" (ICML 2013).

    Args:
        lr: Learning rate :math:`\eta`.
        momentum: :math:`\mu`.
        **common: See :class:`Common`.
    """

    rule = RULES["sgd"]
    settings = (*Optimizer.settings, "momentum")
    nesterov: ClassVar[bool] = False

    def __init__(self, lr: float = 0.01, momentum: float = 0.9, **common: Unpack[Common]) -> None:
        super().__init__(lr, **common)
        self.momentum = momentum
        self._check_settings()

    def _options(self) -> tuple[str, ...]:
        return ("momentum_buffer",)

    def _hyper(self, step: int) -> tuple[float, ...]:
        return sgd.velocity_hyper_at(self.lr, self.momentum, self.nesterov)


class NAG(Momentum):
    r"""Nesterov's accelerated gradient, by velocity.

    .. math:: v \leftarrow \mu v - \eta g; \quad p \leftarrow p + \mu v - \eta g

    Source: Bengio, Boulanger-Lewandowski & Pascanu, "Advances in Optimizing Recurrent Networks" (ICASSP 2013),
    section 3.5. Arguments as in :class:`Momentum`.
    """

    nesterov = True


class AdaGrad(Optimizer):
    r"""AdaGrad: :math:`h \leftarrow h + g^2;\ p \leftarrow p - \eta_t\, g / (\sqrt{h} + \epsilon)`.

    Source: Duchi, Hazan & Singer (JMLR 12, 2011).

    Args:
        lr: Learning rate :math:`\eta`.
        eps: :math:`\epsilon`.
        lr_decay: :math:`\lambda` in :math:`\eta_t = \eta / (1 + (t - 1)\lambda)`.
        initial_accumulator_value: What :math:`h` starts from.
        **common: See :class:`Common`.
    """

    rule = RULES["adagrad"]
    settings = (*Optimizer.settings, "eps", "lr_decay", "initial_accumulator_value")

    def __init__(
        self,
        lr: float = 0.01,
        eps: float = 1e-7,
        lr_decay: float = 0.0,
        initial_accumulator_value: float = 0.0,
        **common: Unpack[Common],
    ) -> None:
        super().__init__(lr, **common)
        self.eps = eps
        self.lr_decay = lr_decay
        self.initial_accumulator_value = initial_accumulator_value
        self._check_settings()

    def _initial(self) -> float:
        return self.initial_accumulator_value

    def _hyper(self, step: int) -> tuple[float, ...]:
        return adagrad.hyper_at(step, self.lr, self.eps, self.lr_decay)


class RMSProp(Optimizer):
    r"""RMSprop: :math:`h \leftarrow \alpha h + (1 - \alpha) g^2;\ p \leftarrow p - \eta\, g / (\sqrt{h} + \epsilon)`.

    Sources and the centered and momentum forms: :mod:`gpuopt.kernels.rules.rmsprop`.

    Args:
        lr: Learning rate :math:`\eta`.
        decay_rate: :math:`\alpha`.
        eps: :math:`\epsilon`, added after the square root.
        momentum: Of the scaled gradients; none when 0.
        centered: Whether to divide by an estimate of the deviation instead of the raw second moment.
        **common: See :class:`Common`.
    """

    rule = RULES["rmsprop"]
    settings = (*Optimizer.settings, "decay_rate", "eps", "momentum", "centered")
    fractions = ("decay_rate",)
    switches = (*Optimizer.switches, "centered")

    def __init__(
        self,
        lr: float = 0.01,
        decay_rate: float = 0.99,
        eps: float = 1e-7,
        momentum: float = 0.0,
        centered: bool = False,
        **common: Unpack[Common],
    ) -> None:
        super().__init__(lr, **common)
        self.decay_rate = decay_rate
        self.eps = eps
        self.momentum = momentum
        self.centered = centered
        self._check_settings()

    def _options(self) -> tuple[str, ...]:
        return ("grad_avg",) * bool(self.centered) + ("momentum_buffer",) * bool(self.momentum)

    def _hyper(self, step: int) -> tuple[float, ...]:
        return rmsprop.hyper_at(step, self.lr, self.decay_rate, self.eps, self.momentum)


class Adam(Optimizer):
    r"""Adam.

    .. math::

        m &\leftarrow m + (1 - \beta_1)(g - m) \\
        v &\leftarrow v + (1 - \beta_2)(g^2 - v) \\
        p &\leftarrow p - \hat\eta\, m / (\sqrt{v} + \hat\epsilon), \quad
            \hat\eta = \eta \sqrt{1 - \beta_2^t} / (1 - \beta_1^t)

    Sources and both forms of bias correction: :mod:`gpuopt.kernels.rules.adam`.

    Args:
        lr: Learning rate.
        beta1: Decay rate of the first moment.
        beta2: Decay rate of the second moment.
        eps: Epsilon; epsilon-hat when ``epsilon_hat``.
        amsgrad: Whether to divide by the largest second moment so far (Reddi et al., 2018).
        epsilon_hat: Whether epsilon is added before the second moment's bias correction, as in section 2 of the
            paper, TensorFlow and Keras; else after it, as in its algorithm 1 and PyTorch.
        **common: See :class:`Common`.
    """

    rule = RULES["adam"]
    settings = (*Optimizer.settings, "beta1", "beta2", "eps", "amsgrad", "epsilon_hat")
    fractions = ("beta1", "beta2")
    switches = (*Optimizer.switches, "amsgrad", "epsilon_hat")

    def __init__(
        self,
        lr: float = 0.001,
        beta1: float = 0.9,
        beta2: float = 0.999,
        eps: float = 1e-7,
        amsgrad: bool = False,
        epsilon_hat: bool = True,
        **common: Unpack[Common],
    ) -> None:
        super().__init__(lr, **common)
        self.beta1 = beta1
        self.beta2 = beta2
        self.eps = eps
        self.amsgrad = amsgrad
        self.epsilon_hat = epsilon_hat
        self._check_settings()

    def _options(self) -> tuple[str, ...]:
        return ("max_exp_avg_sq",) * bool(self.amsgrad)

    def _hyper(self, step: int) -> tuple[float, ...]:
        return adam.hyper_at(step, self.lr, self.beta1, self.beta2, self.eps, self.epsilon_hat)


class AdamW(Adam):
    r"""Adam with decoupled weight decay: :math:`p \leftarrow p (1 - \eta \lambda)` before the step of Adam.

    Source: Loshchilov & Hutter (ICLR 2019). Arguments as in :class:`Adam`, but ``weight_decay`` is 0.01.
    """

    def __init__(
        self,
        lr: float = 0.001,
        beta1: float = 0.9,
        beta2: float = 0.999,
        eps: float = 1e-7,
        *,
        weight_decay: float = 0.01,
        amsgrad: bool = False,
        epsilon_hat: bool = True,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(lr, beta1, beta2, eps, amsgrad, epsilon_hat, weight_decay=weight_decay, **options)

    def _prologue(self) -> tuple[float, ...]:
        return prologue_at(self.lr, self.weight_decay, decoupled=True, maximize=self.maximize)


def step(
    rule: str,
    params: Sequence[Any],
    grads: Sequence[Any],
    state: Mapping[str, Sequence[Any]],
    hyper: Mapping[str, float] | Sequence[float],
    *,
    prologue: Prologue = Prologue(),  # noqa: B008 (immutable)
    backend: str | None = None,
) -> None:
    """One step in place, for those who keep their own state.

        from gpuopt.kernels.rules import adam

        hyper = adam.hyper_at(step=1, lr=0.001, beta1=0.9, beta2=0.999, eps=1e-8)
        gpuopt.arrays.step("adam", [p], [g], {"exp_avg": [m], "exp_avg_sq": [v]}, hyper)

    Args:
        rule: A name in :data:`gpuopt.kernels.rules.RULES`.
        params: Arrays, written.
        grads: A gradient per parameter, only read.
        state: For each slot of the rule an array per parameter, written. Optional slots select options.
        hyper: The rule's hyper, by position or by name.
        prologue: Gradient scale and weight decay, see :mod:`gpuopt.kernels.prologue`.
        backend: Its name; None for the fastest that serves the arrays.

    Raises:
        TypeError, ValueError: An argument cannot be used. Nothing has been written then.
        RuntimeError: No backend can run, or not the one that was asked for. Nothing has been written then.
    """
    if rule not in RULES:
        raise ValueError(f"rule must be one of {', '.join(RULES)}, but is {rule!r}")
    chosen = RULES[rule]
    fields = chosen.hyper_fields
    if getattr(hyper, "_fields", fields) != fields:
        raise ValueError(f"hyper of {rule} must be {chosen.hyper.__name__}, but is {type(hyper).__name__}")
    if isinstance(hyper, Mapping):
        if set(hyper) != set(fields):
            raise ValueError(f"hyper of {rule} must have the fields {fields}, but has {tuple(hyper)}")
        hyper = [hyper[field] for field in fields]
    if len(hyper) != len(fields):
        raise ValueError(f"hyper of {rule} must be {fields}, but has {len(hyper)} numbers")
    if not set(chosen.required) <= set(state) <= set(chosen.slots):
        raise ValueError(f"state of {rule} must have slots of {chosen.slots}, but has {tuple(state)}")
    for name, arrays in (("grads", grads), *state.items()):
        if len(arrays) != len(params):
            raise ValueError(f"{name} must hold an array per parameter, {len(params)}, but holds {len(arrays)}")
    if len(params) == 0:
        return
    tensors = [
        Tensor(
            str(index), (param, grad, *(state[slot][index] if slot in state else None for slot in slots_of(chosen)[2:]))
        )
        for index, (param, grad) in enumerate(zip(params, grads, strict=True))
    ]
    choice = backends.choose("cuda" if library_of(params[0]) == "cupy" else "cpu", backend)
    selection = select_all(chosen, tensors, choice.driver)
    selection.run([hyper_row(prologue, hyper)])


def _dtype(state_dtype: Any) -> np.dtype[Any]:
    try:
        dtype: np.dtype[Any] = np.dtype(state_dtype)
        if dtype.name in BY_DTYPE and dtype.isnative:
            return dtype
        raise ValueError(
            f"state_dtype must be {', '.join(BY_DTYPE)} in native byte order, {BITS!r} or None, but is {dtype}"
        )
    except TypeError:
        hint = ", which needs ml_dtypes to be imported" if state_dtype == "bfloat16" else ""
        raise TypeError(f"state_dtype must be a dtype, {BITS!r} or None, but is {state_dtype!r}{hint}") from None


def _paired(params: Mapping[str, Any], grads: Mapping[str, Any]) -> tuple[dict[str, Any], list[Any]]:
    """Parameters by name, and their gradients in the same order."""
    for argument, mapping in (("params", params), ("grads", grads)):
        if not isinstance(mapping, Mapping):
            raise TypeError(f"{argument} must be a mapping from names to arrays, but is {type(mapping).__name__}")
    arrays = dict(params)
    try:
        gradients = [grads[name] for name in arrays]
    except KeyError:
        name = next(name for name in arrays if name not in grads)
        raise ValueError(f"grads must have a gradient for every parameter, but has none for {name!r}") from None
    if len(grads) > len(arrays):
        extra = next(name for name in grads if name not in arrays)
        raise ValueError(f"grads must have gradients of parameters alone, but has {extra!r}, which params has not")
    return arrays, gradients
