"""The benchmark tells the truth, and says so when it cannot.

- A whole run, shrunk, trains with every optimizer on every driver that runs here and times every workload; its JSON
  has a version, the machine, and for each training, contender and goal what was found; its picture is a picture.
- A time is the time of the timed steps alone; ratios are of medians; a contender whose outcome is wrong is named and
  not ranked; a library that is not there is named with the way to get it.
- A goal is judged against the fastest of its rivals, and is binding only in the run that it was set for.
- Ctrl-C keeps what was done. An ``--out`` that cannot be written is refused before any work.
- The naive code computes what the oracle computes, to rounding.
- The training's gradients are those of finite differences.
- What of the GPU round needs no GPU is right without one; its script refuses to begin where there is none.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from functools import partial
from inspect import signature
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from rich.console import Console
from typer.testing import CliRunner

from gpuopt import arrays, backends, machine
from gpuopt.bench import (
    __main__,
    classifier,
    contenders,
    goals,
    gpu_bits,
    gpu_round,
    gpu_steps,
    gpu_sweeps,
    models,
    report,
    results,
    speed,
    suite,
    timing,
    train,
)
from gpuopt.bench.naive import NAIVE
from gpuopt.kernels.formats import FORMATS
from gpuopt.kernels.rules import RULES
from gpuopt.kernels.variant import Variant

ROOT = Path(__file__).resolve().parents[1]
ON_GPU = ROOT / "bench" / "on_gpu.sh"
TINY = suite.Scale("tiny", steps=8, small=300, large=700, tensors=3, rounds=(2, 2, 2))
HOST_DRIVERS = [name for name, why in backends.available().items() if why is None and name in ("numba", "numpy")]


def console() -> Console:
    return Console(file=io.StringIO(), width=160)


def printed(to: Console) -> str:
    assert isinstance(to.file, io.StringIO)
    return to.file.getvalue()


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> tuple[int, Path, str]:
    """Exit code, folder and terminal of a whole run."""
    out, to = tmp_path_factory.mktemp("bench") / "new" / "folder", console()
    return __main__.benchmark(TINY, out, to), out, printed(to)


# the whole run


def test_whole_run_is_clean(ran: tuple[int, Path, str]) -> None:
    code, out, text = ran
    assert code == 0
    assert sorted(path.name for path in out.iterdir()) == ["bench.json", "loss.png"]
    assert "WRONG" not in text
    assert str(out / "bench.json") in text


def test_json_of_whole_run(ran: tuple[int, Path, str]) -> None:
    found = json.loads((ran[1] / "bench.json").read_text())
    assert found["schema"] == results.SCHEMA == 1
    assert found["complete"]
    assert found["faults"] == []
    assert found["seconds"] > 0
    assert found["drivers"] == backends.available()
    for key in ("cpu", "cores", "date", "commit", "gpus", "python", "versions"):
        assert key in found["machine"]
    assert set(found["machine"]["versions"]) == {"numpy", "torch", "triton", "cupy", "numba"}

    running = [name for name, why in backends.available().items() if why is None]
    trained = [(run["optimizer"], run["driver"]) for run in found["training"]["runs"]]
    assert sorted(trained) == sorted((name, driver) for name in train.optimizers() for driver in running)
    assert found["training"]["bit_identical"] == dict.fromkeys(train.optimizers(), True if len(running) > 1 else None)
    for run in found["training"]["runs"]:
        assert run["curve"][0][0] == 0
        assert run["curve"][-1] == [TINY.steps, run["loss"]]
        assert run["loss"] < run["curve"][0][1]
        assert 0 < run["accuracy"] <= 1
        assert len(run["digest"]) == 64
        assert run["seconds"]["median"] > 0

    assert [workload["key"] for workload in found["speed"]["workloads"]] == [work.key for work in TINY.workloads()]
    for workload in found["speed"]["workloads"]:
        for contender in workload["contenders"]:
            assert (contender["problem"] is None) == (contender["n"] == 4) == bool(contender["ratios"])
            for ours, ratio in contender["ratios"].items():
                median = next(other["median"] for other in workload["contenders"] if other["name"] == ours)
                assert ratio == pytest.approx(contender["median"] / median)
    assert len(found["goals"]) == len(goals.GOALS)
    for goal in found["goals"]:
        assert goal["binding"] is False
        assert goal["met"] == (None if goal["ratio"] is None else goal["ratio"] >= goal["at_least"])


def test_tables_of_whole_run(ran: tuple[int, Path, str]) -> None:
    text = ran[2]
    for name in (*train.optimizers(), "naive NumPy", "torch fused", "same bits on all drivers", "torch.optim.RMSprop"):
        assert name in text
    for workload in TINY.workloads():
        assert workload.title in text
    assert "times as fast" in text


def test_picture_of_whole_run(ran: tuple[int, Path, str]) -> None:
    data = (ran[1] / "loss.png").read_bytes()
    assert data.startswith(b"\x89PNG")
    assert len(data) > 10_000


def test_goals_are_of_workloads_and_contenders_that_exist() -> None:
    torch_names = {f"torch {way}" for way in contenders.TORCH_WAYS}
    for goal in goals.GOALS:
        assert goal.workload in {workload.key for workload in suite.FULL.workloads()}
        assert {goal.ours, *goal.theirs} <= {"gpuopt numba", "gpuopt numpy", "naive NumPy"} | torch_names


def test_full_scale_is_the_one_that_was_asked_for() -> None:
    sizes = {workload.key: (workload.tensors, workload.numel) for workload in suite.FULL.workloads()}
    assert sizes == {
        "adam-small": (1, 1_000_000),
        "rmsprop-small": (1, 1_000_000),
        "adam-large": (1, 20_000_000),
        "rmsprop-large": (1, 20_000_000),
        "adam-many": (1000, 64),
        "torch-adam-large": (200, 100_000),
        "torch-rmsprop-large": (200, 100_000),
        "torch-adam-many": (1000, 64),
        "torch-rmsprop-many": (1000, 64),
        "torch-tail-large": (200, 100_000),
    }


# timing


class FakeTime:
    """A clock that moves only when a contender works or someone sleeps."""

    def __init__(self) -> None:
        self.now = 0.0
        self.order: list[str] = []

    def clock(self) -> float:
        return self.now

    def pass_by(self, seconds: float) -> None:
        self.now += seconds

    def contender(self, name: str, cost: float, wait: float = 0.0, problem: str | None = None) -> timing.Contender:
        def step() -> None:
            self.order.append(name)
            self.now += cost

        return timing.Contender(name, step, lambda: problem, lambda: self.pass_by(wait))

    def measure(self, *some: timing.Contender, rounds: int = 4, **options: Any) -> list[timing.Timing]:
        return timing.measure(some, rounds, clock=self.clock, sleep=self.pass_by, **options)


def test_times_and_ratios_are_those_of_the_steps() -> None:
    fake = FakeTime()
    found = fake.measure(
        fake.contender("gpuopt numba", 2.0),
        fake.contender("torch fused", 3.0, wait=5.0),
        rest=7.0,
    )
    assert [timing.median for timing in found] == pytest.approx([2.0, 8.0])
    assert [len(timing.samples) for timing in found] == [8, 8]
    assert results.ratios(found[1], found) == {"gpuopt numba": pytest.approx(4.0)}


def test_contenders_take_turns_with_one_untimed_step_each() -> None:
    fake = FakeTime()
    fake.measure(fake.contender("a", 1), fake.contender("b", 1), rounds=2, steps_per_turn=2)
    assert "".join(fake.order) == "aaabbb" * 2


def test_median_is_the_middle_and_percentiles_are_the_tenths() -> None:
    found = timing.Timing("x", tuple(float(value) for value in range(101)))
    assert (found.median, found.percentile(10), found.percentile(90)) == (50, 10, 90)
    assert results.spread(found.samples) == {"n": 101, "median": 50, "p10": 10, "p90": 90}
    assert timing.Timing("x").median is None


def test_slow_machine_ends_rounds_early_but_not_at_once() -> None:
    fake = FakeTime()
    found = fake.measure(fake.contender("a", 100.0), rounds=50, steps_per_turn=1, seconds=1.0)
    assert len(found[0].samples) == timing.FEWEST_ROUNDS


def test_wrong_contender_is_marked_and_not_ranked() -> None:
    fake = FakeTime()
    found = fake.measure(
        fake.contender("gpuopt numba", 2.0), fake.contender("torch fused", 0.1, problem="wrong: all of it")
    )
    assert "torch fused" not in fake.order
    assert found[1] == timing.Timing("torch fused", (), "wrong: all of it")
    verdict = goals.judge(goals.Goal("w", "gpuopt numba", ("torch fused",), 0.9), found)
    assert (verdict.ratio, verdict.met) == (None, None)
    assert "wrong: all of it" in str(verdict.why)

    workload = speed.Workload("adam-small", "Adam", 1, 10, 1)
    whole = results.Results("full", machine.describe(), {}, speed=[(workload, found)])
    assert whole.faults() == [f"{workload.title}: torch fused is wrong: all of it"]
    to = console()
    report.show(whole, to)
    assert "WRONG" in printed(to)


def test_goal_is_judged_against_the_fastest_rival() -> None:
    found = [
        timing.Timing("ours", (2.0,)),
        timing.Timing("slow", (20.0,)),
        timing.Timing("fast", (7.0,)),
        timing.Timing("absent", (), "is not there"),
    ]
    goal = goals.Goal("w", "ours", ("slow", "fast", "absent"), 4.0)
    verdict = goals.judge(goal, found)
    assert (verdict.against, verdict.ratio, verdict.met) == ("fast", 3.5, False)
    assert goals.judge(replace(goal, at_least=3.5), found).met is True
    assert goals.judge(replace(goal, theirs=("absent",)), found).why == "absent: is not there"


@pytest.mark.parametrize(
    ("scale", "cores", "word"),
    [("full", 2, "NOT MET"), ("quick", 2, "would not be met"), ("full", 64, "would not be met")],
)
def test_goal_binds_only_the_run_it_was_set_for(scale: str, cores: int, word: str) -> None:
    workload = next(work for work in suite.FULL.workloads() if work.key == "adam-many")
    timings = [timing.Timing("gpuopt numba", (1.0,)), timing.Timing("torch fused", (2.0,))]
    whole = results.Results(scale, {**machine.describe(), "cores": cores}, {}, speed=[(workload, timings)])
    to = console()
    report.show(whole, to)
    assert word in printed(to)


def test_busy_machine_is_told_of() -> None:
    to = console()
    report.show(results.Results("full", machine.describe(), {}, others_load=0.4), to)
    assert "Other processes took 40% of the CPU" in printed(to)
    assert 0 <= (machine.OthersLoad().share() or 0) <= 1


# contenders


def test_contender_is_compared_with_the_oracle() -> None:
    expected = [np.float32([1.0, -2.0, 1e-3])]
    close = [np.nextafter(expected[0], np.float32(9))]
    far = [expected[0] + np.float32(1e-5)]
    assert contenders.fault(expected, expected, 0) is None
    assert "bits" in str(contenders.fault(close, expected, 0))
    assert contenders.fault(close, expected, contenders.TOLERANCE) is None
    assert "far" in str(contenders.fault(far, expected, contenders.TOLERANCE))
    assert "far" in str(contenders.fault([np.full(3, np.nan, np.float32)], expected, contenders.TOLERANCE))
    assert "bits" in str(contenders.fault([np.float32([-0.0])], [np.float32([0.0])], 0))


@pytest.mark.parametrize("name", contenders.JOBS)
def test_every_contender_is_right_and_a_broken_one_is_not(name: str) -> None:
    job = contenders.JOBS[name]
    begun = contenders.start(job, [50, 7, 1])
    made = contenders.contenders(job, begun, lambda what: None)
    absent = {contender.name: contender.check() for contender in made if contender.check()}
    assert set(absent) <= {"torch fused"}
    assert len(made) >= 3
    broken = contenders.naive(np, job._replace(naive_settings={**job.naive_settings, "lr": 1.01e-3}), begun)
    assert str(broken.check()).startswith("wrong")


@pytest.mark.parametrize(
    ("name", "contest"), [*((name, "step") for name in contenders.JOBS), ("Adam", "tail"), ("AdamW", "tail")]
)
def test_every_contender_for_pytorch_is_right_and_a_broken_one_is_not(name: str, contest: str) -> None:
    job = contenders.JOBS[name]
    begun = contenders.start(job, [50, 7, 1])
    set_up = speed.CONTESTS[contest].contenders
    made = set_up(job, begun, lambda what: None)
    assert {contender.name for contender in made if contender.check()} <= {"torch fused"}
    assert {"gpuopt numba", "gpuopt numpy", "torch for-loop", "torch foreach"} <= {each.name for each in made}
    broken = job._replace(torch_settings={**job.torch_settings, "lr": 1.01e-3})
    for contender in set_up(broken, begun, lambda what: None):
        assert str(contender.check()).startswith(("wrong", "torch.optim.RMSprop has none"))


def test_absent_torch_is_named_with_the_way_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contenders, "find_spec", lambda name: None)
    monkeypatch.setattr(speed, "find_spec", lambda name: None)
    workload = speed.Workload("adam-large", "Adam", 1, 100, 1)
    found = speed.run(workload, lambda what: None, lambda: None)
    missing = {timing.name: timing.problem for timing in found if timing.problem}
    assert set(missing) == {"torch for-loop", "torch foreach", "torch fused"}
    assert all("pip install 'gpuopt[torch]'" in str(problem) for problem in missing.values())
    to = console()
    whole = results.Results("full", machine.describe(), {}, speed=[(workload, found)])
    report.show(whole, to)
    assert "torch fused: torch is not installed" in " ".join(printed(to).split())
    assert whole.faults() == []


@pytest.mark.parametrize("name", sorted(NAIVE))
@pytest.mark.parametrize("backend", HOST_DRIVERS)
def test_naive_code_computes_what_the_oracle_does(name: str, backend: str) -> None:
    function, slots = NAIVE[name]
    rng = np.random.default_rng(3)
    p = rng.standard_normal(257)
    theirs = {"p": p.copy()}
    kind = getattr(arrays, name)
    plain = {"epsilon_hat": False} if "epsilon_hat" in kind.settings else {}
    eps = {"eps": 1e-8} if "eps" in kind.settings else {}
    optimizer = kind(lr=0.01, backend=backend, **plain, **eps)
    state = {slot: np.zeros_like(p) for slot in slots}
    for step in range(1, 6):
        g = rng.standard_normal(257)
        function(p, g, state, step, 0.01)
        optimizer.update(theirs, {"p": g})
    np.testing.assert_allclose(p, theirs["p"], rtol=0, atol=1e-13)  # some 5 x 10 roundings of values below 4


def test_there_is_naive_code_for_every_optimizer() -> None:
    assert set(NAIVE) == set(train.optimizers())
    for function, _ in NAIVE.values():
        assert list(signature(function).parameters)[:4] == ["p", "g", "state", "step"]


# training


def test_data_is_all_of_the_digits_split_once() -> None:
    data = classifier.digits()
    assert len(data.train_images) + len(data.test_images) == 1797
    assert len(data.test_images) == 360
    assert data.train_images.dtype == np.float32
    assert set(data.test_digits) == set(range(10))


def test_gradients_are_those_of_finite_differences() -> None:
    data = classifier.digits()
    images, digits = data.train_images[:32].astype(np.float64), data.train_digits[:32]
    params = {name: array.astype(np.float64) for name, array in classifier.initial_params().items()}
    found = classifier.gradients(params, images, digits)
    rng = np.random.default_rng(0)
    for name, array in params.items():
        for index in rng.integers(array.size, size=6):
            moved = []
            for change in (1e-6, -1e-6):
                other = array.copy()
                other.flat[index] += change
                moved.append(classifier.loss_of({**params, name: other}, images, digits))
            assert found[name].flat[index] == pytest.approx((moved[0] - moved[1]) / 2e-6, abs=1e-7)


def test_training_repeats_itself_bit_for_bit_and_learns() -> None:
    once = classifier.train("Adam", "numpy", 60, 0.01)
    again = classifier.train("Adam", "numpy", 60, 0.01)
    other = classifier.train("Adam", "numpy", 60, 0.0101)
    assert once.digest == again.digest != other.digest
    assert once.curve == again.curve
    assert once.accuracy > 0.9


def test_drivers_that_differ_are_told_of() -> None:
    run = classifier.train("SGD", "numpy", 2, 0.1)
    runs = [run, replace(run, driver="other", digest="0" * 64)]
    assert train.agreement(runs) == {"SGD": False}
    assert train.agreement(runs[:1]) == {"SGD": None}
    whole = results.Results("full", machine.describe(), {}, runs=runs)
    assert whole.faults() == ["the drivers' parameters differ after training with SGD"]
    to = console()
    report.show(whole, to)
    assert "NO (numpy, other)" in printed(to)


# the command


def test_ctrl_c_keeps_what_was_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def interrupted(workload: speed.Workload, *_: Any) -> list[timing.Timing]:
        calls.append(workload.key)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return [timing.Timing("gpuopt numpy", (1.0,))]

    monkeypatch.setattr(speed, "run", interrupted)
    to = console()
    assert __main__.benchmark(replace(TINY, steps=1), tmp_path, to) == 130
    assert "Interrupted" in printed(to)
    assert "saved" in printed(to)
    found = json.loads((tmp_path / "bench.json").read_text())
    assert found["complete"] is False
    assert len(found["speed"]["workloads"]) == 1
    assert len(found["training"]["runs"]) == len(train.optimizers()) * len(
        [name for name, why in backends.available().items() if why is None]
    )
    assert (tmp_path / "loss.png").exists()


def test_ctrl_c_before_anything_was_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(suite, "train_all", interrupted)
    assert __main__.benchmark(TINY, tmp_path, console()) == 130
    assert json.loads((tmp_path / "bench.json").read_text())["training"]["runs"] == []


def test_out_that_cannot_be_written_is_refused_before_any_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: Any) -> None:
        raise AssertionError("work began")

    monkeypatch.setattr(suite, "run", never)
    file = tmp_path / "file"
    file.write_text("mine")
    for out in (file, file / "below"):
        answer = CliRunner().invoke(__main__.app, ["--out", str(out)])
        assert answer.exit_code == 2
        assert "--out must be a folder that can be written" in " ".join(answer.output.split())
    assert file.read_text() == "mine"


def test_command_takes_quick_and_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []
    monkeypatch.setattr(__main__, "benchmark", lambda scale, out, to: seen.append((scale.name, out)) or 0)
    for arguments in ([], ["--quick", "--out", str(tmp_path)]):
        assert CliRunner().invoke(__main__.app, arguments).exit_code == 0
    assert seen == [("full", Path("out")), ("quick", tmp_path)]


# the GPU round, as far as it goes without one


def test_llama_has_the_published_number_of_parameters() -> None:
    assert models.numel(models.LLAMA_3_2_1B) == 1_235_814_400
    assert len(models.LLAMA_3_2_1B) == 146
    untied = models.llama_shapes(8, 2, 16, 2, 1, 4, 100, tied_embeddings=False)
    assert models.numel(untied) == 2 * 100 * 8 + 2 * (2 * 8 * 8 + 2 * 4 * 8 + 3 * 8 * 16 + 2 * 8) + 8


def test_bytes_are_those_of_the_algorithm() -> None:
    per_element = {"Adam": 28, "RMSProp": 20}
    assert {config.numel for config in gpu_steps.CONFIGS} == {1 << 27, 1_235_814_400}
    for config in gpu_steps.CONFIGS:
        rule = getattr(arrays, config.optimizer).rule
        formats = [FORMATS["fp32"] if slot not in rule.optional else None for slot in ("param", "grad", *rule.slots)]
        assert config.step_bytes / config.numel == per_element[config.optimizer]
        assert config.step_bytes / config.numel == Variant(rule, tuple(formats)).bytes_per_element
        assert config.copy_bytes / config.numel == 8
    for workload in suite.FULL.workloads():
        per_tail = 28 + 8 if workload.contest == "tail" else per_element[workload.optimizer]
        assert workload.least_bytes == per_tail * workload.tensors * workload.numel


def test_bandwidth_and_share_of_copy() -> None:
    config = gpu_steps.Config("c", "Adam", ((1000,), (10, 100)))
    gpu = {"gpuopt triton": [7e-6, 7e-6], "copy": [1.6e-6, 1.6e-6]}
    found = gpu_steps.summary(config, gpu, gpu, {"gpuopt triton": {"kernels": 1, "copies": 1}}, {})
    ours, copy = found["contenders"]
    assert ours["gb_per_s"] == pytest.approx(2000 * 28 / 7e-6 / 1e9)
    assert copy["gb_per_s"] == pytest.approx(10)
    assert copy["share_of_copy"] == pytest.approx(1)
    assert ours["share_of_copy"] == pytest.approx(0.8)
    assert ours["launches"]["kernels"] == 1


@pytest.mark.parametrize("broken", [False, True])
def test_steps_on_the_gpu_with_the_gpu_played_by_the_host(broken: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch")
    gpu_clock = pytest.importorskip("gpuopt.bench.gpu_clock")
    job = contenders.JOBS["Adam"]
    torch_settings = {**job.torch_settings, "lr": 1.5e-3} if broken else job.torch_settings

    def makers(_: contenders.Job) -> list[Any]:
        return [
            ("gpuopt numpy", partial(gpu_steps._gpuopt, job, "numpy"), True),
            ("gpuopt numba", partial(gpu_steps._gpuopt, job, HOST_DRIVERS[0]), True),
            ("torch fused", partial(gpu_steps._torch, torch.optim.Adam, {**torch_settings, "fused": True}), False),
        ]

    def on_host(*size: Any, device: str | None = None) -> Any:
        return real(*size)

    def measure(steps: list[Any], rounds: int) -> dict[str, Any]:
        for step in steps:
            step.run()
        return {step.name: [gpu_clock.Sample(2e-3, 1e-3)] * rounds for step in steps}

    real = torch.randn
    monkeypatch.setattr(torch, "randn", on_host)
    monkeypatch.setitem(sys.modules, "cupy", SimpleNamespace(asarray=lambda tensor: tensor.numpy()))
    monkeypatch.setattr(gpu_steps, "_makers", makers)
    monkeypatch.setattr(gpu_clock, "measure", measure)
    monkeypatch.setattr(gpu_clock, "launches", lambda step: {"kernels": 1, "copies": 0})
    found = gpu_steps.run(gpu_steps.Config("c", "Adam", ((100,), (3, 5))), rounds=4)
    timed = [row["name"] for row in found["contenders"]]
    assert timed == ["gpuopt numpy", "gpuopt numba", *([] if broken else ["torch fused"]), "copy"]
    assert set(found["problems"]) == ({"torch fused"} if broken else set())
    assert found["contenders"][0]["n"] == 4
    json.dumps(found)


@pytest.mark.skipif(len(HOST_DRIVERS) < 2, reason="no second driver to compare")
def test_comparison_of_bits_counts_what_differs(monkeypatch: pytest.MonkeyPatch) -> None:
    rule, format = RULES["sgd"], FORMATS["bf16"]
    slots = ("momentum_buffer",)
    assert gpu_bits.different(rule, slots, format, "numba", (5, 900)) == 0
    real = arrays.step

    def wrong(name: str, params: Any, *rest: Any, backend: str, **options: Any) -> None:
        real(name, params, *rest, backend=backend, **options)
        if backend == "numba":
            params[0].view(np.uint16)[:] = 0x4321

    monkeypatch.setattr(arrays, "step", wrong)
    assert gpu_bits.different(rule, slots, format, "numba", (5, 900)) >= 10


def test_comparison_of_bits_covers_every_rule_option_format_and_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_bits, "different", lambda *_: 0)
    found = list(gpu_bits.compare(on_gpu=False))
    options = sum(len(list(rule.option_sets())) for rule in RULES.values())
    assert len(found) == options * len(FORMATS) * 2 * len([name for name in HOST_DRIVERS if name != "numpy"])


def test_alternative_constants_hold_for_a_while() -> None:
    driver = SimpleNamespace(TILE=1024, OPTIONS={"num_warps": 4, "enable_fp_fusion": False})
    with gpu_sweeps._alternative(driver, 4096, 16):
        assert driver.TILE == 4096
        assert driver.OPTIONS == {"num_warps": 16, "enable_fp_fusion": False}
    assert (driver.TILE, driver.OPTIONS["num_warps"]) == (1024, 4)
    rows = [{"numel": 8, "gpu": {"plain": 1.0, "table": 2.0}}, {"numel": 16, "gpu": {"plain": 3.0, "table": 2.0}}]
    assert gpu_sweeps.fastest(rows) == {8: "plain", 16: "table"}


def test_sweeps_with_the_gpu_played_by_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu_clock = pytest.importorskip("gpuopt.bench.gpu_clock")
    cupy_driver = pytest.importorskip("gpuopt.kernels.drivers.cupy")
    triton_driver = pytest.importorskip("gpuopt.kernels.drivers.triton")
    played = SimpleNamespace(
        float32=np.float32,
        zeros=np.zeros,
        random=SimpleNamespace(standard_normal=np.zeros),
        cuda=SimpleNamespace(get_current_stream=lambda: SimpleNamespace(ptr=0)),
    )
    launched: list[tuple[str, int, int]] = []

    def note(name: str, table: Any, *_: Any) -> None:
        launched.append((name, table.tile, triton_driver.OPTIONS["num_warps"]))

    def measure(steps: list[Any], rounds: int) -> dict[str, Any]:
        for step in steps:
            step.run()
        return {step.name: [gpu_clock.Sample(2e-6, 1e-5)] * rounds for step in steps}

    monkeypatch.setitem(sys.modules, "cupy", played)
    monkeypatch.setattr(gpu_clock, "measure", measure)
    monkeypatch.setattr(gpu_sweeps, "FORM_SIZES", (1, 64))
    monkeypatch.setattr(gpu_sweeps, "TILE_SIZES", (5000,))
    given: list[bytes] = []

    def place_table(table: Any, hyper: Any, stream: int) -> None:
        given.append(hyper.tobytes())

    for driver, name in ((cupy_driver, "run_plain"), (cupy_driver, "run_table"), (triton_driver, "run")):
        monkeypatch.setattr(driver, name, partial(note, name))
    monkeypatch.setattr(cupy_driver, "place_table", place_table)
    tile, options = triton_driver.TILE, triton_driver.OPTIONS

    forms = gpu_sweeps.cupy_forms()
    assert [row["numel"] for row in forms] == [1, 64]
    assert forms[0]["gpu"] == {"plain": 2e-6, "table": 2e-6}
    assert [name for name, *_ in launched] == ["run_plain", "run_table"] * 2
    assert len(given) == 2
    launched.clear()
    tiles = gpu_sweeps.triton_tiles()
    assert set(tiles[0]["host"]) == {"1024 x 4", "2048 x 8", "4096 x 16", "2048 x 4"}
    assert launched == [("run", tile, warps) for tile, warps in gpu_sweeps.TILES]
    constants = (triton_driver.TILE, triton_driver.OPTIONS)
    assert constants == (tile, options)


JUNIT = """<testsuites><testsuite name="pytest">
<testcase classname="tests.gpu.a" name="one"/>
<testcase classname="tests.gpu.a" name="two"><failure message="no">..</failure></testcase>
<testcase classname="tests.gpu.a" name="three"><skipped/></testcase>
<testcase classname="tests.gpu.a" name="four"><error>..</error></testcase>
</testsuite></testsuites>"""


def test_counts_of_tests() -> None:
    failures = ["tests.gpu.a.two", "tests.gpu.a.four"]
    assert gpu_round.counts_of(JUNIT) == {"passed": 1, "failed": 2, "skipped": 1, "failures": failures}


@pytest.mark.parametrize("passes", [True, False])
def test_tests_run_in_their_own_process(passes: bool, tmp_path: Path) -> None:
    body = (
        f"import pytest\n\n@pytest.mark.gpu\ndef test_it():\n    assert {passes}\n\ndef test_other():\n    assert 0\n"
    )
    (tmp_path / "test_on_gpu.py").write_text(body)
    found = gpu_round.run_tests(str(tmp_path), limit=100, workers=0)
    assert (found["exit_code"], found["passed"], found["failed"]) == ((0, 1, 0) if passes else (1, 0, 1))


def perform(parts: dict[str, Any], **options: Any) -> tuple[dict[str, Any], list[str]]:
    kept: list[str] = []
    head = {"device": "NVIDIA Fake", "machine": machine.describe()}
    found = gpu_round.perform(parts, head, lambda report: kept.append(json.dumps(report)), **options)
    return found, kept


GOOD_TESTS = {"exit_code": 0, "passed": 3, "failed": 0, "skipped": 0, "failures": [], "tail": ""}
GOOD_BITS: dict[str, Any] = {"comparisons": {"cupy": 2}, "elements": 10, "different": []}


def good_step() -> dict[str, Any]:
    config = gpu_steps.Config("Adam, few", "Adam", ((1000,),))
    times = {"gpuopt cupy": [1e-5], "copy": [2e-6]}
    return gpu_steps.summary(config, times, times, {"gpuopt cupy": {"problem": "the profiler saw no kernel"}}, {})


def test_round_keeps_every_part_and_is_good() -> None:
    row = {"numel": 65536, "gpu": {"plain": 2e-6, "table": 3e-6}, "host": {"plain": 2e-5, "table": 3e-5}}
    parts = {
        "step: Adam, few": good_step,
        "tests": lambda: GOOD_TESTS,
        "bits": lambda: GOOD_BITS,
        "cupy_forms": lambda: [row],
    }
    found, kept = perform(parts)
    assert found["good"]
    assert found["complete"]
    assert found["schema"] == gpu_round.SCHEMA
    assert set(parts) <= set(found)
    assert len(kept) == len(parts) + 1
    assert "step: Adam, few" in json.loads(kept[0])
    text = "\n".join(gpu_round.summary(found))
    for part in ("of copy", "3 passed, 0 failed", "'cupy': 2", "plain 2.0 us"):
        assert part in text


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("tests", {**GOOD_TESTS, "exit_code": 1, "failures": ["a.b"]}),
        ("tests", {"exit_code": 5, "tail": "no tests ran"}),
        ("tests", {**GOOD_TESTS, "passed": 0, "skipped": 9}),
        ("bits", {**GOOD_BITS, "different": [{"driver": "cupy", "different": 1}]}),
        ("step: Adam, few", {**good_step(), "problems": {"torch fused": "wrong"}}),
    ],
    ids=["failed test", "no tests", "all skipped", "other bits", "wrong contender"],
)
def test_round_with_a_fault_is_not_good(name: str, part: dict[str, Any]) -> None:
    found, _ = perform({name: lambda: part})
    assert not found["good"]
    assert gpu_round.summary(found)


def test_part_that_breaks_does_not_stop_the_others() -> None:
    def breaks() -> None:
        raise RuntimeError("out of memory, say")

    found, kept = perform({"cupy_forms": breaks, "bits": lambda: GOOD_BITS})
    assert found["bits"] == GOOD_BITS
    assert "out of memory, say" in found["errors"]["cupy_forms"]
    assert not found["good"]
    assert not found["complete"]
    assert "BROKEN cupy_forms: RuntimeError: out of memory, say" in gpu_round.summary(found)
    assert len(kept) == 3


def test_no_part_begins_when_time_has_run_out() -> None:
    fake = FakeTime()
    parts = {"tests": lambda: fake.pass_by(gpu_round.LAST_START + 1) or GOOD_TESTS, "bits": lambda: GOOD_BITS}
    found, _ = perform(parts, clock=fake.clock)
    assert "bits" not in found
    assert "time had run out" in found["errors"]["bits"]


def test_round_has_all_parts_and_a_file_for_the_device(tmp_path: Path) -> None:
    titles = [config.title for config in gpu_steps.CONFIGS]
    assert titles == ["Adam, 2^27 elements", "RMSProp, 2^27 elements", "Adam, Llama 3.2 1B", "RMSProp, Llama 3.2 1B"]
    wanted = {*(gpu_round.STEP + title for title in titles), "tests", "bits", "cupy_forms", "triton_tiles"}
    assert set(gpu_round.parts()) == wanted
    assert gpu_round.file_name("NVIDIA H200") == "gpu-nvidia-h200.json"
    gpu_round.write({"a": 1}, tmp_path / "x.json")
    assert [path.name for path in tmp_path.iterdir()] == ["x.json"]


def test_round_refuses_without_a_gpu(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(gpu_round, "device_name", lambda: None)
    monkeypatch.setattr(gpu_round, "perform", None)
    assert gpu_round.main() == 2
    assert "no NVIDIA GPU" in capsys.readouterr().err


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_script_parses_and_refuses_without_a_gpu_before_it_installs(tmp_path: Path) -> None:
    assert os.access(ON_GPU, os.X_OK)
    subprocess.run(["bash", "-n", ON_GPU], check=True)
    marker = tmp_path / "installed"
    python = tmp_path / "python"
    python.write_text(f"#!/bin/sh\ntouch {marker}\n")
    smi = tmp_path / "nvidia-smi"
    smi.write_text("#!/bin/sh\necho 'No devices were found'\nexit 6\n")
    for program in (python, smi):
        program.chmod(0o755)
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "PYTHON": str(python)}
    done = subprocess.run([ON_GPU], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert "no NVIDIA GPU" in done.stderr
    assert not marker.exists()

    smi.write_text("#!/bin/sh\necho 'GPU 0: NVIDIA Fake (UUID: GPU-1)'\n")
    done = subprocess.run([ON_GPU], env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert marker.exists()


def test_bench_without_its_packages_says_what_to_install() -> None:
    code = "import sys; sys.modules['typer'] = None; import runpy; runpy.run_module('gpuopt.bench')"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "pip install 'gpuopt[bench]'" in done.stderr
