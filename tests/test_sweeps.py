"""What of the sweeps can be tested without a GPU.

1. Every way to cut a step by Triton compiles without spills, moves full tiles in 16-byte accesses, and gives the
   oracle's bits, run on the host.
2. So do every tile of CuPy's kernel, from NVRTC's PTX, and both of its forms.
3. Alternatives step the same tensors, in turns, with another hyper row each time. One that is wrong or fails says so
   and costs the others nothing.
4. The JSON is whole after each group. What the budget or Ctrl-C left out is named; a fault makes the exit code.
5. Each has a prediction in ``bench/NOTES.md``.
"""

from __future__ import annotations

import json
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from kit.host_gpu import host_cupy, host_gpu
from typer.testing import CliRunner

from gpuopt.bench.code import sass
from gpuopt.bench.meters import Sample
from gpuopt.bench.sweeps import by_cupy, by_triton, command, report
from gpuopt.bench.sweeps.alternative import PRODUCT, Alternative, Resources
from gpuopt.bench.sweeps.run import Group, hold, wrong
from gpuopt.bench.sweeps.subjects import ADAM, ADAM_BF16, SGD, Subject
from gpuopt.kernels.drivers import numpy as oracle
from gpuopt.kernels.variant import Variant


@pytest.mark.parametrize("name", by_triton.SETTINGS)
@pytest.mark.parametrize("variant", [ADAM_BF16, SGD], ids=["adam bf16", "sgd"])
def test_each_way_to_cut_tritons_step(name: str, variant: Variant) -> None:
    setting = by_triton.SETTINGS[name]
    alternative = by_triton.alternative(name, setting, variant)
    with host_gpu() as gpu:
        assert wrong(alternative, variant, "cpu") is None
        assert alternative.resources().stack == 0
    (launched,) = gpu.launches
    opcodes = sass.ptx_opcodes(launched.compiled.asm["ptx"])
    moved = setting.tile // (32 * setting.warps) * variant.formats[0].itemsize // 16
    # Of two ways of a full tile, on one of which the gradient is not aligned.
    assert sass.count(opcodes, r"ld\.global.*\.(v4\.b32|v2\.b64)") == moved * (2 * len(variant.present) - 1)
    assert sass.count(opcodes, r"st\.global.*\.(v4\.b32|v2\.b64)") == moved * 2 * (len(variant.present) - 1)


def test_resources_of_cupys_kernels() -> None:
    product, plain = (each.resources() for each in by_cupy.forms(ADAM, "sm_90"))
    assert plain.registers < product.registers
    assert (plain.stack, product.stack) == (0, 0)


SMALL = Subject("Adam fp32, small", ADAM, (300, 2048))


class PlayedMeter:
    """Takes steps, which last longer from one to the next."""

    def __init__(self) -> None:
        self.ticks = count(1)

    def once(self, entrant: Any) -> None:
        entrant.step()

    def sample(self, entrant: Any) -> Sample:
        entrant.step()
        seconds = next(self.ticks) * 1e-6
        return Sample(2 * seconds, seconds)


def by_host(name: str, fault: str | None = None) -> Alternative:
    """The oracle in a kernel's place, with a fault."""

    def run(table: Any, hyper: np.ndarray) -> None:
        if fault == "fails":
            raise RuntimeError("no image for this GPU\nand more")
        oracle.run(table, hyper * np.float32(1 + 2**-20) if fault == "wrong" else hyper)

    def resources() -> Resources:
        if fault == "does not compile":
            raise ValueError("out of registers")
        return Resources(40, 0)

    return Alternative(name, 1024, run, resources)


MADE = [
    by_host(PRODUCT),
    by_host("other"),
    by_host("wrong", "wrong"),
    by_host("fails", "fails"),
    by_host("does not compile", "does not compile"),
]


def test_a_fault_costs_the_others_nothing() -> None:
    rows = hold(Group("triton", SMALL, lambda: MADE), PlayedMeter(), "cpu")
    assert [row.why for row in rows] == [
        None,
        None,
        "param differs from the oracle's in 1 of 1 elements",
        "RuntimeError: no image for this GPU",
        "ValueError: out of registers",
    ]
    assert [len(row.timing.device) > 8 for row in rows] == [True, True, False, False, False]
    assert rows[0].resources == Resources(40, 0)
    assert rows[4].resources is None


def run(chosen: list[Group], folder: Path, **how: Any) -> tuple[int, dict[str, Any]]:
    budget = how.pop("budget", 100.0)
    code = command.sweep(chosen, folder, budget, PlayedMeter(), "cpu", **how)
    return code, json.loads((folder / command.JSON).read_text())


def test_what_is_written_and_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, found = run([Group("triton", SMALL, lambda: MADE[:2])], tmp_path)
    assert code == 0
    assert found["missing"] == []
    assert found["copy"]["gb_per_s"] > 0
    (group,) = found["groups"]
    product, other = group["rows"]
    assert group["bytes"] == 28 * 2348
    assert product["ratio"] == 1
    assert other["ratio"] == pytest.approx(product["device"]["median"] / other["device"]["median"])
    assert other["off"] > 0
    assert other["share"] == pytest.approx(28 * 2348 / other["device"]["median"] / 1e9 / found["copy"]["gb_per_s"])
    assert (other["registers"], other["stack"]) == (40, 0)
    assert other["host"]["median"] == pytest.approx(2 * other["device"]["median"])
    printed = capsys.readouterr().out
    assert "triton, Adam fp32, small" in printed
    assert "other" in printed
    assert "±" in printed
    assert all(len(line) <= 100 for line in printed.splitlines())

    code, found = run([Group("triton", SMALL, lambda: MADE)], tmp_path)
    assert code == command.FAILED
    printed = capsys.readouterr().out
    assert "no image for this GPU" in printed


def test_a_group_without_times_on_the_gpu_is_shown() -> None:
    row = {"name": "x", "why": None, "device": None, "host": None, "registers": None, "stack": None}
    shown = list(report.lines({"driver": "triton", "subject": "s", "rows": [row]}))
    assert shown[-1].split(maxsplit=1) == ["x", "not timed on the GPU"]


def fails() -> list[Alternative]:
    raise RuntimeError("no memory")


def test_what_is_left_out_is_named(tmp_path: Path) -> None:
    clock = partial(next, iter(range(0, 1000, 10)))
    first, second = (Group("triton", Subject(name, ADAM, (5,)), lambda: MADE[:1]) for name in ("one", "two"))
    broken = Group("cupy", Subject("three", ADAM, (5,)), fails)
    code, found = run([first, broken, second], tmp_path, budget=25.0, clock=clock)
    assert [group["subject"] for group in found["groups"]] == ["one"]
    assert found["missing"] == ["cupy, three: RuntimeError: no memory", "triton, two: the budget was spent"]
    assert code == command.FAILED
    code, found = run([first, second], tmp_path, budget=15.0, clock=partial(next, iter(range(0, 1000, 10))))
    assert code == 0


def interrupted() -> list[Alternative]:
    raise KeyboardInterrupt


def test_what_there_is_survives_an_interruption(tmp_path: Path) -> None:
    done = Group("triton", Subject("one", ADAM, (5,)), lambda: MADE[:1])
    stopped = Group("triton", Subject("two", ADAM, (5,)), interrupted)
    code, found = run([done, stopped, Group("cupy", Subject("three", ADAM, (5,)), fails)], tmp_path)
    assert code == command.INTERRUPTED
    assert [group["subject"] for group in found["groups"]] == ["one"]
    assert found["missing"] == ["triton, two: the run ended before", "cupy, three: the run ended before"]


def test_without_a_gpu_it_refuses(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(command.backends, "available", lambda: {"triton": "PyTorch sees no CUDA device"})
    app = typer.Typer()
    app.command()(command.sweeps)
    done = CliRunner().invoke(app, [str(tmp_path)])
    assert done.exit_code == 2
    assert "There is no GPU to sweep on: PyTorch sees no CUDA device." in done.stderr


def test_everything_is_tried_on_what_decides_first() -> None:
    groups = command.groups("sm_90")
    assert groups[0].name == "triton, Adam fp32, 2^27"
    assert len({group.name for group in groups}) == len(groups)
    for group in groups:
        made = group.alternatives()
        assert made[0].name == PRODUCT
        assert all(each.tensors is None or len(group.subject.numels) <= each.tensors for each in made)
    tried = {each.name for group in groups for each in group.alternatives()}
    assert tried == {PRODUCT, by_cupy.PLAIN, *by_cupy.TILES, *by_triton.SETTINGS}


@pytest.mark.parametrize("made", [by_cupy.forms, by_cupy.tiles], ids=["forms", "tiles"])
@pytest.mark.parametrize("variant", [ADAM, ADAM_BF16], ids=["adam", "adam bf16"])
def test_what_cupys_driver_can_do_is_right(made: Any, variant: Variant) -> None:
    with host_cupy():
        for alternative in made(variant, "sm_90"):
            assert wrong(alternative, variant, "cpu") is None


def test_notes_say_what_each_is_expected_to_do() -> None:
    notes = (Path(__file__).parents[1] / "bench" / "NOTES.md").read_text()
    missing = [name for name in (*by_triton.SETTINGS, *by_cupy.TILES, by_cupy.PLAIN) if f"`{name}`" not in notes]
    assert missing == []
