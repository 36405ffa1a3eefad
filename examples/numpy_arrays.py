"""NumPy alone: a network of two layers by hand, whose parameters are a dict of arrays.

Run it with ``python examples/numpy_arrays.py``; it needs ``gpuopt``, and is faster with ``gpuopt[cpu]``.
"""

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray

import gpuopt

rng = np.random.default_rng(0)
inputs = rng.uniform(-1, 1, (2048, 2)).astype(np.float32)
targets = np.sin(3 * inputs[:, :1]) * inputs[:, 1:]

shapes = {"w1": (2, 64), "b1": (64,), "w2": (64, 1), "b2": (1,)}
params = {name: rng.normal(0, shape[0] ** -0.5, shape).astype(np.float32) for name, shape in shapes.items()}
optimizer = gpuopt.arrays.Adam(lr=0.01)


def loss_and_grads(x: NDArray[np.float32], y: NDArray[np.float32]) -> tuple[float, dict[str, NDArray[np.float32]]]:
    hidden = np.tanh(x @ params["w1"] + params["b1"])
    error = hidden @ params["w2"] + params["b2"] - y
    d_out = 2 * error / len(x)
    d_hidden = (d_out @ params["w2"].T) * (1 - hidden * hidden)
    grads = {"w1": x.T @ d_hidden, "b1": d_hidden.sum(0), "w2": hidden.T @ d_out, "b2": d_out.sum(0)}
    return float(np.square(error).mean()), grads


for step in range(601):
    loss, grads = loss_and_grads(inputs, targets)
    optimizer.update(params, grads)  # in place
    if step % 200 == 0:
        print(f"step {step}: loss {loss:.5f}")

with TemporaryDirectory() as folder:
    optimizer.save(Path(folder) / "checkpoint.npz")
print(f"{optimizer!r} by {optimizer.choice}")
