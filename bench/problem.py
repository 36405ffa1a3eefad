"""What all contenders of a workload begin with, and what the oracle makes of it.

Parameters and gradients repeat a pool of a prime number of random elements, one tensor going on where the one before
ends. Optimizers work on each element for itself, so that the oracle's outcome is that for the pool, repeated alike:
the largest model is checked bit for bit, at the cost of a million elements. A prime number fits no tile, so that no
element can be taken for another that lies a round number away. Where rounding is stochastic it depends on where an
element is, so that the pool is as long as all tensors together and the oracle steps all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import import_module
from itertools import repeat
from math import inf, isnan, prod, sqrt
from typing import Any, NamedTuple

import numpy as np

from gpuopt.bench.workloads import AVERAGED, CLIP, ZERO, Stored, Workload
from gpuopt.eight_bit import BITS
from gpuopt.kernels.formats import FORMATS

POOL = 1_000_003

FACTORS = (1.0, -0.25, 0.5)
"""Of the gradients in each step that a tensor takes before its outcome is checked. Were they the same in all, Adam's
parameters would be the same whatever its betas are, and with no state at all. Powers of two round nothing."""

WARM_UP = len(FACTORS)

MAX_NORM_SHARE = 0.5
"""Gradients are clipped to this share of their norm."""

EMA_DECAY = 0.99

REMAINDER = "param_remainder"
"""What of a parameter is beside it."""

UNITS = {"float32": 2.0**-23, "bfloat16": 2.0**-7}
"""One in the last place of a number from 1 to 2, by its dtype."""

Outcome = Mapping[str, Sequence[Any]]
"""Tensors by what they are, ``"param"``, ``REMAINDER``, ``"ema"`` or ``"grad"``, in the order of the workload's
shapes."""


def storage(formats: Stored) -> dict[str, Any]:
    """Arguments of gpuopt's optimizers for PyTorch that have them store so."""
    import torch

    own = formats.state == formats.param
    state_dtype = BITS if formats.state == BITS else getattr(torch, FORMATS[formats.state].planes[0].dtype)
    return {
        "master_weights": {"split32": True, "split24": "24bit"}.get(formats.param, False),
        "stochastic_rounding": FORMATS[formats.param].is_random,
        "state_dtype": None if own else state_dtype,
    }


class Deviation(NamedTuple):
    """How an outcome differs from the oracle's.

    Attributes:
        exact: Whether all bits are the same.
        units: Largest difference, in units in the last place of a stored parameter of magnitude 1 or more, and in
            those of its remainder.
        share: Root mean square of the differences of parameters, over that of what the steps changed.
    """

    exact: bool
    units: float
    share: float


class Problem:
    """The parameters and gradients of a workload, in the memory of a device.

    Attributes:
        workload: What it is for.
        device: ``"cpu"`` or ``"cuda"``.
        grads: The gradients that contenders share, of ``library``.
        library: The module of the arrays: torch, or NumPy or CuPy for the front end for arrays.
    """

    def __init__(self, workload: Workload, device: str, seed: int = 0) -> None:
        self.workload, self.device = workload, device
        name = "torch" if workload.front == "torch" else "numpy" if device == "cpu" else "cupy"
        self.library: Any = import_module(name)
        rng = np.random.default_rng(seed)
        numel = workload.shapes.numel
        size = numel if workload.variant.is_random else min(POOL, numel)
        self._params = self._stored(rng.standard_normal(size, dtype=np.float32), workload.formats.param)
        self._grads = self._stored(rng.standard_normal(size, dtype=np.float32), workload.formats.grad)
        self._factor = 1.0
        self._lent: list[Any] = []
        self.grads = self.own_grads()

    def params(self) -> list[Any]:
        """New arrays with the values that all begin with."""
        return self._laid(self._params)

    def own_grads(self) -> list[Any]:
        """Gradients for a contender that writes them, which is to warm up before another is given any."""
        self._lent = self._laid(self._grads, misaligned=self.workload.misaligned_grads)
        return self._lent

    def refill(self, grads: Sequence[Any]) -> None:
        """Gives ``grads`` their values again, those of the step in a warm-up."""
        for part, whole in _pieces(grads, self._grads):
            part[...] = whole * self._factor

    def warm_ups(self) -> Iterator[None]:
        """The steps of a warm-up, in which each tensor takes ``WARM_UP``, each with other values of its gradient.

        Where parts take turns, all have one before gradients get their next values. One that took a step in which it
        had no gradient, or missed one in which it had, has not the oracle's bits at the end. Gradients keep the last
        values until :meth:`restore`.
        """
        for self._factor in FACTORS:
            self.refill(self._lent)
            yield from repeat(None, self.workload.parts)

    def restore(self) -> None:
        """Ends a warm-up: gradients are again what they were."""
        self._factor = 1.0
        self.refill(self._lent)

    @property
    def max_norm(self) -> float:
        """What gradients are clipped to."""
        pool = _wide(self._grads)
        periods, rest = divmod(self.workload.shapes.numel, len(pool))
        squares = periods * float((pool * pool).sum()) + float((pool[:rest] * pool[:rest]).sum())
        return MAX_NORM_SHARE * sqrt(squares)

    def deviation(self, outcome: Outcome, expected: dict[str, Any]) -> Deviation:
        """How far ``outcome`` is from :meth:`expected`. What is not a number is infinitely far."""
        exact, units, wrong, moved = True, 0.0, 0.0, 0.0
        for what, wanted_pool in expected.items():
            dtype = str(wanted_pool.dtype).removeprefix("torch.")
            for got, wanted, start in _pieces(outcome[what], wanted_pool, self._params):
                if not _same_bits(got, wanted):
                    exact = False
                    off = abs(_wide(got) - _wide(wanted))
                    unit = UNITS[dtype] * abs(_wide(wanted)).clip(1) if dtype in UNITS else 1
                    far = float((off / unit).max())
                    units = max(units, inf if isnan(far) else far)
                    if what == "param":
                        wrong += float((off**2).sum())
                if what == "param":
                    moved += float(((_wide(wanted) - _wide(start)) ** 2).sum())
        share = inf if isnan(wrong) or not moved else sqrt(wrong / moved)
        return Deviation(exact, units, share)

    def expected(self) -> dict[str, Any]:
        """The pool after ``WARM_UP`` steps of the NumPy driver, which is the oracle, by what it is."""
        params = self._copy(self._params)
        begun, grads = self._copy(self._grads), self._copy(self._grads)
        averages = self._copy(params)
        step, state = self._oracle(params, grads)
        for factor in FACTORS:
            clipped = CLIP in self.workload.tail and abs(factor) > MAX_NORM_SHARE
            grads[...] = begun * (factor * MAX_NORM_SHARE if clipped else factor)
            step()
            averages += (params - averages) * np.float32(1 - EMA_DECAY).item()
        expected = {"param": self._on_device(params)}
        if AVERAGED in self.workload.tail:
            expected["ema"] = self._on_device(averages)
        if len(FORMATS[self.workload.formats.param].planes) > 1:
            expected[REMAINDER] = self._on_device(state(REMAINDER))
        if ZERO in self.workload.tail:
            expected["grad"] = self._on_device(grads * 0 + 0)
        return expected

    def _oracle(self, params: Any, grads: Any) -> tuple[Callable[[], object], Callable[[str], Any]]:
        """A step of the pool, and what gives the state beside it by its name."""
        optimizer, lr = self.workload.optimizer, self.workload.lr
        if self.workload.front == "arrays":
            from gpuopt import arrays

            kind = getattr(arrays, optimizer.arrays_name or "")
            oracle = kind(lr=lr, **optimizer.arrays_settings, backend="numpy")
            return lambda: oracle.update({"pool": params}, {"pool": grads}), lambda name: oracle.state["pool"][name]
        import torch

        from gpuopt import optim

        is_random = self.workload.variant.is_random
        sizes = [prod(shape) for shape in self.workload.shapes.shapes] if is_random else [len(params)]
        pieces = [torch.nn.Parameter(piece) for piece in params.split(sizes)]
        for piece, grad in zip(pieces, grads.split(sizes), strict=True):
            piece.grad = grad
        stepped = getattr(optim, optimizer.name)(
            pieces, lr=lr, **optimizer.settings, **storage(self.workload.formats), backend="numpy"
        )
        return stepped.step, lambda name: torch.cat([stepped.state[piece][name] for piece in pieces])

    def _stored(self, values: np.ndarray[Any, Any], format_name: str) -> Any:
        if self.workload.front == "torch":
            import torch

            return torch.from_numpy(values).to(self.device, getattr(torch, FORMATS[format_name].planes[0].dtype))
        return self.library.asarray(values)

    def _laid(self, pool: Any, misaligned: bool = False) -> list[Any]:
        where = {"device": self.device} if self.workload.front == "torch" else {}
        shapes, skipped = self.workload.shapes.shapes, int(misaligned)
        flat = (self.library.empty(skipped + prod(shape), dtype=pool.dtype, **where)[skipped:] for shape in shapes)
        made = [array.reshape(shape) for array, shape in zip(flat, shapes, strict=True)]
        for part, whole in _pieces(made, pool):
            part[...] = whole
        return made

    def _copy(self, pool: Any) -> Any:
        """A copy in host memory."""
        if self.workload.front == "torch":
            return pool.cpu().clone()
        return np.array(pool if isinstance(pool, np.ndarray) else pool.get())

    def _on_device(self, pool: Any) -> Any:
        return pool.detach().to(self.device) if self.workload.front == "torch" else self.library.asarray(pool)


def _pieces(tensors: Sequence[Any], *pools: Any) -> Iterator[tuple[Any, ...]]:
    """Every stretch of the tensors that lies in one period of the pools, with what of each pool it repeats."""
    period, at = len(pools[0]), 0
    for tensor in tensors:
        flat, done = tensor.reshape(-1), 0
        while done < len(flat):
            count = min(period - at, len(flat) - done)
            yield flat[done : done + count], *(pool[at : at + count] for pool in pools)
            done, at = done + count, (at + count) % period


def _same_bits(got: Any, wanted: Any) -> bool:
    if got.dtype != wanted.dtype:
        return False
    if isinstance(wanted, np.ndarray) or type(wanted).__module__.startswith("cupy"):
        unsigned = f"u{wanted.dtype.itemsize}"
        return bool((got.view(unsigned) == wanted.view(unsigned)).all())
    import torch

    signed = {1: torch.int8, 2: torch.int16, 4: torch.int32}[wanted.element_size()]
    return torch.equal(got.view(signed), wanted.view(signed))


def _wide(array: Any) -> Any:
    """In float64."""
    return array.double() if hasattr(array, "double") else array.astype(np.float64)
