"""What is stored does not depend on how a model is sharded, where its gradients do not.

1. Stochastic rounding, of parameters and of state, gives the bits of one process in every layout and on any number of
   processes: the random bits of an element are those of its place in the whole parameter.
2. So do originals of 32 and of 24 bits, whose remainders are DTensors as their parameters are.
3. Where that place cannot be told, stochastic rounding is refused in a sentence, before anything is written.
4. Flat parameters of FullyShardedDataParallel have float32 originals, with which its own checkpoints are gone on with.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from kit.sharded import LAYOUTS
from kit.sharded_stochastic import checkpointed_flat, stepped, stepped_where_cut_twice
from kit.world import Worlds

CASES = [(layout, size) for layout, (_, sizes) in LAYOUTS.items() for size in sizes]

OPTIONS: dict[str, tuple[str, dict[str, Any]]] = {
    "stochastic": ("AdamW", {"stochastic_rounding": True, "seed": 5}),
    "without state": ("SGD", {"stochastic_rounding": True}),
    "32 bits": ("AdamW", {"master_weights": True}),
    "24 bits, stochastic state": (
        "AdamW",
        {"master_weights": "24bit", "stochastic_rounding": True, "state_dtype": torch.bfloat16, "ema_decay": 0.5},
    ),
}


@pytest.mark.parametrize(("layout", "size"), CASES)
def test_bits_are_those_of_one_process(worlds: Worlds, layout: str, size: int) -> None:
    for name, options in OPTIONS.values():
        expected = stepped(None, name, options)
        for made in worlds(size).run(stepped, layout, name, options):
            assert all(map(torch.equal, made, expected))


CUT_TWICE = [
    (torch.bfloat16, {"stochastic_rounding": True}, True),
    (torch.float32, {"state_dtype": torch.bfloat16}, True),
    (torch.float32, {"state_dtype": "8bit"}, True),
    (torch.float32, {"stochastic_rounding": True}, False),
    (torch.bfloat16, {"stochastic_rounding": True, "master_weights": True, "state_dtype": torch.float32}, False),
]


def test_where_a_place_cannot_be_told(worlds: Worlds) -> None:
    for dtype, options, is_refused in CUT_TWICE:
        for said in worlds(4).run(stepped_where_cut_twice, dtype, options):
            start = "stochastic_rounding must be False, and state_dtype neither bfloat16 nor '8bit', for param 0 of"
            assert said.startswith(start) if is_refused else said == "nothing"


@pytest.mark.parametrize("width", [True, "24bit"])
@pytest.mark.parametrize("keeps_params", [False, True])
def test_flat_shards_keep_float32_originals(worlds: Worlds, keeps_params: bool, width: Any) -> None:
    for straight, resumed in worlds(2).run(checkpointed_flat, keeps_params, width):
        assert straight[1] == resumed[1] == {torch.float32}
        # Of parameters that are kept as views, torch.optim has other bits too once its state was saved and loaded.
        assert keeps_params or all(map(torch.equal, straight[0], resumed[0]))
