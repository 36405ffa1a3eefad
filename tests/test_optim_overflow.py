"""Overflow under ``torch.amp.GradScaler``: for every class, at the first step and later, in one group of two.

1. Where a gradient is infinite or undefined, parameters, state, averages, originals and step counts keep their bits.
2. Training around it comes to what it comes to by torch.optim under the same scaler, fused and not, and so does the
   history of the scale: whether or not ``unscale_`` comes before, with clipping, which is by the norm of the unscaled
   gradients, and with every extra.
3. Gradients keep their bits, or are set to zero where that is asked for and the step is not skipped.
4. A first step that is skipped is not the first: the next has no dampening.

``tests/interpreted/test_optim_overflow.py`` demands the same where only the device knows of the overflow.
"""

from __future__ import annotations

import pytest
import torch
from kit.checkpoints import bits, ways
from kit.overflow import CASES, EXTRAS, MODES, OVERFLOWS, Overflow, assert_as_by_torch, new_scaler

import gpuopt


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("overflow", OVERFLOWS)
@pytest.mark.parametrize("case", CASES)
def test_nothing_changes_and_training_goes_on_as_by_torch(case, overflow, mode):
    sane = [way for way in ways(case) if not (way == "fused" and case.startswith("SGD") and "first" in overflow)]
    assert_as_by_torch(case, OVERFLOWS[overflow], MODES[mode], sane)  # torch's keeps a buffer that nothing has filled


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("overflow", OVERFLOWS)
@pytest.mark.parametrize("extra", EXTRAS)
@pytest.mark.parametrize("case", ["AdamW", "SGD-dampening"])
def test_extras(case, extra, overflow, mode):
    assert_as_by_torch(case, OVERFLOWS[overflow], MODES[mode], ["for-loop"], backend="numpy", **EXTRAS[extra])


def test_no_overflow():
    assert_as_by_torch("AdamW", Overflow((), 0), MODES["clip"], ["fused"])


@pytest.mark.parametrize("dampening", [0.0, 0.5])
def test_the_step_after_a_skipped_first_is_the_first(dampening):
    param, scaler = torch.nn.Parameter(torch.tensor([1.0, 2.0])), new_scaler()
    optimizer = gpuopt.SGD([param], lr=0.5, momentum=0.5, dampening=dampening)
    for grad in (float("inf"), 1.0, 1.0):
        optimizer.zero_grad()
        scaler.scale((param * grad).sum()).backward()
        scaler.step(optimizer)
        scaler.update()
    first, second = 1.0, 0.5 * 1.0 + (1 - dampening)
    assert param.tolist() == [1 - 0.5 * (first + second), 2 - 0.5 * (first + second)]


@pytest.mark.parametrize("unscales", [True, False])
def test_an_overflow_is_no_error_of_the_norm(unscales):
    param, scaler = torch.nn.Parameter(torch.ones(3)), new_scaler()
    optimizer = gpuopt.AdamW([param], max_grad_norm=1.0, error_if_nonfinite=True)
    for grad in (float("nan"), 1.0, float("inf"), 1.0):
        optimizer.zero_grad()
        before = bits(param)
        scaler.scale((param * grad).sum()).backward()
        if unscales:
            scaler.unscale_(optimizer)
        scaler.step(optimizer)
        scaler.update()
        assert (bits(param) == before) == (grad != 1.0)
    assert optimizer.last_grad_norm.item() == pytest.approx(3**0.5)


@pytest.mark.parametrize("library", [torch.optim, gpuopt])
def test_one_of_two_optimizers_has_no_gradient(library):
    """Then the scaler has found no infinity in it, nor the contrary."""
    one, other, scaler = torch.nn.Parameter(torch.ones(3)), torch.nn.Parameter(torch.ones(3)), new_scaler()
    optimizers = [library.SGD([param], lr=0.5, fused=True) for param in (one, other)]
    scaler.scale(one.sum()).backward()
    for optimizer in optimizers:
        scaler.step(optimizer)
    scaler.update()
    assert (one.tolist(), other.tolist()) == ([0.5] * 3, [1.0] * 3)


@pytest.mark.parametrize("library", [torch.optim, gpuopt])
def test_a_scale_of_the_optimizer_itself_multiplies(library):
    param, scaler = torch.nn.Parameter(torch.ones(3)), new_scaler()
    optimizer = library.SGD([param], lr=0.5, fused=True)
    optimizer.grad_scale = torch.tensor(4.0)
    scaler.scale(4 * param.sum()).backward()
    scaler.step(optimizer)
    scaler.update()
    assert param.tolist() == [0.5] * 3
    param.grad = torch.ones(3)
    optimizer.step()
    assert param.tolist() == [0.0] * 3
