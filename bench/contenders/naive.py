"""The straightforward code to be faster than: each optimizer on whole arrays, as textbooks write it.

The lines are those of the notes of Stanford's CS231n, "Neural Networks Part 3: Learning and Evaluation", which much
code descends from. Every operation is a pass over memory, and nearly all make a temporary the size of the parameter.
The functions take NumPy or CuPy arrays and update ``p`` in place and ``state`` anew.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from gpuopt import backends
from gpuopt.bench.contenders.contender import Contender, Entrant
from gpuopt.bench.problem import Problem
from gpuopt.bench.workloads import Workload

State = dict[str, Any]
"""Arrays by the names of the textbooks, all of them zeros before the first step."""


def sgd(p: Any, g: Any, state: State, step: int, lr: float) -> None:
    """Gradient descent."""
    p -= lr * g


def momentum(p: Any, g: Any, state: State, step: int, lr: float, mu: float = 0.9) -> None:
    """Momentum, by velocity."""
    state["v"] = v = mu * state["v"] - lr * g
    p += v


def nag(p: Any, g: Any, state: State, step: int, lr: float, mu: float = 0.9) -> None:
    """Nesterov's accelerated gradient, by velocity."""
    state["v"] = v = mu * state["v"] - lr * g
    p += mu * v - lr * g


def adagrad(p: Any, g: Any, state: State, step: int, lr: float, eps: float = 1e-8) -> None:
    """AdaGrad."""
    state["h"] = h = state["h"] + g**2
    p -= lr * g / (np.sqrt(h) + eps)


def rmsprop(p: Any, g: Any, state: State, step: int, lr: float, decay_rate: float = 0.99, eps: float = 1e-8) -> None:
    """RMSprop."""
    state["h"] = h = decay_rate * state["h"] + (1 - decay_rate) * g**2
    p -= lr * g / (np.sqrt(h) + eps)


def adam(
    p: Any,
    g: Any,
    state: State,
    step: int,
    lr: float,
    beta1: float = 0.9,
    beta2: float = 0.999,
    eps: float = 1e-8,
) -> None:
    """Adam, algorithm 1 of the paper."""
    state["m"] = m = beta1 * state["m"] + (1 - beta1) * g
    state["v"] = v = beta2 * state["v"] + (1 - beta2) * g**2
    m_hat = m / (1 - beta1**step)
    v_hat = v / (1 - beta2**step)
    p -= lr * m_hat / (np.sqrt(v_hat) + eps)


def adamw(
    p: Any,
    g: Any,
    state: State,
    step: int,
    lr: float,
    beta1: float = 0.9,
    beta2: float = 0.999,
    eps: float = 1e-8,
    weight_decay: float = 0.01,
) -> None:
    """Adam with decoupled weight decay."""
    p *= 1 - lr * weight_decay
    adam(p, g, state, step, lr, beta1, beta2, eps)


NAIVE: dict[str, tuple[Callable[..., None], tuple[str, ...]]] = {
    "SGD": (sgd, ()),
    "Momentum": (momentum, ("v",)),
    "NAG": (nag, ("v",)),
    "AdaGrad": (adagrad, ("h",)),
    "RMSProp": (rmsprop, ("h",)),
    "Adam": (adam, ("m", "v")),
    "AdamW": (adamw, ("m", "v")),
}
"""By the class of :mod:`gpuopt.arrays` that computes the same: the step, and the names of its state."""


def naive_contender(device: str) -> Contender:
    """The code above on NumPy or CuPy arrays, one tensor after the other."""
    return Contender(
        "naive NumPy" if device == "cpu" else "naive CuPy",
        device,
        _set_up,
        absent=partial(_absent, device),
        refuses=_refuses,
        temporaries=5.0,
    )


def _absent(device: str) -> str | None:
    return None if device == "cpu" else backends.available()["cupy"]


def _refuses(workload: Workload) -> str | None:
    return None if workload.front == "arrays" else "it is for arrays"


def _set_up(problem: Problem) -> Entrant:
    optimizer = problem.workload.optimizer
    function, slots = NAIVE[optimizer.arrays_name or ""]
    params = problem.params()
    states = [{slot: problem.library.zeros_like(array) for slot in slots} for array in params]
    count = 0

    def step() -> None:
        nonlocal count
        count += 1
        for p, g, state in zip(params, problem.grads, states, strict=True):
            function(p, g, state, count, problem.workload.lr, **optimizer.naive_settings)

    return Entrant(step, lambda: {"param": params})
