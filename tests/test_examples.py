"""Each example is short, runs as it stands, and learns: the last loss that it prints is less than half of the first.

That of reinforcement learning prints rooms instead, of which it passes all but one in the end. That of FSDP2 goes on
from its checkpoint on another number of processes, at the loss that it had come to.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parents[1] / "examples"
EXAMPLES = sorted(path.stem for path in FOLDER.glob("*.py") if path.stem != "fsdp2")
NEEDS = {"huggingface_trainer": ["transformers", "accelerate"], "lightning_module": ["lightning"]}


def test_there_are_some() -> None:
    assert len(EXAMPLES) == 5
    assert set(NEEDS) <= set(EXAMPLES)


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example(name: str, tmp_path: Path) -> None:
    for package in NEEDS.get(name, []):
        if find_spec(package) is None:
            pytest.skip(f"needs {package}")
    script = FOLDER / f"{name}.py"
    text = script.read_text()
    assert len(text.splitlines()) <= 40
    assert f"python examples/{name}.py" in text
    out = run([sys.executable, str(script)], tmp_path)
    if name == "reinforce":
        rooms = [float(each) for each in re.findall(r"rooms passed ([\d.]+) of 8", out)]
        assert rooms[0] < 2 < 7 < rooms[-1]
    else:
        losses = [float(each) for each in re.findall(r"loss ([\d.]+)", out)]
        assert len(losses) > 1
        assert losses[-1] < losses[0] / 2
    assert not list(tmp_path.iterdir())


def test_the_example_of_several_processes(tmp_path: Path) -> None:
    text = (FOLDER / "fsdp2.py").read_text()
    assert len(text.splitlines()) <= 80
    assert "torchrun --nproc-per-node 2 examples/fsdp2.py checkpoints" in text
    lines = []
    for processes in (2, 3):
        launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(processes)]
        out = run([*launcher, str(FOLDER / "fsdp2.py"), "checkpoints"], tmp_path)
        lines.append([float(each) for each in re.findall(r"loss ([\d.]+)", out)])
    (first, *_, last, averaged), (again, *_) = lines
    assert max(last, averaged) < first / 2
    assert again < 2 * last
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["120", "60"]


def run(command: list[str], folder: Path) -> str:
    """What an example writes."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}  # beside other tests
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=180, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
