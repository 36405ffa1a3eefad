"""A small classifier of handwritten digits, trained by one optimizer on one driver.

The gradients are written by hand in float32 NumPy and always computed on the host, by the same code from the same
bits: for a driver on a GPU the parameters are copied to the host and the gradients back. So drivers that agree in
every bit of every step end with the same parameters, and drivers that do not end with others.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

import numpy as np

from gpuopt import arrays
from gpuopt.kernels.drivers import DRIVERS

Array = np.ndarray[Any, Any]
Params = dict[str, Array]

HIDDEN = 64
BATCH = 128
RECORD_EVERY = 5
"""Steps between two points of a loss curve."""

UNTIMED = 3
"""First steps, in which drivers compile."""


class Data(NamedTuple):
    """Images, one a row and in [0, 1], and their digits: to train on, and to test with."""

    train_images: Array
    train_digits: Array
    test_images: Array
    test_digits: Array


@dataclass(frozen=True)
class Run:
    """How one training went.

    Attributes:
        optimizer: Name of the class in :mod:`gpuopt.arrays`.
        driver: Name of the driver.
        lr: Learning rate.
        steps: Number of steps.
        curve: Steps done and loss over all training images at that time.
        loss: Loss over all training images at the end.
        accuracy: Share of the test images that are recognised at the end.
        digest: SHA-256 of the bits of all parameters at the end.
        seconds: Time of each step of the optimizer alone, without the first ones.
    """

    optimizer: str
    driver: str
    lr: float
    steps: int
    curve: tuple[tuple[int, float], ...]
    loss: float
    accuracy: float
    digest: str
    seconds: tuple[float, ...]


@cache
def digits() -> Data:
    """The 1,797 images of 8 x 8 pixels that scikit-learn ships, every fifth of them to test with."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    images, labels = (bunch.data / 16).astype(np.float32), bunch.target.astype(np.int64)
    order = np.random.default_rng(0).permutation(len(images))
    test, train = order[::5], np.delete(order, np.s_[::5])
    return Data(images[train], labels[train], images[test], labels[test])


def initial_params(seed: int = 0) -> Params:
    """Parameters of 64 inputs, :data:`HIDDEN` rectified units and 10 outputs (He et al., 2015)."""
    rng = np.random.default_rng(seed)

    def weight(inputs: int, outputs: int) -> Array:
        drawn: Array = rng.standard_normal((inputs, outputs)) * np.sqrt(2 / inputs)
        return drawn.astype(np.float32)

    return {
        "hidden.weight": weight(64, HIDDEN),
        "hidden.bias": np.zeros(HIDDEN, np.float32),
        "output.weight": weight(HIDDEN, 10),
        "output.bias": np.zeros(10, np.float32),
    }


def log_probabilities(params: Mapping[str, Array], images: Array) -> tuple[Array, Array]:
    """Activity of the hidden units and log-probability of each digit, a row per image."""
    hidden = np.maximum(images @ params["hidden.weight"] + params["hidden.bias"], np.float32(0))
    logits = hidden @ params["output.weight"] + params["output.bias"]
    logits -= logits.max(axis=1, keepdims=True)
    return hidden, logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))


def gradients(params: Mapping[str, Array], images: Array, labels: Array) -> Params:
    """Gradient of the mean cross-entropy."""
    hidden, log_p = log_probabilities(params, images)
    error = np.exp(log_p)
    error[np.arange(len(labels)), labels] -= np.float32(1)
    error /= np.float32(len(labels))
    hidden_error = (error @ params["output.weight"].T) * (hidden > 0)
    return {
        "hidden.weight": images.T @ hidden_error,
        "hidden.bias": hidden_error.sum(axis=0),
        "output.weight": hidden.T @ error,
        "output.bias": error.sum(axis=0),
    }


def loss_of(params: Mapping[str, Array], images: Array, labels: Array) -> float:
    """Mean cross-entropy."""
    log_p = log_probabilities(params, images)[1]
    return float(-log_p[np.arange(len(labels)), labels].mean())


def accuracy_of(params: Mapping[str, Array], images: Array, labels: Array) -> float:
    """Share of the images whose likeliest digit is the right one."""
    return float((log_probabilities(params, images)[1].argmax(axis=1) == labels).mean())


def train(
    optimizer: str,
    driver: str,
    steps: int,
    lr: float,
    data: Data | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> Run:
    """Trains from the same start on the same batches, whatever the optimizer and the driver.

    Args:
        optimizer: Name of a class in :mod:`gpuopt.arrays`.
        driver: Name of a driver that can run here.
        steps: Number of steps.
        lr: Learning rate.
        data: What to train on; None for :func:`digits`.
        clock: Gives the time in seconds.
    """
    images, labels, test_images, test_digits = data or digits()
    host = initial_params()
    device = _Device() if DRIVERS[driver].device == "cuda" else _Host()
    params = device.arrays_like(host)
    grads = device.arrays_like(host)
    opt = getattr(arrays, optimizer)(lr=lr, backend=driver)
    rng = np.random.default_rng(1)
    order = rng.permutation(len(images))
    at = 0
    curve = [(0, loss_of(host, images, labels))]
    seconds: list[float] = []
    for step in range(1, steps + 1):
        if at + BATCH > len(order):
            order, at = rng.permutation(len(images)), 0
        batch = order[at : at + BATCH]
        at += BATCH
        device.put(gradients(host, images[batch], labels[batch]), grads)
        device.wait()
        before = clock()
        opt.update(params, grads)
        device.wait()
        seconds.append(clock() - before)
        host = device.get(params)
        if step % RECORD_EVERY == 0 or step == steps:
            curve.append((step, loss_of(host, images, labels)))
    digest = hashlib.sha256()
    for array in host.values():
        digest.update(array.tobytes())
    return Run(
        optimizer,
        driver,
        lr,
        steps,
        tuple(curve),
        curve[-1][1],
        accuracy_of(host, test_images, test_digits),
        digest.hexdigest(),
        tuple(seconds[UNTIMED:] or seconds),
    )


class _Host:
    """Arrays where the gradients are computed."""

    def arrays_like(self, host: Params) -> dict[str, Any]:
        return {name: array.copy() for name, array in host.items()}

    def put(self, values: Params, arrays: dict[str, Any]) -> None:
        for name, value in values.items():
            arrays[name][...] = value

    def get(self, arrays: dict[str, Any]) -> Params:
        return arrays

    def wait(self) -> None:
        """Nothing: a step is done when it returns."""


class _Device(_Host):
    """CuPy arrays."""

    def arrays_like(self, host: Params) -> dict[str, Any]:
        import cupy

        return {name: cupy.asarray(array) for name, array in host.items()}

    def put(self, values: Params, arrays: dict[str, Any]) -> None:
        for name, value in values.items():
            arrays[name].set(np.ascontiguousarray(value))

    def get(self, arrays: dict[str, Any]) -> Params:
        import cupy

        return {name: cupy.asnumpy(array) for name, array in arrays.items()}

    def wait(self) -> None:
        import cupy

        cupy.cuda.get_current_stream().synchronize()
