"""Checkpoints of the optimizers for PyTorch from the CPU to CUDA and back.

1. Training that goes from one device to the other, and back, has the bits of training on the CPU alone, with step
   counts on the host or, with ``capturable=True``, on the device. State follows its parameter, whatever its dtype.
2. torch.optim on CUDA, fused where it can be, goes on with what was saved, and gpuopt on the CPU with what torch saved:
   close to training by torch alone.
"""

from __future__ import annotations

from itertools import product

import pytest
import torch
from kit.checkpoints import END, OPTIONS, STOP, assert_same, checkpoint, new, params, resume, tensors, train, ways
from kit.tolerances import TORCH

import gpuopt
from gpuopt.bench.contenders.torch import steps_fused
from gpuopt.kernels.drivers import DRIVERS

EXTRAS = {
    "none": (torch.float32, {}),
    "master and ema": (torch.bfloat16, {"ema_decay": 0.9, "master_weights": True}),
    "24 bits": (torch.bfloat16, {"master_weights": "24bit", "state_dtype": torch.bfloat16}),
    "stochastic": (torch.bfloat16, {"stochastic_rounding": True, "seed": 3}),
    "bf16 state": (torch.float32, {"state_dtype": torch.bfloat16}),
    "8 bits": (torch.float32, {"state_dtype": "8bit"}),
}


def through_a_file(saved, path, device):
    torch.save(saved, path)
    return torch.load(path, weights_only=True, map_location=device)


@pytest.mark.parametrize("maps", [True, False], ids=["mapped", "left to load_state_dict"])
@pytest.mark.parametrize("capturable", [False, True], ids=["host", "device"])
@pytest.mark.parametrize(
    ("case", "extra"), [each for each in product(OPTIONS, EXTRAS) if not (each[0] == "Adagrad" and each[1] == "8 bits")]
)
def test_to_the_gpu_and_back(case, extra, capturable, maps, backend, tmp_path):
    dtype, extras = EXTRAS[extra]
    if capturable and not DRIVERS[backend].load().SCHEDULES:
        pytest.skip(f"{backend} does not follow a schedule")
    straight = new(gpuopt, case, params(dtype), **extras)
    train(straight, range(STOP))
    saved = through_a_file(checkpoint(straight), tmp_path / "c", "cuda" if maps else None)
    train(straight, range(STOP, END + 2))

    on_gpu = new(gpuopt, case, params(dtype, "cuda"), **extras, backend=backend)
    resume(on_gpu, saved, capturable=capturable)
    train(on_gpu, range(STOP, END))
    for state in on_gpu.state.values():
        assert all(entry.is_cuda for name, entry in state.items() if name != "step")
    saved = through_a_file(checkpoint(on_gpu), tmp_path / "c", "cpu" if maps else None)
    back = new(gpuopt, case, params(dtype), **extras)
    resume(back, saved, capturable=False)
    train(back, range(END, END + 2))
    ours, theirs = checkpoint(back), checkpoint(straight)
    if case == "SGD-dampening" and capturable:
        for state in ours["optimizer"]["state"].values():
            assert state.pop("step").item() > 0
    assert_same(ours, theirs)


@pytest.mark.parametrize("case", OPTIONS)
def test_to_torch_on_the_gpu_and_back(case, backend, tmp_path):
    fused = "fused" in ways(case) and steps_fused(OPTIONS[case][0], "cuda")
    way = {"fused": True} if fused else {"foreach": True}
    straight = new(torch.optim, case, params())
    train(straight, range(END))
    ours = new(gpuopt, case, params(), **way)  # torch moves step counts by what the checkpoint says of its way
    train(ours, range(2))
    theirs = new(torch.optim, case, params(device="cuda"), **way)
    resume(theirs, through_a_file(checkpoint(ours), tmp_path / "c", None))
    assert all(group[name] for group in theirs.param_groups for name in way)
    train(theirs, range(2, STOP))
    ours = new(gpuopt, case, params(device="cuda"), backend=backend)
    resume(ours, through_a_file(checkpoint(theirs), tmp_path / "c", None))
    train(ours, range(STOP, END - 2))
    back = new(gpuopt, case, params())
    resume(back, through_a_file(checkpoint(ours), tmp_path / "c", None))
    train(back, range(END - 2, END))
    rtol, atol = TORCH["float32"]
    ended, expected = tensors(checkpoint(back)), tensors(checkpoint(straight))
    assert ended.keys() == expected.keys()
    for name, tensor in ended.items():
        torch.testing.assert_close(tensor, expected[name], rtol=rtol, atol=atol, check_device=False)
