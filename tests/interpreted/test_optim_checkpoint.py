"""Checkpoints of the optimizers for PyTorch on the Triton backend, from and to another.

Training that Numba begins, with the step counts on the host, and Triton ends, with them there too or on the device
(``capturable=True``), gives the bits of training by Numba alone. So does the contrary, through a file or not.
"""

from __future__ import annotations

import pytest
import torch
from kit.checkpoints import OPTIONS, STOP, assert_same, checkpoint, new, params, resume, through_a_file, train

import gpuopt

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")

END = STOP + 2


def optimizer(case, backend, extras):
    return new(
        gpuopt, case, params(torch.bfloat16 if "master_weights" in extras else torch.float32), **extras, backend=backend
    )


def without_step(saved):
    """A checkpoint without the step count that SGD has only where the device counts."""
    states = saved["optimizer"]["state"].items()
    state = {index: {name: entry for name, entry in state.items() if name != "step"} for index, state in states}
    return {**saved, "optimizer": {"state": state}}


@pytest.mark.parametrize("capturable", [False, True], ids=["host", "device"])
@pytest.mark.parametrize(
    ("case", "extras"),
    [(case, {}) for case in OPTIONS] + [("AdamW", {"ema_decay": 0.9, "master_weights": True})],
    ids=[*OPTIONS, "AdamW-extras"],
)
def test_another_backend_goes_on_with_the_same_bits(case, extras, capturable):
    straight = optimizer(case, "numba", extras)
    train(straight, range(STOP))
    saved = through_a_file(checkpoint(straight))
    train(straight, range(STOP, END))

    triton = optimizer(case, "triton", extras)
    resume(triton, saved, capturable=capturable)
    train(triton, [STOP])
    assert all(state["step"].dtype is torch.float32 for state in triton.state.values() if "step" in state)
    back = optimizer(case, "numba", extras)
    resume(back, through_a_file(checkpoint(triton)), capturable=False)
    triton.backend = "numba"
    for after in (back, triton):
        train(after, range(STOP + 1, END))
        if case == "SGD-dampening" and capturable:
            counts = [state["step"].item() for state in after.state.values()]
            assert set(counts) == {1 + END - STOP}  # that there was a step is all that the host knew
        ours, theirs = checkpoint(after), checkpoint(straight)
        if case.startswith("SGD"):
            ours, theirs = without_step(ours), without_step(theirs)
        assert_same(ours, theirs)
