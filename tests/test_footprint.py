"""What is said of bytes per parameter is what an optimizer of PyTorch takes, and the README says the same.

1. Each choice, made as its options say, keeps so many bytes per parameter, counted from the tensors that there are.
2. Bytes moved are those that its launch reads and writes.
3. The table in the README has these numbers.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import gpuopt
from gpuopt.footprint import Choice, choices

NUMEL = 1024

README = (Path(__file__).parents[1] / "README.md").read_text()


@pytest.mark.parametrize("choice", list(choices()), ids=lambda choice: f"{choice.dtype} {choice.options}")
def test_bytes_are_those_of_an_optimizer(choice: Choice) -> None:
    param = torch.nn.Parameter(torch.ones(NUMEL, dtype=getattr(torch, choice.dtype)))
    param.grad = torch.ones_like(param)
    optimizer = eval(f"gpuopt.Adam([param], {choice.options})", {"gpuopt": gpuopt, "torch": torch, "param": param})
    optimizer.step()
    tensors = [param, *(tensor for key, tensor in optimizer.state[param].items() if key != "step")]
    assert sum(tensor.nbytes for tensor in tensors) == choice.stored * NUMEL
    (launch,) = optimizer._rows.select(captured=False)[0]._rows.launches
    assert launch.table.variant.bytes_per_element == choice.moved
    assert launch.table.variant == choice.variant


def test_the_readme_has_them() -> None:
    for choice in choices():
        sizes = [f"{choice.stored:g}", f"{choice.moved:g}"]
        cells = [choice.dtype, f"`{choice.options}`" if choice.options else "", *sizes]
        assert f"| {' | '.join(cells)} |".replace("|  |", "| |") in README
