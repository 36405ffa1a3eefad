"""Overflow under both ``GradScaler``, torch's and gpuopt's: every class, at the first step and later, in one group.

1. Where a gradient is infinite or undefined, parameters, state, averages, originals and step counts keep their bits.
2. Training around it comes to what it comes to by torch.optim under the same scaler, fused and not, and so does the
   history of the scale: whether or not ``unscale_`` comes before, with clipping, which is by the norm of the unscaled
   gradients, and with every extra.
3. Gradients keep their bits, or are set to zero where that is asked for and the step is not skipped.
4. A first step that is skipped is not the first: the next has no dampening.
5. ``gpuopt.GradScaler`` comes to the same without torch's pass over the gradients, for gpuopt's optimizers; float64
   whose squares overflow do not count as infinite. Others, and what ``unscale_`` has seen, it leaves to torch.
6. It takes four operations to tell an overflow from the sums of squares, each a launch on a GPU, one more where there
   are several sets of formats.

``tests/interpreted/test_optim_overflow.py`` demands the same where only the device knows of the overflow.
"""

from __future__ import annotations

import weakref
from types import SimpleNamespace

import pytest
import torch
from kit.checkpoints import bits, ways
from kit.operations import operations
from kit.overflow import CASES, EXTRAS, MODES, OVERFLOWS, Overflow, assert_as_by_torch, new_scaler

import gpuopt
from gpuopt.optim.norm import find_inf


@pytest.mark.parametrize("fused", [True, None], ids=["fused", "not fused"])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("overflow", OVERFLOWS)
@pytest.mark.parametrize("case", CASES)
def test_nothing_changes_and_training_goes_on_as_by_torch(case, overflow, mode, fused):
    sane = [way for way in ways(case) if not (way == "fused" and case.startswith("SGD") and "first" in overflow)]
    assert_as_by_torch(
        case, OVERFLOWS[overflow], MODES[mode], sane, fused=fused
    )  # torch's keeps a buffer that nothing has filled


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("overflow", OVERFLOWS)
@pytest.mark.parametrize("extra", EXTRAS)
@pytest.mark.parametrize("case", ["AdamW", "SGD-dampening"])
def test_extras(case, extra, overflow, mode):
    assert_as_by_torch(case, OVERFLOWS[overflow], MODES[mode], ["for-loop"], backend="numpy", **EXTRAS[extra])


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("overflow", OVERFLOWS)
@pytest.mark.parametrize("case", CASES)
def test_the_scaler_of_gpuopt(case, overflow, mode):
    assert_as_by_torch(case, OVERFLOWS[overflow], MODES[mode], ["for-loop"], gpuopt.GradScaler, fused=None)


@pytest.mark.parametrize("mode", ["step", "clip"])
@pytest.mark.parametrize("overflow", OVERFLOWS)
@pytest.mark.parametrize("extra", EXTRAS)
def test_extras_under_the_scaler_of_gpuopt(extra, overflow, mode):
    made = {"backend": "numpy", **EXTRAS[extra]}
    assert_as_by_torch("AdamW", OVERFLOWS[overflow], MODES[mode], ["for-loop"], gpuopt.GradScaler, None, **made)


@pytest.mark.parametrize(
    ("library", "unscales", "passes"),
    [(gpuopt, False, 0), (gpuopt, True, 1), (torch.optim, False, 1), (torch.optim, True, 1)],
    ids=["gpuopt", "gpuopt-unscale", "torch", "torch-unscale"],
)
def test_the_scaler_of_gpuopt_spares_a_pass(library, unscales, passes, monkeypatch):
    original, count = torch._amp_foreach_non_finite_check_and_unscale_, 0

    def counting(*arguments):
        nonlocal count
        count += 1
        return original(*arguments)

    monkeypatch.setattr(torch, "_amp_foreach_non_finite_check_and_unscale_", counting)
    param, scaler = torch.nn.Parameter(torch.ones(3)), new_scaler(gpuopt.GradScaler)
    optimizer = library.SGD([param], lr=0.5)
    scaler.scale(param.sum()).backward()
    if unscales:
        scaler.unscale_(optimizer)
    scaler.step(optimizer)
    scaler.update()
    assert (param.tolist(), count) == ([0.5] * 3, passes)


@pytest.mark.parametrize("huge", [1e200, float("inf"), float("nan")])
def test_squares_of_float64_that_overflow(huge):
    param, scaler = torch.nn.Parameter(torch.zeros(2, dtype=torch.float64)), new_scaler(gpuopt.GradScaler)
    optimizer = gpuopt.SGD([param, torch.nn.Parameter(torch.zeros(2))], lr=1.0)
    scaler.scale(torch.zeros(()))
    param.grad = torch.tensor([64.0, huge], dtype=torch.float64)
    scaler.step(optimizer)
    scaler.update()
    assert param.tolist() == ([-1.0, -huge / 64] if huge == 1e200 else [0.0, 0.0])
    assert scaler.get_scale() == (64.0 if huge == 1e200 else 32.0)


each_scaler = pytest.mark.parametrize("kind", [torch.amp.GradScaler, gpuopt.GradScaler], ids=["torch", "gpuopt"])


@each_scaler
@pytest.mark.parametrize("gap", [1, 2])
def test_what_is_packed_is_not_stale_after_an_overflow(kind, gap):
    """Gradients of another order of axes than their parameters', and parameters with gaps."""
    made = torch.nn.Parameter(torch.zeros(3, 2 * gap)[:, ::gap])
    optimizer, scaler = gpuopt.SGD([made], lr=1.0), new_scaler(kind)
    scaler.scale(torch.zeros(()))
    made.grad = torch.zeros(2, 3).t()
    for step, value in enumerate([1.0, float("inf"), 1.0, 2.0, 1.0]):
        made.grad.fill_(value * scaler.get_scale())
        if step == 2:
            with torch.no_grad():
                made.fill_(100.0)
        scaler.step(optimizer)
        scaler.update()
    assert made.tolist() == [[96.0] * 2] * 3


def test_a_skipped_step_keeps_no_gradient_alive():
    param, scaler = torch.nn.Parameter(torch.zeros(3)), new_scaler(gpuopt.GradScaler)
    optimizer = gpuopt.SGD([param], lr=1.0)
    for value in (1.0, 1.0, float("inf")):
        optimizer.zero_grad()
        scaler.scale((param * value).sum()).backward()
        scaler.step(optimizer)
        scaler.update()
    last = weakref.ref(param.grad)
    optimizer.zero_grad()
    assert last() is None


@each_scaler
@pytest.mark.parametrize("wide", [1, 0])
def test_an_empty_tensor_beside_float64(kind, wide):
    made = [torch.nn.Parameter(torch.zeros(numel, dtype=torch.float64)) for numel in (0, wide)]
    optimizer, scaler = gpuopt.SGD(made, lr=1.0), new_scaler(kind)
    scaler.scale(sum(param.sum() for param in made).float()).backward()
    scaler.step(optimizer)
    scaler.update()
    assert made[1].tolist() == [-1.0] * wide


@pytest.mark.parametrize("extra", [{}, {"fused": True}], ids=["", "fused"])
def test_a_step_that_fails_leaves_no_scale_behind(extra):
    param, scaler = torch.nn.Parameter(torch.zeros(3)), new_scaler(gpuopt.GradScaler)
    optimizer = gpuopt.SGD([param], lr=1.0, **extra)
    scaler.scale(param.sum()).backward()
    optimizer.param_groups[0]["lr"] = "1"
    with pytest.raises(TypeError, match="lr of group 0"):
        scaler.step(optimizer)
    optimizer.param_groups[0]["lr"] = 1.0
    param.grad = torch.ones(3)
    optimizer.step()
    assert param.tolist() == [-1.0] * 3


def test_a_step_that_fails_before_it_looks_leaves_nothing_behind():
    param, scaler = torch.nn.Parameter(torch.zeros(3)), new_scaler(gpuopt.GradScaler)
    optimizer = gpuopt.SGD([param], lr=1.0)
    scaler.scale(param.sum()).backward()
    optimizer.max_grad_norm = -1.0
    with pytest.raises(ValueError, match="max_grad_norm"):
        scaler.step(optimizer)
    optimizer.max_grad_norm = None
    param.grad.fill_(float("inf"))
    optimizer.step()
    assert param.tolist() == [-float("inf")] * 3


def test_the_default_dtype_does_not_matter():
    param, scaler = torch.nn.Parameter(torch.ones(3)), new_scaler(gpuopt.GradScaler)
    optimizer = gpuopt.SGD([param], lr=0.5)
    scaler.scale(param.sum()).backward()
    torch.set_default_dtype(torch.float64)
    try:
        scaler.step(optimizer)
        scaler.update()
    finally:
        torch.set_default_dtype(torch.float32)
    assert param.tolist() == [0.5] * 3


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


each_pair = pytest.mark.parametrize(
    ("library", "kind"),
    [(torch.optim, torch.amp.GradScaler), (gpuopt, torch.amp.GradScaler), (gpuopt, gpuopt.GradScaler)],
    ids=["torch", "gpuopt", "gpuopt-scaler"],
)


@each_pair
def test_one_of_two_optimizers_has_no_gradient(library, kind):
    """Then the scaler has found no infinity in it, nor the contrary."""
    one, other, scaler = torch.nn.Parameter(torch.ones(3)), torch.nn.Parameter(torch.ones(3)), new_scaler(kind)
    optimizers = [library.SGD([param], lr=0.5, fused=True) for param in (one, other)]
    scaler.scale(one.sum()).backward()
    for optimizer in optimizers:
        scaler.step(optimizer)
    scaler.update()
    assert (one.tolist(), other.tolist()) == ([0.5] * 3, [1.0] * 3)


@each_pair
def test_no_gradient_at_all(library, kind):
    param, scaler = torch.nn.Parameter(torch.ones(3)), new_scaler(kind)
    scaler.scale(torch.ones(()))
    scaler.step(library.SGD([param], lr=0.5, fused=True))
    with pytest.raises(AssertionError, match="No inf checks were recorded prior to update"):
        scaler.update()


@each_pair
def test_a_scale_of_the_optimizer_itself_multiplies(library, kind):
    param, scaler = torch.nn.Parameter(torch.ones(3)), new_scaler(kind)
    optimizer = library.SGD([param], lr=0.5, fused=True)
    optimizer.grad_scale = torch.tensor(4.0)
    scaler.scale(4 * param.sum()).backward()
    scaler.step(optimizer)
    scaler.update()
    assert param.tolist() == [0.5] * 3
    param.grad = torch.ones(3)
    optimizer.step()
    assert param.tolist() == [0.0] * 3


def test_state_that_was_made_for_a_skipped_step_is_made_anew():
    """Else an original of a parameter from before it was changed would take its place."""
    param = torch.nn.Parameter(torch.ones(3, dtype=torch.bfloat16))
    param.grad = torch.zeros_like(param)
    optimizer = gpuopt.SGD([param], lr=0.5, master_weights=True, ema_decay=0.5)
    for found_inf in (1.0, 0.0):
        optimizer.found_inf = torch.tensor(found_inf)
        param.data.fill_(2 - found_inf)
        optimizer.step()
        assert (param in optimizer.state) == (found_inf == 0)
    assert param.tolist() == optimizer.state[param]["ema"].tolist() == [2.0] * 3


@pytest.mark.parametrize("last", [1e300, float("inf"), float("nan")])
@pytest.mark.parametrize("sets", [1, 3])
def test_operations_to_tell_an_overflow(sets, last):
    sums = [torch.tensor([0.0, 2.0, last], dtype=torch.float64), torch.tensor([], dtype=torch.float64)]
    sums += [torch.ones(2, dtype=torch.float64)] * (sets - 1)
    found_inf, steps = torch.zeros(()), [SimpleNamespace(grads=[torch.ones(1)])]
    made = operations(lambda: found_inf.copy_(find_inf(steps, sums, found_inf.device)))
    assert found_inf.item() == float(last != 1e300)
    assert made == ["aten::cat"] * (sets > 1) + ["aten::amax", "aten::sub", "aten::ne", "aten::copy_"]


@pytest.mark.parametrize("last", [1e200, float("inf"), float("nan")])
@pytest.mark.parametrize("dtypes", [[torch.float64] * 2, [torch.float64, torch.float16, torch.bfloat16]], ids=str)
def test_an_overflow_among_gradients_of_float64(dtypes, last):
    grads = [torch.ones(3, dtype=dtype) for dtype in dtypes] + [torch.ones(0, dtype=torch.float64)]
    grads[0][1] = last
    sums = [torch.full((2,), float("inf"), dtype=torch.float64)]
    found = find_inf([SimpleNamespace(grads=grads)], sums, torch.device("cpu"))
    assert found.item() == (last != 1e200)
