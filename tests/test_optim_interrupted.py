"""Whatever is raised in a step leaves the optimizer whole, or one that says that it is not.

1. Raised before the first write, at whatever stage, an error or Ctrl-C leaves parameters, state, step counts and
   gradients as they were, and training goes on as if that step had not been tried.
2. Raised while the step writes, it is told of by every later step, until a state dict is loaded.
"""

from __future__ import annotations

import threading
from typing import Any

import pytest
import torch
from kit.pairs import bits, drawn

import gpuopt
from gpuopt import plan
from gpuopt.kernels.drivers import numpy as driver
from gpuopt.optim import base, device, rows, selection

STAGES: dict[str, tuple[Any, str]] = {
    "extras": (base.Fused, "_check_extras"),
    "capture": (base.Fused, "_is_captured"),
    "scaling": (base.Fused, "_take_scaling"),
    "settings": (base.Fused, "_row"),
    "schedule": (base.Fused, "_schedule_if_needed"),
    "rows that fit": (base.Fused, "_rows_that_fit"),
    "recipe": (base.Fused, "_recipe"),
    "selection": (rows.Rows, "select"),
    "member": (rows, "member_of"),
    "device": (device.Device, "put"),
    "row": (plan.Plan, "put"),
    "launches": (plan.Plan, "select"),
    "gradients": (selection.Selection, "take"),
    "addresses": (plan.Selection, "move_grads"),
    "place": (selection.Selection, "place"),
    "hyper rows": (selection, "row_at"),
    "tables": (driver, "place"),
    "preparation": (driver, "prepare"),
    "squares": (driver, "sum_squares"),
    "norm": (base, "read"),
    "clipping": (base, "clip"),
}
"""What is called before the first write, and where it is found."""

DURING: dict[str, tuple[Any, str]] = {
    "state": (rows.Rows, "keep_state"),
    "launch": (driver, "step"),
    "one of two launches": (plan.Launch, "step"),
    "autograd": (torch.autograd.graph, "increment_version"),
}
"""What is called from the first write on."""


def params() -> list[torch.nn.Parameter]:
    shapes = [((3, 4), torch.float32), ((5,), torch.float32), ((6,), torch.float64)]
    return [torch.nn.Parameter(drawn(torch.empty(shape, dtype=dtype), 3)) for shape, dtype in shapes]


def optimizer_of(params: list[torch.nn.Parameter]) -> Any:
    groups = [{"params": params[:1]}, {"params": params[1:], "lr": 0.1}]
    return gpuopt.AdamW(groups, lr=0.01, max_grad_norm=0.5, ema_decay=0.9, zero_grads=True, backend="numpy")


def give(params: list[torch.nn.Parameter], seed: int) -> None:
    """Other parameters have gradients at every other step, so that rows are made and selected anew."""
    for index, param in enumerate(params):
        param.grad = drawn(param, seed) if seed % 2 or index else None


def snapshot(optimizer: torch.optim.Optimizer, params: list[torch.nn.Parameter]) -> list[Any]:
    return [
        (
            bits(param),
            None if param.grad is None else bits(param.grad),
            {key: bits(value) for key, value in optimizer.state.get(param, {}).items()},
        )
        for param in params
    ]


class Interrupt:
    """Raises ``error`` once it is armed, at the n-th call of a function from then on, before it or after it."""

    def __init__(self, error: BaseException, after: bool) -> None:
        self.error, self.after, self.left = error, after, -1

    def put(self, monkeypatch: pytest.MonkeyPatch, where: Any, name: str) -> None:
        """Puts itself in the place of a function."""
        original = getattr(where, name)

        def call(*arguments: Any, **keywords: Any) -> Any:
            is_now, self.left = self.left == 0, self.left - 1
            if is_now and not self.after:
                raise self.error
            result = original(*arguments, **keywords)
            if is_now:
                raise self.error
            return result

        monkeypatch.setattr(where, name, call)

    def stops(self, optimizer: Any, nth: int) -> bool:
        """Steps, and returns whether the n-th call has come and stopped it."""
        self.left = nth
        try:
            optimizer.step()
        except type(self.error) as caught:
            return caught is self.error
        finally:
            self.left = -1
        return False


@pytest.mark.parametrize("error", [MemoryError(), KeyboardInterrupt()], ids=["error", "ctrl-c"])
@pytest.mark.parametrize("after", [False, True], ids=["before it", "after it"])
@pytest.mark.parametrize("stage", STAGES)
def test_before_the_first_write_nothing_has_changed(
    stage: str, after: bool, error: BaseException, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, theirs = params(), params()
    optimizer, twin = optimizer_of(ours), optimizer_of(theirs)
    interrupt = Interrupt(error, after)
    interrupt.put(monkeypatch, *STAGES[stage])
    stopped = 0
    for seed in range(4):
        give(ours, seed)
        give(theirs, seed)
        before = snapshot(optimizer, ours)
        for nth in range(20):
            if not interrupt.stops(optimizer, nth):  # so many calls there are none
                break
            assert snapshot(optimizer, ours) == before
            stopped += 1
        twin.step()
        assert snapshot(optimizer, ours) == snapshot(twin, theirs)
    assert stopped


@pytest.mark.parametrize("error", [MemoryError(), KeyboardInterrupt()], ids=["error", "ctrl-c"])
@pytest.mark.parametrize("after", [False, True], ids=["before it", "after it"])
@pytest.mark.parametrize("stage", DURING)
@pytest.mark.parametrize("steps", [0, 1])
def test_an_interrupted_write_is_told_of(
    stage: str, steps: int, after: bool, error: BaseException, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = params()
    optimizer = optimizer_of(ours)
    give(ours, 1)
    for _ in range(steps):
        optimizer.step()
    interrupt = Interrupt(error, after)
    interrupt.put(monkeypatch, *DURING[stage])
    assert interrupt.stops(optimizer, 0)
    before = snapshot(optimizer, ours)
    for _ in range(2):
        with pytest.raises(RuntimeError, match="an earlier step was interrupted while it wrote"):
            optimizer.step()
        assert snapshot(optimizer, ours) == before
    optimizer.load_state_dict(optimizer.state_dict())
    optimizer.step()
    assert snapshot(optimizer, ours) != before


def test_an_interrupt_as_a_step_begins_or_ends_does_not_lock_others_out() -> None:
    class Interrupting(dict[str, int]):
        def setdefault(self, *arguments: Any) -> Any:
            super().setdefault(*arguments)
            raise KeyboardInterrupt

    ours = params()
    optimizer = optimizer_of(ours)
    give(ours, 1)
    optimizer._stepping = Interrupting()
    with pytest.raises(KeyboardInterrupt):
        optimizer.step()
    assert optimizer._stepping == {}
    optimizer._stepping = {"thread": threading.get_ident()}  # as one leaves it that comes while this is cleared
    optimizer.step()
    thread = threading.Thread(target=optimizer.step)
    thread.start()
    thread.join()
    assert {float(optimizer.state[param]["step"]) for param in ours} == {2.0}


def test_a_step_in_a_closure_of_another_is_a_step() -> None:
    ours = params()
    optimizer = optimizer_of(ours)
    give(ours, 1)
    optimizer.step(optimizer.step)
    assert {float(optimizer.state[param]["step"]) for param in ours} == {2.0}
