"""What a step on a GPU costs the host, counted without one.

The Triton driver runs as on a GPU, but its copies to the device are copies in host memory, and its launches do nothing:
what is left is the work of Python, which a GPU waits for when it has less to do. What PyTorch and Triton take for a
copy and a launch comes on top.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any, NamedTuple
from unittest.mock import patch

import torch

from gpuopt import optim
from gpuopt.kernels.drivers import triton as driver

NUMEL = 64
PARTS = 8
"""As many parts of the tensors take turns where the set of those with gradients changes."""


ON_THE_HOST: dict[str, Any] = {
    "DEVICE": "cpu",
    "unavailable": lambda: None,
    "on_stream": lambda device, stream: nullcontext(),
    "_overwrite": lambda buffer, array: buffer.copy_(torch.from_numpy(array)),
}
"""What stands in the places of the Triton driver's own names so that it serves host memory."""


class Cost(NamedTuple):
    """Of one step.

    Attributes:
        calls: Functions of Python that are called.
        launches: Kernels that would be launched.
    """

    calls: float
    launches: float


@contextmanager
def stand_in() -> Iterator[list[Any]]:
    """In this context the Triton driver serves host memory, by launches that do nothing; yields what was launched."""
    launched: list[Any] = []

    def launcher(variant: Any, tile: int) -> Callable[..., None]:
        return lambda programs, *arguments: launched.append(programs)

    with (
        patch.multiple(driver, **ON_THE_HOST, launcher=launcher),
        patch.object(torch.cuda, "is_current_stream_capturing", lambda: False),
    ):
        yield launched


def same(params: Sequence[Any], grads: Sequence[Any], step: int) -> None:
    """The same gradients in every step."""
    for param, grad in zip(params, grads, strict=True):
        param.grad = grad


def new(params: Sequence[Any], grads: Sequence[Any], step: int) -> None:
    """New gradients in every step."""
    for param, grad in zip(params, grads, strict=True):
        param.grad = grad.clone()


def taking_turns(params: Sequence[Any], grads: Sequence[Any], step: int) -> None:
    """An eighth of the tensors has gradients, another one in every step."""
    for index, (param, grad) in enumerate(zip(params, grads, strict=True)):
        param.grad = grad if index * PARTS // len(params) == step % PARTS else None


WAYS = {"the same gradients": same, "new gradients": new, "an eighth of them in turn": taking_turns}


def cost(tensors: int, prepare: Callable[[Sequence[Any], Sequence[Any], int], None], steps: int) -> Cost:
    """What a step of Adam costs, once each set of tensors has been stepped."""
    params = [torch.nn.Parameter(torch.zeros(NUMEL)) for _ in range(tensors)]
    grads = [torch.zeros(NUMEL) for _ in range(tensors)]
    calls = 0
    with stand_in() as launched:
        optimizer = optim.Adam(params, backend="triton")

        def count(frame: Any, event: str, argument: Any) -> None:
            nonlocal calls
            calls += event == "call"

        for step in range(PARTS + steps):
            prepare(params, grads, step)
            if step == PARTS:
                launched.clear()
            if step >= PARTS:
                sys.setprofile(count)
            optimizer.step()
            sys.setprofile(None)
    return Cost(calls / steps, len(launched) / steps)
