"""Steps in several threads and in several processes keep whole state, or are refused.

1. A step on a CPU runs on at most as many threads as PyTorch does, whatever Numba would take, and leaves that number
   as it is; a small one starts no threads.
2. Optimizers in threads of their own give the bits that they give one after the other. One optimizer in two threads
   takes whole steps, and refuses one that begins inside another.
3. A process that was forked after a step goes on with the same bits, and says that it does so on one thread.
4. Nobody imports what he does not use: with the backends of GPUs no Numba, with NumPy no PyTorch.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from typing import Any

import pytest
import torch
from kit import interpreter
from kit.pairs import bits, drawn

import gpuopt
from gpuopt.kernels.drivers import numba as driver

LARGE = 4 * driver.NUMEL_PER_THREAD


def run(code: str, **environment: str) -> str:
    return both(code, **environment)[0].strip()


def both(code: str, **environment: str) -> tuple[str, str]:
    """What a process of its own writes, and what it warns of."""
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout, done.stderr


# Threads of a step

THREADS = """
import torch, gpuopt
from gpuopt.kernels.drivers import numba as driver
torch.set_num_threads({threads})
compiled, used = driver.compiled, []
driver._threads_were = driver._threads
driver._threads = lambda wanted: (used.append(wanted), driver._threads_were(wanted))[1]
param = torch.nn.Parameter(torch.ones({numel}))
param.grad = torch.ones({numel})
optimizer = gpuopt.Adam([param], max_grad_norm=1.0)
for _ in range(2):
    optimizer.step()
import numba.np.ufunc.parallel as pool
print(max(used), torch.get_num_threads(), pool._is_initialized)
"""


@pytest.mark.parametrize(
    ("numel", "threads", "numbas", "used"), [(LARGE, 1, 4, 1), (LARGE, 2, 4, 2), (LARGE, 3, 2, 2), (5000, 2, 4, 1)]
)
def test_threads_are_at_most_those_of_torch(numel: int, threads: int, numbas: int, used: int) -> None:
    out = run(THREADS.format(numel=numel, threads=threads), NUMBA_NUM_THREADS=str(numbas))
    assert out == f"{used} {threads} {used > 1}"


def test_the_environment_is_heard() -> None:
    code = THREADS.format(numel=LARGE, threads="torch.get_num_threads()")
    assert run(code, OMP_NUM_THREADS="1", NUMBA_NUM_THREADS="4") == "1 1 False"


# Threads that step


def train(optimizer: Any, param: torch.nn.Parameter, steps: int) -> None:
    for seed in range(steps):
        param.grad = drawn(param, seed)
        optimizer.step()


@pytest.mark.parametrize("numel", [1000, LARGE])
def test_optimizers_in_threads_of_their_own(numel: int) -> None:
    def some() -> list[tuple[Any, torch.nn.Parameter, int]]:
        params = [torch.nn.Parameter(drawn(torch.empty(numel), seed)) for seed in range(4)]
        return [(gpuopt.AdamW([param], lr=0.1, max_grad_norm=1.0), param, 6) for param in params]

    together, alone = some(), some()
    threads = [threading.Thread(target=train, args=each) for each in together]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for each in alone:
        train(*each)
    for (optimizer, param, _), (other, twin, _) in zip(together, alone, strict=True):
        assert bits(param) == bits(twin)
        assert bits(optimizer.state[param]["exp_avg"]) == bits(other.state[twin]["exp_avg"])
        assert float(optimizer.state[param]["step"]) == 6


def test_one_optimizer_in_two_threads_takes_whole_steps() -> None:
    param, twin = (torch.nn.Parameter(torch.ones(LARGE)) for _ in range(2))
    param.grad, twin.grad = torch.full((LARGE,), 0.1), torch.full((LARGE,), 0.1)
    optimizer, other = gpuopt.AdamW([param]), gpuopt.AdamW([twin])
    taken, refused = [], []

    def step() -> None:
        for _ in range(40):
            try:
                optimizer.step()
                taken.append(1)
            except RuntimeError as error:
                refused.append(str(error))

    threads = [threading.Thread(target=step) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(taken) + len(refused) == 120
    assert set(refused) <= {"step must not be called while another thread is in a step of the same optimizer"}
    for _ in taken:
        other.step()
    assert float(optimizer.state[param]["step"]) == len(taken)
    assert bits(param) == bits(twin)


def test_a_step_inside_another_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    param = torch.nn.Parameter(torch.ones(3))
    param.grad = torch.ones(3)
    optimizer, step = gpuopt.SGD([param], lr=0.5), driver.step
    said: list[str] = []

    def refused() -> None:
        with pytest.raises(RuntimeError) as caught:
            optimizer.step()
        said.append(str(caught.value))

    def inside(*arguments: Any) -> None:
        other = threading.Thread(target=refused)
        other.start()
        other.join()
        step(*arguments)

    monkeypatch.setattr(driver, "step", inside)
    optimizer.step()
    assert said == ["step must not be called while another thread is in a step of the same optimizer"]
    assert param.tolist() == [0.5] * 3


# Processes

FORKED = """
import os, sys, warnings, torch, gpuopt
param = torch.nn.Parameter(torch.ones({numel}))
param.grad = torch.full_like(param, 0.1)
optimizer = gpuopt.AdamW([param], max_grad_norm=0.5)
for _ in range({before}):
    optimizer.step()
warnings.simplefilter("always")
pid = os.fork()
for _ in range(2):
    optimizer.step()
state = optimizer.state[param]
who = "parent" if pid else "child"
said = f"{{who}} {{param[0].item().hex()}} {{param[-1].item().hex()}} {{state['step'].item()}}\\n"
os.write(1, said.encode())  # at once, as both write to one pipe
if pid:
    assert os.waitpid(pid, 0)[1] == 0
os._exit(0)
"""


@pytest.mark.parametrize(("numel", "before"), [(1000, 1), (1000, 0), (LARGE, 1)])
def test_a_forked_process_goes_on(numel: int, before: int) -> None:
    written, warnings = both(FORKED.format(numel=numel, before=before))
    said = sorted(line.split(maxsplit=1) for line in written.splitlines() if line.startswith(("parent", "child")))
    assert [who for who, _ in said] == ["child", "parent"]
    assert said[0][1] == said[1][1]
    warned = warnings.count("gpuopt steps on one thread in a process that was forked")
    assert warned == (numel == LARGE)


# Imports

TORCH_ON_A_GPU = """
import sys, torch, gpuopt
param = torch.nn.Parameter(torch.ones(3))
param.grad = torch.ones(3)
optimizer = gpuopt.AdamW([param], backend="triton", max_grad_norm=1.0, ema_decay=0.5)
for _ in range(2):
    optimizer.step()
optimizer.load_state_dict(optimizer.state_dict())
print(sorted({name.partition(".")[0] for name in sys.modules} & {"numba", "llvmlite", "cupy"}))
"""

ARRAYS = """
import sys
import numpy as np
import gpuopt
param = np.ones(3)
gpuopt.arrays.Adam(backend={backend!r}).update({{"w": param}}, {{"w": np.ones(3)}})
print(sorted({{name.partition(".")[0] for name in sys.modules}} & {{"torch", "triton", "cupy", "numba"}}))
"""


def test_with_triton_nothing_of_numba_is_imported() -> None:
    """As the backend of a GPU is: here by Triton's interpreter, where its version can run."""
    reason = interpreter.unusable()
    if reason:
        pytest.skip(reason)
    assert run(TORCH_ON_A_GPU, TRITON_INTERPRET="1") == "[]"


@pytest.mark.parametrize(("backend", "imported"), [("numpy", []), ("numba", ["numba"])])
def test_with_arrays_nothing_of_torch_is_imported(backend: str, imported: list[str]) -> None:
    assert run(ARRAYS.format(backend=backend)) == str(imported)
