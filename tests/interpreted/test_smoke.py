"""The smoke test of a GPU, with Triton interpreted on host memory: what of it needs no GPU is passed.

A probe that fails is told with its reason and costs the others nothing, unless the GPU can do nothing any more. What
has been tried is written after each.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gpuopt.bench.gpu import smoke
from gpuopt.bench.gpu.smoke import Probe

# The interpreter computes with NumPy, which warns where infinities and NaN arise.
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")

PROBES = [probe for probe in smoke.probes("cpu") if probe.name.startswith("triton")]


@pytest.mark.parametrize("probe", PROBES, ids=[probe.name for probe in PROBES])
def test_probes(probe: Probe) -> None:
    probe.check()


def test_each_driver_and_front_end_has_its_probes() -> None:
    assert len(PROBES) == 7
    told = [probe for probe in smoke.probes("cpu") if probe.name == "cupy"]
    for probe in told:  # without a GPU there is the reason in place of its probes
        with pytest.raises(RuntimeError, match="CuPy"):
            probe.check()


def fails() -> None:
    raise ValueError("it has other bits\nand more")


def test_what_is_told_and_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    written: list[int] = []

    def count() -> None:
        written.append(len(json.loads((tmp_path / smoke.JSON).read_text())["probes"]))

    chosen = [Probe("one", lambda: None), Probe("two", fails), Probe("three", count)]
    assert smoke.run(chosen, tmp_path, lambda: None) == 1
    found = json.loads((tmp_path / smoke.JSON).read_text())["probes"]
    assert [(each["name"], each["why"]) for each in found] == [
        ("one", None),
        ("two", "ValueError: it has other bits"),
        ("three", None),
    ]
    assert written == [2]
    assert "FAILED" in capsys.readouterr().out.splitlines()[1]
    assert smoke.run(chosen, tmp_path, lambda: "not tried, since the GPU fails: gone") == 2
    found = json.loads((tmp_path / smoke.JSON).read_text())["probes"]
    assert found[2]["why"] == "not tried, since the GPU fails: gone"
    assert written == [2]
