"""Sparse gradients, as those of an embedding may be, are stepped as torch.optim does it where it does: SGD and Adagrad.

1. Parameters and state have the bits of torch.optim's, for what it can combine with sparse gradients; also where
   gradients are sparse in some steps and dense in others, and where other parameters have dense ones, which are
   stepped as ever.
2. No dense tensor of the parameter's size is made for a step, but for the state at the first.
3. Checkpoints go to torch.optim and come back. Under both ``GradScaler`` an overflow changes nothing.
4. What passes over whole tensors is refused with them, by name, before anything is written.
"""

from __future__ import annotations

import re
from copy import deepcopy
from typing import Any

import pytest
import torch
from kit.pairs import Pair, bits, drawn
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

import gpuopt

pytestmark = pytest.mark.filterwarnings("ignore:Sparse invariant checks are implicitly disabled")  # once, by Adagrad

OPTIONS: dict[str, tuple[str, dict[str, Any]]] = {
    "SGD": ("SGD", {"lr": 0.1}),
    "SGD-maximize": ("SGD", {"lr": 0.1, "maximize": True}),
    "SGD-momentum": ("SGD", {"lr": 0.1, "momentum": 0.9, "dampening": 0.3}),
    "SGD-nesterov": ("SGD", {"lr": 0.1, "momentum": 0.9, "nesterov": True}),
    "Adagrad": ("Adagrad", {"lr": 0.1, "lr_decay": 0.1, "initial_accumulator_value": 0.2}),
    "Adagrad-maximize": ("Adagrad", {"lr": 0.1, "maximize": True}),
}

each_case = pytest.mark.parametrize("case", OPTIONS)

ROWS, WIDTH = 50, 3


def parameters() -> list[nn.Parameter]:
    return [nn.Parameter(drawn(torch.empty(shape), 5)) for shape in [(4,), (ROWS, WIDTH), (2, 2)]]


def sparse(seed: int, rows: int = ROWS) -> torch.Tensor:
    """A gradient with some rows, one of them twice."""
    generator = torch.Generator().manual_seed(seed)
    at = torch.randint(rows, (1, 6), generator=generator)
    at[0, 1] = at[0, 0]
    values = torch.randn(6, WIDTH, generator=generator)
    return torch.sparse_coo_tensor(at, values, (rows, WIDTH), check_invariants=True)


def set_grads(params: list[nn.Parameter], seed: int, dense: bool = False) -> None:
    for index in (0, 2):
        params[index].grad = drawn(params[index], 10 * seed + index)
    params[1].grad = drawn(params[1], seed) if dense else sparse(seed)


def pair_of(case: str, **extras: Any) -> Pair:
    name, options = OPTIONS[case]
    ours, theirs = parameters(), parameters()
    expected = getattr(torch.optim, name)(theirs, **options, foreach=False)
    return Pair(ours, theirs, getattr(gpuopt, name)(ours, **options, **extras), expected)


def step(pair: Pair, seed: int, dense: bool = False) -> None:
    for params, optimizer in pair.both():
        set_grads(list(params), seed, dense)
        optimizer.step()


def assert_same_bits(pair: Pair, at: int = 1) -> None:
    """Demands what torch has of a parameter that had sparse gradients alone."""
    param, other = pair.ours[at], pair.theirs[at]
    state, wanted = pair.optimizer.state.get(param, {}), pair.expected.state.get(other, {})
    assert bits(param) == bits(other)
    assert {key for key, value in state.items() if value is not None} == {k for k, v in wanted.items() if v is not None}
    for key, value in state.items():
        assert value.is_sparse == wanted[key].is_sparse
        assert bits(value.to_dense()) == bits(wanted[key].to_dense())


@each_case
def test_they_are_stepped_as_by_torch(case: str) -> None:
    pair = pair_of(case)
    for seed in range(4):
        step(pair, seed)
        assert_same_bits(pair)
        if seed == 2:  # none for the others
            for param in (*pair.ours, *pair.theirs):
                param.grad = sparse(9) if param.numel() == ROWS * WIDTH else None
            pair.optimizer.step()
            pair.expected.step()
    for at in (0, 2):
        torch.testing.assert_close(pair.ours[at], pair.theirs[at])


@pytest.mark.parametrize("nnz", [0, 3])
@pytest.mark.parametrize(("shape", "dims"), [((7,), 1), ((4, 5), 2), ((4, 3, 2), 1), ((4, 3, 2), 2)], ids=str)
@each_case
def test_sparse_in_some_dimensions(case: str, shape: tuple[int, ...], dims: int, nnz: int) -> None:
    ours, theirs = (nn.Parameter(drawn(torch.empty(shape), 5)) for _ in range(2))
    name, options = OPTIONS[case]
    optimizer = getattr(gpuopt, name)([ours], **options)
    expected = getattr(torch.optim, name)([theirs], **options, foreach=False)
    for seed in range(3):
        at = torch.arange(nnz * dims).reshape(dims, nnz) % torch.tensor(shape[:dims]).unsqueeze(1)
        values = drawn(torch.empty(nnz, *shape[dims:]), seed)
        for param in (ours, theirs):
            param.grad = torch.sparse_coo_tensor(at, values, shape, check_invariants=True)
        optimizer.step()
        expected.step()
    assert bits(ours) == bits(theirs)


@pytest.mark.parametrize("order", ["sparse first", "dense first"])
@pytest.mark.parametrize("case", ["SGD", "SGD-maximize", "Adagrad", "Adagrad-maximize"])
def test_sparse_in_some_steps_and_dense_in_others(case: str, order: str) -> None:
    pair = pair_of(case)
    for seed in range(6):
        step(pair, seed, dense=bool(seed % 2) == (order == "sparse first"))
    pair.assert_close()


def test_momentum_that_began_dense() -> None:
    pair = pair_of("SGD-momentum")
    for seed, dense in enumerate([True, False, True, False]):
        step(pair, seed, dense)
    pair.assert_close()


def test_a_sum_starts_from_what_the_constructor_says() -> None:
    ours, theirs = (nn.Parameter(torch.ones(ROWS, WIDTH)) for _ in range(2))
    for param, library in ((ours, gpuopt), (theirs, torch.optim)):
        optimizer = library.Adagrad([{"params": [param], "initial_accumulator_value": 4.0}], lr=0.1)
        param.grad = sparse(0)
        optimizer.step()
    assert bits(ours) == bits(theirs)


def test_what_torch_has_no_arithmetic_for_is_refused() -> None:
    dense, half = nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(ROWS, WIDTH, dtype=torch.float16))
    dense.grad, half.grad = torch.ones(3), sparse(0).half()
    optimizer = gpuopt.SGD([dense, half], lr=0.1, momentum=0.9)
    for _ in range(2):
        with pytest.raises(RuntimeError, match=r"momentum must be 0 where a gradient is sparse .* float16 on a CPU"):
            optimizer.step()
    assert dense.tolist() == [1.0] * 3
    half.grad = None
    optimizer.step()


def test_momentum_that_began_sparse_meets_a_dense_gradient() -> None:
    pair = pair_of("SGD-momentum")
    step(pair, 0)
    before = [bits(param) for param in pair.ours]
    set_grads(list(pair.ours), 1, dense=True)
    with pytest.raises(RuntimeError, match="state of param 1 of group 0 must be dense, as its gradient is, but is"):
        pair.optimizer.step()
    assert [bits(param) for param in pair.ours] == before
    pair.optimizer.state[pair.ours[1]].clear()
    pair.optimizer.step()


@each_case
def test_an_embedding_learns(case: str) -> None:
    table = nn.Embedding.from_pretrained(torch.zeros(ROWS, WIDTH), freeze=False, sparse=True)
    name, options = OPTIONS[case]
    optimizer = getattr(gpuopt, name)(table.parameters(), **{**options, "maximize": False})
    losses = []
    for _ in range(40):
        optimizer.zero_grad()
        loss = (table(torch.tensor([1, 7, 7])) - 1).square().sum()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 2


class Largest(TorchDispatchMode):
    """Notes the most elements of any dense tensor that an operation makes."""

    numel = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        given = {each.untyped_storage().data_ptr() for each in args if _is_dense(each)}
        if _is_dense(made) and made.untyped_storage().data_ptr() not in given:
            self.numel = max(self.numel, made.untyped_storage().nbytes() // made.element_size())
        return made


def _is_dense(value: Any) -> bool:
    return isinstance(value, torch.Tensor) and value.layout is torch.strided and not value.is_meta


@each_case
def test_no_dense_temporary(case: str) -> None:
    rows = 10_000
    name, options = OPTIONS[case]
    param = nn.Parameter(torch.ones(rows, WIDTH))
    optimizer = getattr(gpuopt, name)([param], **options)
    for seed in range(3):
        param.grad = sparse(seed, rows)
        with Largest() as largest:
            optimizer.step()
        if seed or name == "SGD":
            assert largest.numel <= 64 * WIDTH


@each_case
def test_checkpoints_go_to_and_fro(case: str) -> None:
    pair, copy = pair_of(case), pair_of(case)
    for seed in range(2):
        step(pair, seed)
    for mine, other in zip((*pair.ours, *pair.theirs), (*copy.ours, *copy.theirs), strict=True):
        other.data.copy_(mine)
    copy.optimizer.load_state_dict(deepcopy(pair.expected.state_dict()))
    copy.expected.load_state_dict(deepcopy(pair.optimizer.state_dict()))
    step(pair, 5)
    step(copy, 5)
    for each in (copy.ours, copy.theirs):
        assert bits(each[1]) == bits(pair.ours[1])


@pytest.mark.parametrize("kind", [torch.amp.GradScaler, gpuopt.GradScaler], ids=["torch", "gpuopt"])
@each_case
def test_an_overflow_changes_nothing(case: str, kind: type[Any]) -> None:
    pair = pair_of(case)
    scalers = [kind("cpu", init_scale=4.0), torch.amp.GradScaler("cpu", init_scale=4.0)]
    for seed in range(4):
        for scaler, (params, optimizer) in zip(scalers, pair.both(), strict=True):
            scaler.scale(torch.ones(()))
            set_grads(list(params), seed)
            for param in params:
                param.grad = param.grad * scaler.get_scale() * (float("inf") if seed == 1 and param is params[1] else 1)
            scaler.step(optimizer)
            scaler.update()
        assert_same_bits(pair)
    assert scalers[0].get_scale() == scalers[1].get_scale() == 2.0


def test_gradients_are_zeroed() -> None:
    pair = pair_of("SGD", zero_grads=True)
    step(pair, 0)
    assert_same_bits(pair)
    for param in pair.ours:
        assert not param.grad.to_dense().any()


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "clipping": ({"max_grad_norm": 1.0}, "max_grad_norm must be None where a gradient is sparse"),
    "average": ({"ema_decay": 0.5}, "ema_decay must be None where a gradient is sparse"),
    "state_dtype": ({"state_dtype": torch.bfloat16}, "state_dtype must be None where a gradient is sparse"),
    "decay": ({"weight_decay": 0.5}, "weight_decay must be 0 where a gradient is sparse"),
}


@pytest.mark.parametrize("steps", [0, 2], ids=["at first", "later"])
@pytest.mark.parametrize("what", REFUSED)
@each_case
def test_what_passes_over_whole_tensors_is_refused(case: str, what: str, steps: int) -> None:
    pair = pair_of(case)
    for seed in range(steps):
        step(pair, seed)
    changes, message = REFUSED[what]
    for name, value in changes.items():
        if name == "weight_decay":
            pair.optimizer.param_groups[0][name] = value
        else:
            setattr(pair.optimizer, name, value)
    set_grads(list(pair.ours), 7)
    before = [bits(param) for param in pair.ours]
    for _ in range(2):
        with pytest.raises(RuntimeError, match=re.escape(f"{message} (grad 1 of group 0), but is ")):
            pair.optimizer.step()
    assert [bits(param) for param in pair.ours] == before
    assert all(len(pair.optimizer.state.get(param, {})) > 0 or not steps or "SGD" in case for param in pair.ours)


def test_an_original_is_refused_where_there_would_be_one() -> None:
    param = nn.Parameter(torch.ones(ROWS, WIDTH, dtype=torch.bfloat16))
    param.grad = sparse(0).bfloat16()
    optimizer = gpuopt.SGD([param], master_weights=True)
    with pytest.raises(RuntimeError, match="master_weights must be False where a gradient is sparse"):
        optimizer.step()
    optimizer.master_weights = False
    optimizer.step()


@pytest.mark.parametrize("extra", [{"fused": True}, {"zero_grads": True}], ids=str)
@each_case
def test_unscaling_in_the_step_is_refused(case: str, extra: dict[str, Any]) -> None:
    pair, scaler = pair_of(case, **extra), gpuopt.GradScaler("cpu", init_scale=2.0)
    scaler.scale(torch.ones(()))
    set_grads(list(pair.ours), 0)
    with pytest.raises(RuntimeError, match="fused and zero_grads must be off where a gradient is sparse"):
        scaler.step(pair.optimizer)
