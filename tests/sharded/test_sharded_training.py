"""A sharded model comes to what one process comes to, and all processes to the same bits.

1. Under FSDP2 with uneven and empty shards, HSDP, tensor and sequence parallelism, FSDP2 with tensor parallelism, and
   on two meshes beside plain parameters: parameters after ten steps, of which every other clips, are those of
   torch.optim in one process, within tolerance. So are norms, which are the whole model's.
2. Parameters and norms have the same bits in all processes, and parameters by every driver for the host.
3. A gradient that is placed otherwise than its parameter, as a sum that is still to be made or as a copy, is taken for
   what it is, and the gradient is placed as the parameter then.
"""

from __future__ import annotations

import pytest
import torch
from kit.sharded import CLIPPED, LAYOUTS, RULES
from kit.sharded_training import CLIPPING, step_with_gradients_placed_otherwise, train, trained_alone
from kit.tolerances import TORCH
from kit.world import Worlds

CASES = [(layout, size) for layout, (_, sizes) in LAYOUTS.items() for size in sizes]


@pytest.mark.parametrize(("layout", "size"), CASES)
@pytest.mark.parametrize("rule", RULES)
def test_training(worlds: Worlds, layout: str, size: int, rule: str) -> None:
    world = worlds(size)
    rtol, atol = TORCH["float64"]
    expected = trained_alone(rule)
    first, *others = world.run(train, layout, rule, CLIPPING, "numba")
    torch.testing.assert_close(first["params"], expected["params"], rtol=rtol, atol=atol)
    torch.testing.assert_close(first["norms"], expected["norms"], rtol=rtol, atol=atol)
    assert sum(norm > CLIPPED for norm in first["norms"]) > len(CLIPPING) / 2
    for other in others:
        assert all(map(torch.equal, first["params"], other["params"]))
        assert first["norms"] == other["norms"]
    if size == 2:  # without clipping, since drivers add up squares of float64 in different orders
        one, other = (world.run(train, layout, rule, [None] * 3, backend)[0] for backend in ("numba", "numpy"))
        assert all(map(torch.equal, one["params"], other["params"]))


@pytest.mark.parametrize("zero_grads", [False, True])
def test_gradients_placed_otherwise(worlds: Worlds, zero_grads: bool) -> None:
    for made, expected, placed in worlds(2).run(step_with_gradients_placed_otherwise, zero_grads):
        assert all(map(torch.equal, made, expected))
        assert placed
