"""What is installed from a wheel is typed, as mypy and pyright see it at their strictest.

1. Classes and modules that are imported lazily have their types; keywords have theirs; unknown names are errors.
2. The Python snippets of the README pass.

``basedpyright`` is pyright with more rules, which ``typeCheckingMode`` "strict" leaves out.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from kit.building import build, copy_of_checkout

pytest.importorskip("build", reason="needs build")

ROOT = Path(__file__).resolve().parents[1]

ALONE = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "MYPYPATH")}
"""An environment that leads to no other gpuopt than that which is installed."""

SEEN = """
import gpuopt
import numpy as np
import torch
from gpuopt import Adagrad, AdamW, GradScaler, RMSprop
from gpuopt.kernels.rules import adam
from typing_extensions import assert_type

model = torch.nn.Linear(3, 3)
optimizer = AdamW(model.parameters(), lr=1e-3, max_grad_norm=1.0, ema_decay=0.9, fused=True)
assert_type(optimizer, gpuopt.optim.AdamW)
assert_type(optimizer.last_grad_norm, torch.Tensor | None)
assert_type(optimizer.max_grad_norm, float | None)
with optimizer.averaged_weights() as nothing:
    assert_type(nothing, None)
optimizer.step()
assert_type(optimizer.step(lambda: torch.ones(())), torch.Tensor)
torch.optim.lr_scheduler.StepLR(optimizer, 1)
scaler = GradScaler("cpu")
assert_type(scaler, gpuopt.optim.GradScaler)
assert_type(scaler.step(optimizer), float | None)
assert_type(gpuopt.SGD(model.parameters(), momentum=0.9), gpuopt.optim.SGD)
assert_type(RMSprop(model.parameters(), fused=True, state_dtype=torch.bfloat16), gpuopt.optim.RMSprop)
gpuopt.AdamW(model.parameters(), state_dtype="8bit").state_dict_as(torch.float32)
assert_type(Adagrad([{"params": model.parameters(), "lr": 0.1}]), gpuopt.optim.Adagrad)
arrays = gpuopt.arrays.Adam(lr=1e-3, weight_decay=0.1, backend="numpy")
assert_type(arrays, gpuopt.arrays.Adam)
assert_type((arrays.lr, arrays.iter, arrays.maximize, arrays.backend), tuple[float, int, bool, str | None])
assert_type(arrays.choice, gpuopt.backends.Choice | None)
arrays.update({"w": np.zeros(3)}, {"w": np.ones(3)})
gpuopt.arrays.AdamW(weight_decay=0.1, amsgrad=True, state_dtype=np.float32).state_dtype = "float64"
gpuopt.arrays.RMSProp(state_dtype="8bit").state_dtype = None
hyper = adam.hyper_at(step=1, lr=0.001, beta1=0.9, beta2=0.999, eps=1e-8)
p, g, m, v = np.zeros((4, 3))
gpuopt.arrays.step("adam", [p], [g], {"exp_avg": [m], "exp_avg_sq": [v]}, hyper)
"""

WRONG = [
    "gpuopt.Adamm",
    "from gpuopt import Lion",
    "gpuopt.AdamW(params, max_grad_norm='1')",
    "gpuopt.AdamW(params, grad_norm=1.0)",
    "gpuopt.SGD(params, betas=(0.9, 0.99))",
    "gpuopt.RMSprop(params, zero_grads=1)",
    "gpuopt.RMSprop(params, state_dtype='8 bit')",
    "gpuopt.SGD(params).state_dict_as('float32')",
    "gpuopt.Adam(params).averaged_weigths()",
    "gpuopt.GradScaler(5)",
    "gpuopt.arrays.Adam(betas=(0.9, 0.99))",
    "gpuopt.arrays.Adam(lr='0.1')",
    "gpuopt.arrays.SGD(backend=3)",
    "gpuopt.arrays.RMSProp(state_dtype=torch.float32)",
    "gpuopt.arrays.AdamW(weight_decay='1')",
    "gpuopt.arrays.Adam().updat({}, {})",
    "gpuopt.arrays.step('adam', [], [], {}, {}, backed='numpy')",
    "gpuopt.backends.chose('cpu')",
]

UNTYPED = "# mypy: allow-untyped-calls\n# pyright: reportUnknownMemberType=false\n"
"""PyTorch's own functions have not all got types."""


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an environment, in which gpuopt is from a wheel and all else from ours, and files to check."""
    folder = tmp_path_factory.mktemp("types")
    (made,) = build(copy_of_checkout(folder), folder / "dist", "--wheel")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", "env"], cwd=folder, check=True)
    site = Path(sysconfig.get_path("purelib", vars={"base": str(folder / "env")}))
    with zipfile.ZipFile(made) as archive:
        archive.extractall(site)
    (site / "ours.pth").write_text(sysconfig.get_path("purelib"))
    (folder / "seen.py").write_text(SEEN)
    for index, line in enumerate(WRONG):
        (folder / f"wrong_{index}.py").write_text(
            f"import gpuopt\nimport torch\nparams, _ = [torch.ones(3)], gpuopt\n{line}\n"
        )
    (folder / "snippets.py").write_text(UNTYPED + snippets())
    config = {"typeCheckingMode": "strict", "venvPath": ".", "venv": "env", "exclude": ["checkout", "env"]}
    (folder / "pyrightconfig.json").write_text(json.dumps(config | {"reportUnusedExpression": False}))
    return folder


def snippets() -> str:
    return "".join(re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL))


def by_mypy(project: Path) -> dict[str, list[str]]:
    pytest.importorskip("mypy", reason="needs mypy")
    files = sorted(path.name for path in project.glob("*.py"))
    options = ["--strict", "--output=json", "--no-error-summary", "--cache-dir=cache", "--python-executable"]
    python = str(project / "env" / "bin" / "python")
    command = [sys.executable, "-m", "mypy", *options, python, *files]
    done = subprocess.run(command, cwd=project, env=ALONE, capture_output=True, text=True, check=False)
    assert done.returncode in (0, 1), done.stderr + done.stdout
    found: dict[str, list[str]] = {name: [] for name in files}
    for line in done.stdout.splitlines():
        fault = json.loads(line)
        if fault["severity"] == "error":
            found.setdefault(fault["file"], []).append(f"{fault['line']}: {fault['message']}")
    return found


def by_pyright(project: Path) -> dict[str, list[str]]:
    program = shutil.which("basedpyright", path=str(Path(sys.executable).parent))
    if program is None:
        pytest.skip("needs basedpyright")
    command = [program, "--outputjson"]
    done = subprocess.run(command, cwd=project, env=ALONE, capture_output=True, text=True, check=False)
    assert done.returncode in (0, 1), done.stderr + done.stdout
    found: dict[str, list[str]] = {path.name: [] for path in project.glob("*.py")}
    for fault in json.loads(done.stdout)["generalDiagnostics"]:
        if fault["severity"] == "error":
            at = fault["range"]["start"]["line"] + 1
            found[Path(fault["file"]).name].append(f"{at}: {fault['message']}")
    return found


def test_it_is_the_wheel_that_is_checked(project: Path) -> None:
    python = project / "env" / "bin" / "python"
    code = "import gpuopt, gpuopt.kernels, torch; print(gpuopt.__file__, gpuopt.kernels.__file__, sep='\\n')"
    command = [python, "-c", code]
    done = subprocess.run(command, cwd=project, env=ALONE, capture_output=True, text=True, check=True)
    assert all(line.startswith(str(project / "env")) for line in done.stdout.split())


@pytest.mark.parametrize("check", [by_mypy, by_pyright])
def test_what_a_checker_sees(check: Callable[[Path], dict[str, list[str]]], project: Path) -> None:
    """All at once, since it looks at PyTorch first."""
    faults = check(project)
    for index, line in enumerate(WRONG):
        found = faults.pop(f"wrong_{index}.py")
        assert found, line
        assert all(fault.startswith("4: ") for fault in found), found
    assert set(faults) == {"seen.py", "snippets.py"}
    assert {name: found for name, found in faults.items() if found} == {}
