"""An optimizer of gpuopt beside its namesake of torch.optim, over equal parameters and with equal gradients."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

import gpuopt
from kit.tolerances import TORCH

Params = Sequence[torch.nn.Parameter]


def drawn(like: torch.Tensor, seed: int) -> torch.Tensor:
    """Normally distributed values of the shape, dtype and device of ``like``, contiguous, that follow from ``seed``."""
    generator = torch.Generator().manual_seed(seed)
    wide = torch.complex128 if like.is_complex() else torch.float64
    return torch.randn(like.shape, dtype=wide, generator=generator).to(like.device, like.dtype)


def bits(tensor: torch.Tensor) -> bytes:
    """The bits of all elements, in order."""
    return tensor.detach().contiguous().view(-1).view(torch.uint8).numpy().tobytes()


def set_grads(params: Params, seed: int) -> None:
    """New gradients, the same whenever the seed is the same."""
    for index, param in enumerate(params):
        param.grad = drawn(param, 1000 * (seed + 1) + index)


@dataclass
class Pair:
    """Both optimizers and what they step.

    Attributes:
        ours: Parameters of gpuopt.
        theirs: Parameters of torch.
        optimizer: That of gpuopt.
        expected: That of torch.
    """

    ours: Params
    theirs: Params
    optimizer: torch.optim.Optimizer
    expected: torch.optim.Optimizer

    def both(self) -> Iterator[tuple[Params, torch.optim.Optimizer]]:
        """Parameters and optimizer of gpuopt, then of torch."""
        return iter(((self.ours, self.optimizer), (self.theirs, self.expected)))

    def step(self, seed: int) -> None:
        """A step of both, with new gradients."""
        set_grads(self.ours, seed)
        self.step_again()

    def step_again(self) -> None:
        """A step of both, with the gradients of ours."""
        for param, other in zip(self.ours, self.theirs, strict=True):
            other.grad = None if param.grad is None else param.grad.resolve_conj().to(other.dtype, copy=True)
        self.optimizer.step()
        self.expected.step()

    def assert_close(self, rounded: bool = False, own: Sequence[str] = ()) -> None:
        """Demands the same parameters and the same entries of state, within ``TORCH``.

        Args:
            rounded: Whether what is expected is wider, and still to be rounded.
            own: Entries that torch has not.
        """
        for index, (param, other) in enumerate(zip(self.ours, self.theirs, strict=True)):
            state, wanted_state = self._state(param, own), dict(self.expected.state.get(other, {}))
            if not state and isinstance(self.expected, torch.optim.Adagrad) and wanted_state["step"] == 0:
                wanted_state = {}  # which torch makes at construction
            assert sorted(state) == sorted(wanted_state)
            pairs = {key: (state[key], wanted_state[key]) for key in state}
            for key, (got, wanted) in {"param": (param, other), **pairs}.items():
                assert got.shape == wanted.shape
                rtol, atol = TORCH[str(got.dtype.to_real()).removeprefix("torch.")]
                torch.testing.assert_close(
                    got,
                    wanted.to(got.dtype) if rounded else wanted,
                    rtol=rtol,
                    atol=atol,
                    equal_nan=True,
                    check_device=key != "step",
                    msg=lambda message, key=key, index=index: f"{key} {index}: {message}",
                )

    def _state(self, param: torch.Tensor, own: Sequence[str]) -> dict[str, Any]:
        """The state of a parameter less what torch's has not: for one, the step count of SGD, see ``gpuopt.SGD``."""
        state = {key: value for key, value in self.optimizer.state.get(param, {}).items() if key not in own}
        if isinstance(self.optimizer, gpuopt.SGD) and "step" in state:
            group = next(g for g in self.optimizer.param_groups if any(p is param for p in g["params"]))
            assert group["capturable"]
            assert group["dampening"]
            del state["step"]
        return state
