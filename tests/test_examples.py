"""Each example is short, runs as it stands, and learns: the last loss that it prints is less than half of the first.

That of reinforcement learning prints rooms instead, of which it passes all but one in the end.
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
EXAMPLES = sorted(path.stem for path in FOLDER.glob("*.py"))
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
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}  # beside other tests
    command = [sys.executable, str(script)]
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    if name == "reinforce":
        rooms = [float(each) for each in re.findall(r"rooms passed ([\d.]+) of 8", done.stdout)]
        assert rooms[0] < 2 < 7 < rooms[-1]
    else:
        losses = [float(each) for each in re.findall(r"loss ([\d.]+)", done.stdout)]
        assert len(losses) > 1
        assert losses[-1] < losses[0] / 2
    assert not list(tmp_path.iterdir())
