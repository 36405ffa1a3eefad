"""The comparison of trainings is fair, and says so when a contender is not what it should be.

- Each clock gets the time of its own part: with a fake clock, known costs come back, and so do the optimizer's share
  and the time to a loss. Evaluating, reading the loss and warming up are in neither.
- Contenders take turns of some steps, another one first in each round, on the same batches.
- A contender that computes something else is wrong, one that leaves finite losses has diverged, one that raises is
  broken: each is named and not ranked, and the others train on. One that cannot run here says why.
- The data is real, and what a model is evaluated on is never trained on; batches are the same at every call.
- The models learn. gpuopt's drivers for the host end with the same bits, close to torch's in every loss.
- Each format of weights is trained from every seed, with float32 state, and its loss compared with that of float32. So
  is state in 8 bits, by every recipe.
- Of an embedding's training, the largest change of an element is found where it is, and compared with exact averages'.
  Rare tokens are rare. Other libraries that are absent, or refuse, say so in their own words; only ours are faults.
- JSON, tables and pictures tell all of it. Ctrl-C keeps what was done, and a task that cannot be made the others; what
  cannot be done is refused before any work. Where there is a GPU that PyTorch does not see, that is said.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from itertools import product
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console
from torch import nn
from typer.testing import CliRunner

import gpuopt
from gpuopt.bench import docs
from gpuopt.bench.contenders.libraries import LIBRARIES
from gpuopt.bench.train import command, data, embedding, formats, lockstep, table, tasks, ways
from gpuopt.bench.train.gpt import Size
from gpuopt.bench.train.lockstep import Training
from gpuopt.bench.train.results import EARLY, Contest, Results
from gpuopt.bench.train.tasks import Recipe, Task
from gpuopt.bench.train.ways import REFERENCE, Stepping, Way
from gpuopt.bench.workloads import FORMAT_SETS
from gpuopt.kernels.formats import BLOCK, FORMATS
from gpuopt.machine import describe
from gpuopt.output import UNUSABLE

RECIPE = Recipe(lr=5e-3, betas=(0.9, 0.99), weight_decay=0.1, max_norm=1.0, warm_up=5, steps=60)

MAKERS = {
    "gpt": partial(tasks.gpt, Size(context=8, width=16, layers=1, heads=2), 8, RECIPE, 3.4, 20),
    "digits": partial(tasks.digits, 4, 32, RECIPE._replace(lr=0.01), 2.25, 20),
}
"""The tasks of the benchmark, but tiny."""


class FakeTime:
    """A clock that moves when it is told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def spend(self, seconds: float) -> None:
        self.now += seconds


class Costly(nn.Module):
    """Two logits for each row, one forward pass of which takes a second in training and a hundred in evaluation."""

    def __init__(self, time: FakeTime) -> None:
        super().__init__()
        self.time = time
        self.weight = nn.Parameter(torch.tensor([[0.5, -0.5]]))

    def __deepcopy__(self, memo: dict[int, Any]) -> Costly:
        return Costly(self.time)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        self.time.spend(1.0 if torch.is_grad_enabled() else 100.0)
        return inputs @ self.weight


def costly_task(time: FakeTime, seen: list[int] | None = None, steps: int = 60) -> Task:
    """Each step lowers the loss; ``seen`` gets the steps that batches are asked for."""
    batch = torch.ones(4, 1), torch.ones(4, dtype=torch.int64)

    def batch_of(step: int) -> tasks.Batch:
        if seen is not None:
            seen.append(step)
        return batch

    return Task(
        key="costly",
        title="costly",
        model=partial(Costly, time),
        batch=batch_of,
        batch_size=4,
        held_out=batch,
        unit="row",
        facts={"source": "made up", "sha256": "", "train": 4, "held_out": 4},
        recipe=RECIPE._replace(steps=steps),
        goal=0.5,
        evaluate_every=5,
    )


def sgd(run: Callable[[], object], rate: float = 0.1) -> Callable[[nn.Module, Recipe], Stepping]:
    """Plain descent, and ``run`` after each step."""

    def begin(model: nn.Module, recipe: Recipe) -> Stepping:
        optimizer = torch.optim.SGD(model.parameters())

        def step() -> None:
            for group in optimizer.param_groups:
                group["lr"] = rate
            optimizer.step()
            optimizer.zero_grad()
            run()

        return Stepping(optimizer, step)

    return begin


def nothing() -> None:
    pass


def trained(task: Task, contenders: list[Way], **options: Any) -> Contest:
    contest = Contest(task)
    lockstep.train(task, contenders, "cpu", contest.trainings, **options)
    return contest


def console() -> Console:
    return Console(file=io.StringIO(), width=80)


def shown(*contests: Contest) -> str:
    to = console()
    table.show(Results("tiny", "cpu", ["bench"], describe(), list(contests), complete=True), to)
    assert isinstance(to.file, io.StringIO)
    return to.file.getvalue()


@pytest.fixture(scope="module", params=list(MAKERS))
def contest(request: pytest.FixtureRequest) -> Contest:
    """A tiny training by every contender that there is."""
    return trained(MAKERS[request.param](), ways.ways("cpu"))


# clocks and turns


def test_known_costs_and_shares_come_back() -> None:
    time = FakeTime()
    costs = {REFERENCE: 0.25, "gpuopt fast": 1 / 9, "gpuopt slow": 1.0}
    contest = trained(
        costly_task(time),
        [Way(name, sgd(partial(time.spend, cost))) for name, cost in costs.items()],
        clock=time,
    )
    rows = {row["contender"]: row for row in _json(contest)["tasks"][0]["rows"]}
    assert [rows[name]["share"] for name in costs] == pytest.approx([0.2, 0.1, 0.5])
    for name, cost in costs.items():
        row = rows[name]
        assert row["model"]["median"] == pytest.approx(1.0)
        assert row["optimizer"]["p90"] == pytest.approx(cost)
        assert row["seconds"] == pytest.approx(60 * (1 + cost))
        assert row["reached"]["seconds"] == pytest.approx(row["reached"]["step"] * (1 + cost))
        assert [step for step, _, _ in row["curve"]] == list(range(0, 61, 5))
        assert all(seconds == pytest.approx(step * (1 + cost)) for step, seconds, _ in row["curve"])
    assert [training.contender for training in contest.ranked()] == ["gpuopt fast", REFERENCE, "gpuopt slow"]


def test_goal_is_reached_at_the_first_evaluation_that_is_as_low() -> None:
    contest = trained(costly_task(FakeTime()), [Way(REFERENCE, sgd(nothing))])
    training = contest.trainings[0]
    losses = [point.loss for point in training.curve]
    assert losses == sorted(set(losses), reverse=True)
    for goal, expected in ((losses[4], 4), (np.nextafter(losses[4], 0), 5), (losses[0], 0)):
        assert Contest(replace(contest.task, goal=goal)).goal_of(training) == training.curve[expected]
    assert Contest(replace(contest.task, goal=np.nextafter(losses[-1], 0))).goal_of(training) is None


def test_contenders_take_turns_and_another_one_begins_each_round() -> None:
    told: list[str] = []
    names = ["a", "b", "c"]
    seen: list[int] = []
    trained(costly_task(FakeTime(), seen, steps=18), [Way(name, sgd(partial(told.append, name))) for name in names])
    expected = [name for name in names for _ in range(lockstep.WARM_UP)]
    for order, steps in (("abc", 5), ("bca", 5), ("cab", 5), ("abc", 3)):
        expected += [name for name in order for _ in range(steps)]
    assert told == expected
    after = seen[len(names) * lockstep.WARM_UP :]
    assert sorted(after) == sorted(list(range(18)) * 3)


def test_learning_rate_is_set_before_each_step() -> None:
    rates: list[float] = []

    def begin(model: nn.Module, recipe: Recipe) -> Stepping:
        optimizer = torch.optim.SGD(model.parameters())
        return Stepping(optimizer, lambda: rates.append(optimizer.param_groups[0]["lr"]))

    trained(costly_task(FakeTime()), [Way(REFERENCE, begin)])
    assert rates[lockstep.WARM_UP :] == [RECIPE.lr_at(step) for step in range(60)]


def test_learning_rate_rises_to_its_peak_and_falls_to_a_tenth() -> None:
    rates = [RECIPE.lr_at(step) for step in range(RECIPE.steps + 1)]
    assert rates[:5] == pytest.approx([1e-3, 2e-3, 3e-3, 4e-3, 5e-3])
    assert rates[5:] == sorted(rates[5:], reverse=True)
    assert rates[-1] == pytest.approx(5e-4)


# contenders that are not what they should be


def _diverging() -> Callable[[nn.Module, Recipe], Stepping]:
    def begin(model: nn.Module, recipe: Recipe) -> Stepping:
        def run() -> None:
            with torch.no_grad():
                for param in model.parameters():
                    param.fill_(torch.nan)

        return Stepping(torch.optim.SGD(model.parameters()), run)

    return begin


def _breaking(after: int) -> Callable[[nn.Module, Recipe], Stepping]:
    left = [after]

    def run() -> None:
        left[0] -= 1
        if left[0] < 0:
            raise RuntimeError("out of luck")

    return sgd(run)


def _refusing(model: nn.Module, recipe: Recipe) -> Stepping:
    raise ValueError("not this model")


@pytest.mark.parametrize(
    ("begin", "status", "why", "steps"),
    [
        (sgd(nothing, rate=0.11), "wrong", f"off those of {REFERENCE} within 30 steps", 60),
        (_diverging(), "diverged", "its loss was nan at step 1", 2),
        (_breaking(lockstep.WARM_UP + 13), "broken", "RuntimeError: out of luck", 13),
        (_refusing, "broken", "ValueError: not this model", 0),
    ],
    ids=["wrong", "diverging", "breaking in training", "breaking at once"],
)
def test_contender_that_is_not_right_is_named_and_not_ranked(begin: Any, status: str, why: str, steps: int) -> None:
    good = Way(REFERENCE, sgd(nothing)), Way("twin", sgd(nothing))
    contest = trained(costly_task(FakeTime()), [good[0], Way("odd", begin), good[1]])
    odd = contest.trainings[1]
    assert contest.judged(odd)[0] == status
    assert why in (contest.judged(odd)[1] or "")
    assert odd.steps == steps
    assert {training.contender for training in contest.ranked()} == {REFERENCE, "twin"}
    assert contest.missed(odd) == status
    found = _json(contest)
    assert found["faults"] == [f"costly: odd is {status}: {contest.judged(odd)[1]}"]
    assert found["tasks"][0]["rows"][1]["reached"] is None
    assert f"WRONG: costly: odd is {status}" in shown(contest)


def test_contender_that_cannot_run_here_says_why() -> None:
    contest = trained(
        costly_task(FakeTime()), [Way(REFERENCE, sgd(nothing)), Way("gpuopt odd", _refusing, "odd is not installed")]
    )
    assert contest.judged(contest.trainings[1]) == ("skipped", "odd is not installed")
    assert _json(contest)["faults"] == []
    assert "gpuopt odd is skipped: odd is not installed" in shown(contest)


def test_loss_that_is_not_reached_is_said_so() -> None:
    task = replace(costly_task(FakeTime()), goal=1e-6)
    contest = trained(task, [Way(REFERENCE, sgd(nothing))])
    row = _json(contest)["tasks"][0]["rows"][0]
    assert row["reached"] is None
    assert row["missed"].startswith("its lowest loss in 60 of 60 steps was 0.1")
    assert f"{REFERENCE} did not reach the loss" in shown(contest)


def test_drivers_that_end_with_different_bits_are_told_of() -> None:
    task = costly_task(FakeTime())
    nudged = sgd(nothing, rate=0.1 * (1 + 1e-6))
    contest = trained(
        task,
        [
            Way(REFERENCE, sgd(nothing)),
            Way("gpuopt a", sgd(nothing), ours=True),
            Way("gpuopt b", nudged, ours=True),
        ],
    )
    assert contest.same_bits() is False
    assert contest.judged(contest.trainings[2]) == ("trained", None)
    assert _json(contest)["faults"] == ["costly: gpuopt's drivers ended with different bits"]
    assert "DIFFERENT BITS" in shown(contest)


def test_one_driver_alone_has_nothing_to_compare_bits_with() -> None:
    contest = trained(costly_task(FakeTime()), [Way(REFERENCE, sgd(nothing)), Way("gpuopt a", sgd(nothing), ours=True)])
    assert contest.same_bits() is None
    assert "no bits to compare" in shown(contest)


def test_deviation_is_the_largest_share_of_the_reference() -> None:
    contest = Contest(costly_task(FakeTime()))
    late = [1.0] * EARLY + [1.5]
    contest.trainings += [Training(REFERENCE, losses=[1.0] * (EARLY + 1)), Training("other", losses=late)]
    assert contest.deviation(contest.trainings[0]) is None
    assert contest.deviation(contest.trainings[1]) == pytest.approx(0.5)
    assert contest.deviation(contest.trainings[1], EARLY) == 0.0
    assert contest.judged(contest.trainings[1]) == ("trained", None)


@pytest.mark.parametrize("name", MAKERS)
def test_learning_rate_wrong_by_a_hundredth_is_found(name: str) -> None:
    def begin(model: nn.Module, recipe: Recipe) -> Stepping:
        stepping = torch_way.begin(model, recipe)

        def run() -> None:
            for group in stepping.optimizer.param_groups:
                group["lr"] *= 1.01
            stepping.run()

        return replace(stepping, run=run)

    torch_way = next(way for way in ways.ways("cpu") if way.name == REFERENCE)
    contest = trained(MAKERS[name](), [torch_way, Way("odd", begin)])
    assert contest.judged(contest.trainings[1])[0] == "wrong"


# data and models


def test_text_is_pythons_manual_and_split_once() -> None:
    text = data.text()
    codes = np.concatenate([text.train, text.held_out])
    manual = "".join(text.characters[code] for code in codes)
    assert "The Python interpreter" in manual or "Python" in manual
    assert sorted(set(manual)) == list(text.characters)
    assert len(text.train) == len(codes) * 9 // 10
    assert len(codes) > 100_000


def test_digits_are_all_of_scikit_learns_and_split_once() -> None:
    images = data.digits()
    assert (len(images.train), len(images.held_out)) == (1437, 360)
    assert images.train.shape[1:] == (1, 8, 8)
    assert (images.train.min(), images.train.max()) == (0, 1)
    rows = {image.tobytes() for image in np.concatenate([images.train, images.held_out])}
    assert len(rows) == 1797  # no two are equal, so none is in both parts


@pytest.mark.parametrize("name", MAKERS)
def test_batches_are_repeatable_and_differ_from_step_to_step(name: str) -> None:
    task, again = MAKERS[name](), MAKERS[name]()
    for step in (0, 1, 50):
        for one, other in zip(task.batch(step), again.batch(step), strict=True):
            assert torch.equal(one, other)
    assert not torch.equal(task.batch(0)[0], task.batch(1)[0])


def test_text_batches_are_windows_whose_targets_are_the_next_characters() -> None:
    task = MAKERS["gpt"]()
    text = "".join(chr(code) for code in data.text().train)
    for inputs, targets in zip(*task.batch(3), strict=True):
        window = "".join(chr(code) for code in [*inputs.tolist(), targets[-1].item()])
        assert window in text
        assert torch.equal(inputs[1:], targets[:-1])


def test_an_epoch_has_no_image_twice() -> None:
    task = MAKERS["digits"]()
    images = torch.cat([task.batch(step)[0] for step in range(1437 // 32)]).numpy()
    assert len({image.tobytes() for image in images}) == len(images)


@pytest.mark.parametrize("scale", [tasks.FULL, tasks.QUICK], ids=["full", "quick"])
@pytest.mark.parametrize("name", ["gpt", "digits"])
def test_initial_weights_are_repeatable_and_know_nothing(name: str, scale: dict[str, Callable[[], Task]]) -> None:
    task = scale[name]()
    state = torch.random.get_rng_state()
    model, again = task.model(), task.model()
    assert torch.equal(torch.random.get_rng_state(), state)
    for one, other in zip(model.parameters(), again.parameters(), strict=True):
        assert torch.equal(one, other)
    with torch.no_grad():
        loss = tasks.loss_of(model(task.held_out[0]), task.held_out[1]).item()
    classes = model(task.held_out[0][:1]).shape[-1]
    assert loss == pytest.approx(np.log(classes), rel=0.05)
    assert task.goal < 0.8 * loss


def test_gpt_does_not_see_what_follows() -> None:
    task = MAKERS["gpt"]()
    model, tokens = task.model(), task.batch(0)[0]
    changed = tokens.clone()
    changed[:, 5] = (changed[:, 5] + 1) % len(data.text().characters)
    with torch.no_grad():
        before, after = model(tokens), model(changed)
    assert torch.equal(before[:, :5], after[:, :5])
    assert not torch.equal(before[:, 5:], after[:, 5:])


# every contender


def test_every_contender_learns_and_none_is_at_fault(contest: Contest) -> None:
    assert [training.contender for training in contest.trainings] == [
        "torch fused",
        "torch foreach",
        "torch for-loop",
        "gpuopt numba",
        "gpuopt numpy",
    ]
    assert _json(contest)["faults"] == []
    for training in contest.trainings:
        assert contest.judged(training) == ("trained", None)
        assert training.curve[-1].loss < contest.task.goal < 0.99 * training.curve[0].loss


def test_drivers_end_with_the_same_bits(contest: Contest) -> None:
    digests = {training.digest for training in contest.trainings if training.ours}
    assert len(digests) == 1
    assert None not in digests
    assert contest.same_bits() is True


def test_json_tells_all_of_it(contest: Contest) -> None:
    found = json.loads(json.dumps(_json(contest), allow_nan=False))
    task = found["tasks"][0]
    assert (found["schema"], found["device"], task["key"]) == (1, "cpu", contest.task.key)
    assert task["recipe"]["steps"] == 60
    assert len(task["data"]["sha256"]) == 64
    assert sorted(task["ranked"]) == sorted(training.contender for training in contest.trainings)
    for row in task["rows"]:
        assert row["steps"] == 60
        assert row["model"]["n"] == row["optimizer"]["n"] == 60
        assert row["seconds"] >= row["reached"]["seconds"] > 0
        assert 0 < row["share"] < 1
        assert [step for step, _, _ in row["curve"]] == [0, 20, 40, 60]
        assert row["loss"] == row["curve"][-1][2]
        assert (row["deviation"]["all"] is None) == (row["contender"] == REFERENCE)


def test_table_has_a_row_per_contender_in_80_columns(contest: Contest) -> None:
    text = shown(contest)
    lines = text.splitlines()
    assert max(len(line) for line in lines) <= 80
    for training in contest.trainings:
        assert sum(line.strip().startswith(training.contender + " ") for line in lines) == 1
    assert "…" not in text
    assert "Same bits in all parameters at the end: gpuopt numba and gpuopt numpy" in text


def test_settings_of_pytorch_are_as_they_were() -> None:
    before = torch.are_deterministic_algorithms_enabled(), torch.utils.deterministic.fill_uninitialized_memory
    trained(costly_task(FakeTime(), steps=1), [Way(REFERENCE, _refusing)])
    after = torch.are_deterministic_algorithms_enabled(), torch.utils.deterministic.fill_uninitialized_memory
    assert after == before


# formats of weights

TRIAL = formats.Trial(
    partial(formats._gpt, Size(context=8, width=16, layers=1, heads=2), 8, RECIPE._replace(steps=20)), (3, 4)
)


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The optimizers of all trainings, which step by the driver that needs no compiling."""
    every: list[Any] = []

    def adamw(*arguments: Any, **options: Any) -> Any:
        every.append(gpuopt.AdamW(*arguments, **options, backend="numpy"))
        return every[-1]

    monkeypatch.setattr(formats, "gpuopt", SimpleNamespace(AdamW=adamw))
    return every


def in_formats() -> formats.Results:
    return formats.Results(TRIAL, "tiny", "cpu", ["bench"], describe())


def test_every_format_is_trained_from_every_seed(made: list[Any]) -> None:
    results, told = in_formats(), []
    formats.run(results, lambda: told.append(1))
    found = json.loads(json.dumps(results.as_dict(), allow_nan=False))
    assert (found["complete"], found["faults"], found["seeds"]) == (True, [], [3, 4])
    assert len(told) == 20 * 2 * len(formats.STORED)
    assert [row["key"] for row in found["rows"]] == list(formats.STORED)
    first = found["rows"][0]
    assert first["differences"] == [0, 0]
    assert found["spread"] == pytest.approx(abs(first["losses"][0] - first["losses"][1]))
    untrained = np.log(len(data.text().characters))
    for row in found["rows"]:
        assert all(2 < loss < 0.95 * untrained for loss in row["losses"])
        assert row["differences"] == [
            loss - theirs for loss, theirs in zip(row["losses"], first["losses"], strict=True)
        ]
        assert row["loss"] == pytest.approx(sum(row["losses"]) / 2)
        assert row["difference"] == pytest.approx(sum(row["differences"]) / 2)
    assert len({tuple(row["losses"]) for row in found["rows"]}) == len(formats.STORED)


def test_weights_are_stored_as_it_says_and_state_is_float32(made: list[Any]) -> None:
    formats.run(in_formats())
    for (seed, name), optimizer in zip(product(TRIAL.seeds, formats.STORED), made, strict=True):
        stored = FORMAT_SETS[name]
        planes = [getattr(torch, plane.dtype) for plane in FORMATS[stored.param].planes]
        assert (stored.state, optimizer.seed) == ("fp32", seed)
        assert optimizer.stochastic_rounding == FORMATS[stored.param].is_random
        for param, state in optimizer.state.items():
            remainders = [state["param_remainder"]] if "param_remainder" in state else []
            assert [tensor.dtype for tensor in (param, *remainders)] == planes
            assert {state[slot].dtype for slot in ("exp_avg", "exp_avg_sq")} == {torch.float32}
            assert float(state["step"]) == 20


def test_seed_is_of_weights_and_of_batches() -> None:
    one, same, other = (TRIAL.task(seed) for seed in (3, 3, 4))
    weights = [next(iter(task.model().parameters())) for task in (one, same, other)]
    batches = [task.batch(5)[0] for task in (one, same, other)]
    for first, again, others in (weights, batches):
        assert torch.equal(first, again)
        assert not torch.equal(first, others)


def test_format_that_diverges_or_breaks_is_named_and_the_others_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    def trained(task: Task, name: str, seed: int, *rest: Any) -> float:
        if (name, seed) == ("split24", 3):
            raise RuntimeError("out of luck")
        return float("nan") if (name, seed) == ("split32", 4) else 2.0 + seed / 8

    monkeypatch.setattr(formats, "_trained", trained)
    results = in_formats()
    formats.run(results)
    found = results.as_dict()
    assert found["faults"] == [
        "split24 broke with seed 3: RuntimeError: out of luck",
        "split32 diverged with seed 4: its loss is nan",
    ]
    rows = {row["key"]: row["losses"] for row in found["rows"]}
    whole = [2.375, 2.5]
    assert rows == dict.fromkeys(formats.STORED, whole) | {"split24": [None, 2.5], "split32": [2.375, None]}
    to = console()
    table.show_formats(results, to)
    text = to.file.getvalue()  # type: ignore[attr-defined]
    assert max(map(len, text.splitlines())) <= 80
    assert all(f" {title} " in text for title in formats.STORED.values())
    assert "WRONG: split24 broke with seed 3" in text


@pytest.mark.parametrize("interrupted", [False, True])
def test_command_for_formats_writes_what_was_done(
    interrupted: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def trained(task: Task, name: str, *rest: Any) -> float:
        if interrupted and name == "split24":
            raise KeyboardInterrupt
        return 2.0

    monkeypatch.setattr(formats, "_trained", trained)
    monkeypatch.setattr(formats, "QUICK", TRIAL)
    ran = CliRunner().invoke(command.app, ["--quick", "--formats", "--device", "cpu", "--out", str(tmp_path)])
    assert ran.exit_code == (command.INTERRUPTED if interrupted else 0), ran.output
    found = json.loads((tmp_path / "formats.json").read_text())
    assert [path.name for path in tmp_path.iterdir()] == ["formats.json"]
    assert (found["complete"], found["schema"]) == (not interrupted, formats.SCHEMA)
    done = [loss for row in found["rows"] for loss in row["losses"] if loss is not None]
    assert len(done) == (list(formats.STORED).index("split24") if interrupted else 2 * len(formats.STORED))


# state in 8 bits

STATE_TRIALS = tuple(replace(TRIAL, stored=formats.STORED_8_BIT, seeds=(seed,)) for seed in (3, 4))
"""Two trials that differ by something."""


def test_state_is_stored_as_it_says(made: list[Any]) -> None:
    for trial in STATE_TRIALS:
        formats.run(formats.Results(trial, "tiny", "cpu", ["bench"], describe()))
    for name, optimizer in zip(2 * list(formats.STORED_8_BIT), made, strict=True):
        stored = formats.SETS[name]
        assert optimizer.param_groups[0]["params"][0].dtype == getattr(torch, FORMATS[stored.param].planes[0].dtype)
        assert optimizer.state_dtype == (None if name == formats.REFERENCE else "8bit")
        for state in optimizer.state.values():
            assert ("exp_avg" in state, "exp_avg_sq_codes" in state) == (stored.state == "fp32", stored.state == "8bit")


def test_trials_of_state_are_of_every_recipe_and_a_million_parameters() -> None:
    for trials, steps, seeds in ((formats.STATE_FULL, 1000, 3), (formats.STATE_QUICK, 20, 2)):
        recipes = [trial.task(0).recipe for trial in trials]
        assert {(recipe.lr, recipe.betas) for recipe in recipes} == set(
            product((1e-3, 3e-3), ((0.9, 0.999), (0.9, 0.95)))
        )
        assert {(recipe.weight_decay, recipe.max_norm, recipe.steps) for recipe in recipes} == {(0.1, 1.0, steps)}
        assert {(len(trial.seeds), *trial.stored) for trial in trials} == {(seeds, *formats.STORED_8_BIT)}
    params = list(formats.STATE_FULL[0].task(0).model().parameters())
    assert sum(param.numel() for param in params) >= 1_000_000
    assert any(param.shape[-1] % BLOCK for param in params)  # blocks go over the ends of rows


@pytest.mark.parametrize("interrupted", [False, True])
def test_command_for_state_writes_what_was_done(
    interrupted: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def trained(task: Task, name: str, seed: int, *rest: Any) -> float:
        if interrupted and seed == 4:
            raise KeyboardInterrupt
        return 2.0

    monkeypatch.setattr(formats, "_trained", trained)
    monkeypatch.setattr(formats, "STATE_QUICK", STATE_TRIALS)
    ran = CliRunner().invoke(command.app, ["--quick", "--state", "--device", "cpu", "--out", str(tmp_path)])
    assert ran.exit_code == (command.INTERRUPTED if interrupted else 0), ran.output
    trials = json.loads((tmp_path / "state.json").read_text())["trials"]
    assert [trial["complete"] for trial in trials] == [True, not interrupted]
    assert [[row["losses"] for row in trial["rows"]] for trial in trials] == [
        [[2.0]] * 4,
        [[None if interrupted else 2.0]] * 4,
    ]


# steps of an embedding

SIZE = embedding.Size(tokens=BLOCK, batch=8, steps=embedding.FIRST + 5)

TINY = embedding.Trial(width=3 * BLOCK // 4, betas=(0.9, 0.999))


def of_embedding(size: embedding.Size = SIZE) -> embedding.Results:
    results = embedding.Results(size, "tiny", "cpu", ["bench"], describe())
    results.rows = {TINY: []}
    return results


class Jump(torch.optim.Optimizer):
    """Changes one element of its last parameter, at each step by what comes next in ``jumps``."""

    def __init__(self, params: list[nn.Parameter], jumps: Iterable[float]) -> None:
        super().__init__(params, {})
        self.jumps = iter(jumps)

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]
        self.param_groups[0]["params"][-1][3, 5] += next(self.jumps)


def jumping(jumps: list[float], name: str = embedding.REFERENCE, **options: Any) -> embedding.Optimizer:
    return embedding.Optimizer(name, lambda params, betas: Jump(params, jumps), **options)


def test_the_largest_step_is_found_where_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    exact = [100.0] * embedding.FIRST + [0.25, -0.5, 0.125, 0.5, 0.0]
    ours = [0.0] * embedding.FIRST + [0.0, 0.0, 0.0, 0.0, -0.5625]
    monkeypatch.setattr(embedding, "LR", 0.125)
    every = [jumping(exact), jumping(ours, "good", ours=True), jumping([2 * jump for jump in ours], "bad", ours=True)]
    monkeypatch.setattr(embedding, "optimizers", lambda: every)
    results, told = of_embedding(), []
    embedding.run(results, lambda: told.append(1))
    found = json.loads(json.dumps(results.as_dict(), allow_nan=False))
    (trial,) = found["trials"]
    assert (found["complete"], found["faults"], len(told)) == (True, [], 3 * SIZE.steps)
    reference, good, _ = trial["rows"]
    assert (reference["update"], reference["step"]) == (pytest.approx(4, rel=1e-5), embedding.FIRST + 1)
    assert (good["update"], good["step"]) == (pytest.approx(4.5, rel=1e-5), embedding.FIRST + 4)
    assert [row["ratio"] for row in trial["rows"]] == pytest.approx([1, 1.125, 2.25], rel=1e-5)
    monkeypatch.setattr(embedding, "GOAL", 1.2)
    assert [row["met"] for row in results.as_dict()["trials"][0]["rows"]] == [None, True, False]


def test_every_optimizer_trains_or_says_why_not(monkeypatch: pytest.MonkeyPatch) -> None:
    guests = [library for library in LIBRARIES if library.coarse is not None]
    monkeypatch.setattr(embedding, "version", lambda package: "1.0")
    monkeypatch.setattr(embedding, "absent", lambda library: "it is absent" if library is guests[0] else None)

    def missing(module: str) -> Any:
        raise NotImplementedError("Quantization requires a CUDA device.")

    monkeypatch.setattr(embedding, "import_module", missing)
    results = of_embedding()
    embedding.run(results)
    (rows,) = results.rows.values()
    assert [row.optimizer for row in rows] == [
        "torch, float32",
        "gpuopt, float32",
        "gpuopt, 8 bits",
        *(f"{library.package}, 8 bits" for library in guests),
    ]
    exact, plain, eight_bit, first, *others = rows
    assert plain.update == pytest.approx(exact.update, rel=1e-3)
    assert plain.loss == pytest.approx(exact.loss, rel=1e-4)
    assert eight_bit.update == pytest.approx(exact.update, rel=0.2)
    assert eight_bit.update != pytest.approx(exact.update, rel=1e-4)
    assert (first.status, first.why, first.version) == ("skipped", "it is absent", None)
    for row in others:
        assert (row.status, row.version) == ("refused", "1.0")
        assert row.why == "NotImplementedError: Quantization requires a CUDA device."
    assert results.faults == []
    to = console()
    table.show_embedding(results, to)
    text = to.file.getvalue()  # type: ignore[attr-defined]
    assert max(map(len, text.splitlines())) <= 80
    assert all(f" {row.optimizer} " in text for row in rows)
    assert f"{first.optimizer}: it is absent" in text
    head, _, *lines = docs.updates(results.as_dict()).splitlines()
    assert head == "|  | rows of 96, betas 0.9, 0.999 |"
    assert lines[2:4] == [
        f"| gpuopt, 8 bits | {eight_bit.update:.2f} |",
        f"| {first.optimizer} | skipped |",
    ]
    assert lines[4] == f"| {guests[1].package} 1.0, 8 bits | refused |"
    assert f"{first.optimizer}: `it is absent`" in lines
    assert any(
        line.startswith(f"{guests[1].package} 1.0, 8 bits: `NotImplementedError: Quantization") for line in lines
    )


def test_optimizer_that_diverges_or_breaks_is_a_fault_unless_it_is_a_librarys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedding, "version", lambda package: "1.0")
    monkeypatch.setattr(embedding, "absent", lambda library: None)
    diverging = [0.0] * 3 + [float("nan")]
    every = [jumping(diverging), jumping([], "short"), jumping(diverging, "theirs", library=LIBRARIES[0])]
    monkeypatch.setattr(embedding, "optimizers", lambda: every)
    results = of_embedding()
    embedding.run(results)
    where = "with width 96 and betas (0.9, 0.999)"
    assert results.faults == [
        f"{embedding.REFERENCE} diverged {where}: a parameter was not finite after step 3",
        f"short broke {where}: StopIteration: ",
    ]
    assert [row.status for row in results.rows[TINY]] == ["diverged", "broken", "diverged"]


def test_tokens_are_drawn_by_zipfs_law_and_have_successors() -> None:
    text = embedding.Text(tokens=50, batch=20_000)
    here, follows = text.batch(0)
    assert all(torch.equal(one, other) for one, other in zip(text.batch(0), (here, follows), strict=True))
    assert not torch.equal(text.batch(1)[0], here)
    counts = here.bincount(minlength=50).sort(descending=True).values
    expected = 20_000 / np.arange(1, 51) / (1 / np.arange(1, 51)).sum()
    assert (np.abs(counts.numpy() - expected) < 6 * np.sqrt(expected)).all()
    commonest = here.bincount().argmax()
    assert (follows[here == commonest].bincount().max() / (here == commonest).sum()).item() > 0.45


def test_blocks_go_over_the_ends_of_rows_and_not() -> None:
    assert {(trial.width % BLOCK == 0, trial.betas) for trial in embedding.TRIALS} == set(
        product((False, True), ((0.9, 0.999), (0.9, 0.95)))
    )
    assert embedding.FULL.steps >= 1500


@pytest.mark.parametrize("interrupted", [False, True])
def test_command_for_an_embedding_writes_what_was_done(
    interrupted: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def trained(trial: embedding.Trial, size: embedding.Size, optimizer: embedding.Optimizer, *rest: Any) -> Any:
        if interrupted and optimizer.ours and trial == embedding.TRIALS[1]:
            raise KeyboardInterrupt
        return embedding.Row(optimizer.name, optimizer.ours, update=1.0, step=12, loss=2.0)

    monkeypatch.setattr(embedding, "_trained", trained)
    ran = CliRunner().invoke(command.app, ["--quick", "--embedding", "--device", "cpu", "--out", str(tmp_path)])
    assert ran.exit_code == (command.INTERRUPTED if interrupted else 0), ran.output
    found = json.loads((tmp_path / "embedding.json").read_text())
    assert (found["complete"], found["schema"]) == (not interrupted, embedding.SCHEMA)
    every = len(embedding.optimizers())
    assert [len(trial["rows"]) for trial in found["trials"]] == ([every, 2, 0, 0] if interrupted else [every] * 4)


# the command


def _json(*contests: Contest) -> dict[str, Any]:
    return Results("tiny", "cpu", ["bench"], describe(), list(contests), complete=True).as_dict()


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes ``--quick`` quicker."""
    monkeypatch.setattr(tasks, "QUICK", MAKERS)


@pytest.mark.usefixtures("tiny")
def test_command_writes_json_of_what_was_asked_for(tmp_path: Path) -> None:
    out = tmp_path / "new" / "folder"
    ran = CliRunner().invoke(command.app, ["--quick", "--only", "digits", "--out", str(out), "--device", "cpu"])
    assert ran.exit_code == 0, ran.output
    found = json.loads((out / "train.json").read_text())
    assert [task["key"] for task in found["tasks"]] == ["digits"]
    assert (found["scale"], found["complete"]) == ("quick", True)
    assert sorted(path.name for path in out.iterdir()) == ["train.json"]
    assert "train.json" in ran.output


@pytest.mark.usefixtures("tiny")
def test_fault_ends_with_1(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = [Way(REFERENCE, sgd(nothing)), Way("gpuopt odd", sgd(nothing, rate=0.2), ours=True)]
    monkeypatch.setattr(ways, "ways", lambda device: wrong)
    ran = CliRunner().invoke(command.app, ["--quick", "--only", "digits", "--out", str(tmp_path), "--device", "cpu"])
    assert ran.exit_code == command.WRONG
    assert "WRONG: digits: gpuopt odd is wrong" in ran.output


@pytest.mark.usefixtures("tiny")
def test_ctrl_c_keeps_what_was_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    left = [lockstep.WARM_UP + 25]

    def run() -> None:
        left[0] -= 1
        if left[0] == 0:
            raise KeyboardInterrupt

    monkeypatch.setattr(ways, "ways", lambda device: [Way(REFERENCE, sgd(run))])
    ran = CliRunner().invoke(command.app, ["--quick", "--out", str(tmp_path), "--device", "cpu"])
    assert ran.exit_code == command.INTERRUPTED
    found = json.loads((tmp_path / "train.json").read_text())
    assert found["complete"] is False
    assert [task["key"] for task in found["tasks"]] == ["gpt"]
    row = found["tasks"][0]["rows"][0]
    assert (row["steps"], row["digest"]) == (24, None)
    assert [step for step, _, _ in row["curve"]] == [0, 20]
    assert "of 60 steps" in row["missed"]
    assert "Interrupted" in ran.output


@pytest.mark.parametrize("first", [True, False])
def test_task_that_cannot_be_made_is_a_fault_and_the_others_are_kept(
    first: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lost() -> Task:
        raise FileNotFoundError("no such text: 'manual'")

    names = ["gpt", "digits"] if first else ["digits", "gpt"]
    monkeypatch.setattr(tasks, "QUICK", {name: lost if name == "gpt" else MAKERS[name] for name in names})
    monkeypatch.setattr(ways, "ways", lambda device: [Way(REFERENCE, sgd(nothing))])
    ran = CliRunner().invoke(command.app, ["--quick", "--out", str(tmp_path), "--device", "cpu"])
    assert ran.exit_code == command.WRONG
    found = json.loads((tmp_path / "train.json").read_text())
    assert found["faults"] == ["gpt broke: FileNotFoundError: no such text: 'manual'"]
    assert [(task["key"], task["rows"][0]["steps"]) for task in found["tasks"]] == [("digits", 60)]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["train.json"]
    assert "WRONG: gpt broke: FileNotFoundError" in ran.output


@pytest.mark.parametrize("begun", [True, False])
def test_task_that_breaks_is_no_training(begun: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = lockstep.train

    def train(task: Task, contenders: Any, device: str, trainings: list[Training], **options: Any) -> None:
        if task.key != "gpt":
            real(task, contenders, device, trainings, **options)
            return
        if begun:
            trainings.append(Training(REFERENCE, losses=[1.0], model_seconds=[1.0], optimizer_seconds=[1.0]))
        raise RuntimeError("out of memory")

    monkeypatch.setattr(tasks, "QUICK", MAKERS)
    monkeypatch.setattr(lockstep, "train", train)
    monkeypatch.setattr(ways, "ways", lambda device: [Way(REFERENCE, sgd(nothing))])
    ran = CliRunner().invoke(command.app, ["--quick", "--out", str(tmp_path), "--device", "cpu"])
    assert ran.exit_code == command.WRONG
    found = json.loads((tmp_path / "train.json").read_text())
    statuses = {task["key"]: [row["status"] for row in task["rows"]] for task in found["tasks"]}
    assert statuses == {**({"gpt": ["broken"]} if begun else {}), "digits": ["trained"]}
    assert "gpt broke: RuntimeError: out of memory" in found["faults"]


@pytest.mark.parametrize(
    ("device", "seen", "gpus", "told"),
    [
        (None, False, ["a GPU"], True),
        (None, False, [], False),
        (None, True, ["a GPU"], False),
        ("cpu", False, ["a GPU"], False),
    ],
    ids=["a GPU that is not seen", "no GPU", "a GPU", "asked for"],
)
def test_gpu_that_is_not_trained_on_is_told_of(
    device: str | None, seen: bool, gpus: list[str], told: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: seen)
    monkeypatch.setattr(command.machine, "gpus", lambda: gpus)
    monkeypatch.setattr(command, "compare", lambda *arguments: 0)
    options = ["--device", device] if device else []
    ran = CliRunner().invoke(command.app, ["--quick", "--out", str(tmp_path), *options])
    assert ran.exit_code == 0
    line = "Training on the CPU, although there is an NVIDIA GPU: PyTorch sees none."
    assert ran.output.splitlines() == ([line] if told else [])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--only", "llama"], "--only must be gpt or digits, but is 'llama'."),
        (["--only", "gpt", "--formats"], "--only must not be given with --formats, which is of a task of its own."),
        (["--only", "gpt", "--state"], "--only must not be given with --state, which is of a task of its own."),
        (["--state", "--formats"], "--state must not be given with --formats: each is of trainings of its own."),
        (["--state", "--embedding"], "--embedding must not be given with --state: each is of trainings of its own."),
        (["--device", "tpu"], "--device must be cpu or cuda, but is 'tpu'."),
        (["--device", "cuda"], "--device is cuda, but PyTorch sees no GPU here."),
        (["--out", "/dev/null/folder"], "--out must be a folder that can be written, but /dev/null/folder is not: "),
    ],
)
def test_what_cannot_be_done_is_refused_before_any_work(
    options: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "compare", lambda *arguments: pytest.fail("work was begun"))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    ran = CliRunner().invoke(command.app, ["--quick", "--out", str(tmp_path), *options])
    assert (ran.exit_code, ran.stdout) == (UNUSABLE, "")
    assert ran.stderr.startswith(message)
    assert len(ran.stderr.splitlines()) == 1


@pytest.mark.parametrize("package", command.PACKAGES)
def test_missing_package_is_named_with_the_way_to_get_it(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gpuopt.output.find_spec", lambda name: None if name == package else "found")
    ran = CliRunner().invoke(command.app, [])
    assert (ran.exit_code, ran.stdout) == (UNUSABLE, "")
    called = {"sklearn": "scikit-learn"}.get(package, package)  # on PyPI
    assert ran.stderr == f"{called} is not installed (pip install 'gpuopt[bench]').\n"
