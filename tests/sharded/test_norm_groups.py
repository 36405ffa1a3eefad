"""A process group adds up the norm of what is no DTensor: stages of a pipeline, partitions, flat shards.

1. The norm is that of all stages, also where one has no gradient; an overflow in one has all skip, under gpuopt's
   scaler. Torch's is refused by all stages, which it would have scale otherwise.
2. ``ZeroRedundancyOptimizer`` and ``FullyShardedDataParallel`` come to what one process comes to that clips, in all
   processes alike.
3. A group is in no state dict; an optimizer that has one is not copied, and what is no group is refused. So is one of
   processes that share a mesh, and ``averaged_weights`` of flat shards, which would not be seen by their module.
"""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from kit import sharded_faults
from kit.sharded import batch_of, loss_of, new_model
from kit.tolerances import TORCH
from kit.world import Worlds
from torch import distributed
from torch.nn.utils import clip_grad_norm_

import gpuopt

NORM = 0.7


@pytest.mark.parametrize("lacks", [None, 0, 1])
def test_stages_of_a_pipeline(worlds: Worlds, lacks: int | None) -> None:
    params = [list(block.parameters()) for block in new_model().blocks]
    for rank, stage in enumerate(params):
        for index, param in enumerate(stage):
            param.grad = None if rank == lacks else torch.full_like(param, 0.1 * (rank + 1) + index)
    norm = clip_grad_norm_(params[0] + params[1], 0.5).item()
    rtol, atol = TORCH["float64"]
    results = worlds(2).run(sharded_faults.pipeline, lacks, None, None)
    assert results[0][0] == results[1][0] == pytest.approx(norm, rel=rtol)
    for (_, made, _), stage in zip(results, params, strict=True):
        gpuopt.AdamW(stage).step()
        torch.testing.assert_close(made, [param.detach() for param in stage], rtol=rtol, atol=atol)


@pytest.mark.parametrize("lacks", [None, 0])
def test_an_overflow_in_one_stage(worlds: Worlds, lacks: int | None) -> None:
    results = worlds(2).run(sharded_faults.pipeline, lacks, "gpuopt", float("inf"))
    for (_, made, scale), block in zip(results, new_model().blocks, strict=True):
        assert all(map(torch.equal, made, block.parameters()))
        assert scale == 1.0


@pytest.mark.parametrize("sharded", [False, True])
@pytest.mark.parametrize("fused", [False, True])
def test_torchs_scaler_is_refused(worlds: Worlds, fused: bool, sharded: bool) -> None:
    for error, stays in worlds(4).run(sharded_faults.overflow_in_a_stage, fused, sharded):
        assert "use gpuopt.GradScaler" in error
        assert stays


@pytest.mark.parametrize("kind", sharded_faults.SCALERS)
def test_an_overflow_that_the_host_would_wait_to_see(worlds: Worlds, kind: str) -> None:
    for *before, last in worlds(2).run(sharded_faults.overflow_later, kind):
        assert not any(before)
        assert ("use gpuopt.GradScaler" in last) == (kind == "torch")


def test_a_group_within_a_mesh_is_refused(worlds: Worlds) -> None:
    for error in worlds(2).run(sharded_faults.group_within_a_mesh):
        assert "norm_group must be of processes that hold other parameters, but of it [0, 1] are on one mesh" in error


@pytest.mark.parametrize(("how", "size"), [("zero", 2), ("fsdp1", 4), ("fsdp1 with its own parameters", 2)])
def test_partitions_and_flat_shards(worlds: Worlds, how: str, size: int) -> None:
    model = new_model()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    for step in range(5):
        optimizer.zero_grad()
        loss_of(model, batch_of(step)).backward()
        norm = clip_grad_norm_(model.parameters(), NORM)
        optimizer.step()
    assert norm > NORM
    if how == "zero":
        results = worlds(size).run(sharded_faults.zero_redundancy, NORM)
    else:
        results = worlds(size).run(sharded_faults.fully_sharded, NORM, how != "fsdp1")
    rtol, atol = TORCH["float64"]
    params = [param.detach().flatten() for param in model.parameters()]
    for made, its_norm in results:
        assert torch.equal(its_norm, results[0][1])
        torch.testing.assert_close(its_norm, norm, rtol=rtol, atol=atol)
        assert all(map(torch.equal, made, results[0][0]))
        flat = torch.cat([param.flatten() for param in made])
        torch.testing.assert_close(flat, torch.cat(params), rtol=rtol, atol=atol)


@pytest.fixture
def group() -> distributed.ProcessGroup:
    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    yield distributed.group.WORLD
    distributed.destroy_process_group()


def test_a_group_stays_where_it_is(group: distributed.ProcessGroup) -> None:
    param = torch.nn.Parameter(torch.ones(3))
    optimizer = gpuopt.SGD([param], max_grad_norm=1.0, norm_group=group)
    assert "norm_group" not in optimizer.state_dict()["param_groups"][0]
    for copied in (copy.deepcopy, pickle.dumps):
        with pytest.raises(TypeError, match="norm_group must be None for copies and pickles"):
            copied(optimizer)
    optimizer.norm_group = None
    assert copy.deepcopy(optimizer).max_grad_norm == 1.0


@pytest.mark.parametrize("wrong", ["world", 3, (0, 1)], ids=str)
def test_what_is_no_group(wrong: object) -> None:
    with pytest.raises(ValueError, match="norm_group must be a process group of torch"):
        gpuopt.SGD([torch.nn.Parameter(torch.ones(3))], norm_group=wrong)
