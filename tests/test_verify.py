"""``gpuopt verify`` proves that drivers give the oracle's bits, or shows the first element where one does not.

1. A driver with a wrong last bit in one element of one slot of one rule fails, whichever rule and slot: exit code 1,
   and told are driver, rule, variant, case, slot, tensor, index, the inputs of that element, and both results in hex
   and as numbers. The other rules and drivers are still compared, and pass.
2. So does one that skips what it must not skip, or writes NaN for a number, beyond a tensor's end, or nothing, that
   forgets to zero gradients or a signal, or that raises.
3. A right one passes with exit code 0; each variant is compared in each case, on bits that hold zeros of both signs,
   subnormals, infinities, NaN and ordinary values. Another seed draws other bits, the same seed the same.
4. Quick has each set of options of each rule, and each format of each kind of slot, and says what is left out: other
   combinations, and for all variants but one, which is named, the case of a prologue that changes nothing.
5. A driver that does not exist, cannot run here or is the oracle is refused with exit code 2 and the reason. Where only
   the oracle runs, nothing is proved, and the exit code is 3. A driver that cannot run is named with the reason. So it
   is with those for one device, if only they are asked for.
6. Ctrl-C prints what has been compared until then, and the exit code is 130.
7. Several processes find what one finds; one that dies fails what it ran.
8. Lines fit 80 columns, and what is piped has no colour and no bar.
9. With ``--json`` it writes what it has compared to a file, whole after each variant, faults included.
10. A driver for GPUs that is interpreted on host memory is said to be before the table, and that nothing is proved of
    it on a GPU after it.
"""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from gpuopt.cli import app
from gpuopt.kernels import blocks
from gpuopt.kernels.drivers import DRIVERS
from gpuopt.kernels.drivers import numpy as oracle
from gpuopt.kernels.formats import FORMATS
from gpuopt.kernels.rules import RULES
from gpuopt.kernels.signals import NO_SIGNALS, Signals
from gpuopt.kernels.table import NUMEL, Table
from gpuopt.verify import command, run
from gpuopt.verify.cases import NEUTRAL, Case, cases
from gpuopt.verify.drawing import bits
from gpuopt.verify.memory import PlacedTensors, TorchMemory
from gpuopt.verify.proof import Outcome, prove
from gpuopt.verify.quick import features, fewest
from gpuopt.verify.report import HEAD
from gpuopt.verify.run import ORACLE, Task, outcomes, tasks
from gpuopt.verify.tensors import Tensors
from gpuopt.verify.variants import UNIFORM, variants

TILE = 128

Change = Callable[[Table], None]


class Entry:
    """A driver of the registry that is not there."""

    def __init__(self, name: str, run: Callable[..., None], reason: str | None = None, device: str = "cpu") -> None:
        self.name, self.device, self.reason = name, device, reason
        self.module = SimpleNamespace(TILE=TILE, DEVICE="cpu", SCHEDULES=False, run=run)

    def load(self) -> Any:
        return self.module

    def is_interpreted(self) -> bool:
        return bool(self.device != self.module.DEVICE)

    def unavailable(self) -> str | None:
        return self.reason


@pytest.fixture(autouse=True)
def only_the_oracle(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    every = dict(DRIVERS)
    for name in every:
        if name != ORACLE:
            monkeypatch.delitem(DRIVERS, name)
    yield
    monkeypatch.undo()
    DRIVERS.clear()
    DRIVERS.update(every)  # in their order, which says which is the fastest


@pytest.fixture
def plant(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Registers a driver that does as the oracle and then changes the table by hand."""

    def planted(change: Change = lambda table: None, name: str = "fake", **about: str) -> None:
        def run(table: Table, hyper: Any, stream: int = 0, signals: Signals = NO_SIGNALS) -> None:
            oracle.run(table, hyper, stream, signals)
            change(table)

        monkeypatch.setitem(DRIVERS, name, Entry(name, run, **about))

    return planted


def verify(*words: str) -> Any:
    return CliRunner().invoke(app, ["verify", "--jobs", "1", *words])


def slot_of(table: Table, tensor: int, slot: str) -> Any:
    """The entries of the first plane of one slot of one tensor; None where it is absent."""
    return next(iter(oracle._slots(table)[tensor][table.variant.slots.index(slot)]), None)


def flip(rule: str, slot: str, index: int) -> Change:
    """Flips the last bit of one element of one slot of each tensor that has it, for one rule."""

    def change(table: Table) -> None:
        if table.variant.rule.name != rule:
            return
        for tensor, row in enumerate(table.rows):
            stored = slot_of(table, tensor, slot)
            if stored is not None and row[NUMEL] > index:
                bits(stored)[index] ^= 1

    return change


# a planted fault


@pytest.mark.parametrize(
    ("rule", "slot"),
    [
        ("adam", "exp_avg_sq"),
        ("adagrad", "param"),
        ("sgd", "copy"),
        ("sgd", "momentum_buffer"),
        ("adam", "average"),
    ],
)
def test_a_wrong_last_bit_is_found_and_named(rule: str, slot: str, plant: Callable[..., None]) -> None:
    plant(name="right")
    plant(flip(rule, slot, 77), name="wrong")
    result = verify("--quick")
    assert result.exit_code == command.FAILED
    lines = result.output.splitlines()
    verdicts = {
        tuple(line.split()[:2]): line.split()[-1] for line in lines if line.split()[-1:] in (["ok"], ["FAILED"])
    }
    assert verdicts == {
        **{("right", name): "ok" for name in RULES},
        **{("wrong", name): "FAILED" if name == rule else "ok" for name in RULES},
    }
    start = lines.index(f"wrong {rule}: other bits than those of numpy")
    told = {
        line.split()[0]: line.split()[1:] for line in lines[start + 1 :] if line.startswith("  ") and line[2] != " "
    }
    assert told["variant"][0].startswith(f"{rule}(param=")
    assert told["slot"] == [slot]
    assert told["index"][:2] == ["77", "of"]
    got, expected = told["wrong"], told["numpy"]
    assert int(got[0], 16) == int(expected[0], 16) ^ 1
    assert len(got) == len(expected)
    assert [float(value) for value in got[1:]] != [float(value) for value in expected[1:]] or len(got) == 1
    assert told["inputs"][0] == "param"
    assert any(line.split()[:1] == ["grad"] and "0x" in line for line in lines[start:])
    assert told["hyper"][0] == "grad_scale"
    assert "FAILED" in lines[-1]
    assert "wrong" in lines[-1]
    assert "right" not in lines[-1]


def test_inputs_and_hyper_told_give_the_expected_result(plant: Callable[..., None]) -> None:
    """What is printed is enough to compute the element again by hand."""
    plant(flip("sgd", "param", 5))
    variant = next(each for each in variants() if str(each) == "sgd(param=fp32, grad=fp32)")
    fault = prove("fake", variant, cases(variant, TILE), seed=3).fault
    assert fault is not None
    assert fault.difference is not None
    fp32 = {slot: np.array([stored], np.uint32).view(np.float32) for slot, stored in fault.inputs.items()}
    hyper = {field: np.float32(value) for field, value in fault.hyper.items()}
    grad = fp32["grad"] * hyper["grad_scale"] + fp32["param"] * hyper["weight_decay"]
    param = fp32["param"] - fp32["param"] * hyper["decoupled_decay"]
    assert bits(param - grad * hyper["step_size"])[0] == fault.difference.expected
    assert fault.formats == {"param": "fp32", "grad": "fp32"}
    assert pickle.loads(pickle.dumps(fault)) == fault


def test_the_first_of_several_that_differ_and_their_number(plant: Callable[..., None]) -> None:
    chosen: list[Any] = []

    def change(table: Table) -> None:
        if table.rows[4, NUMEL] == 127:
            numbers = np.flatnonzero(np.isfinite(slot_of(table, 4, "param")))
            chosen.append(numbers[[3, 10, 20]])
            bits(slot_of(table, 4, "param"))[chosen[-1]] ^= 0x10
            bits(slot_of(table, 6, "exp_avg"))[:] ^= 1

    plant(change)
    variant = variants()[0]
    fault = prove("fake", variant, cases(variant, TILE)[:1], seed=0).fault
    assert fault is not None
    assert fault.difference is not None
    assert (fault.difference.tensor, fault.difference.index, fault.difference.count) == (4, chosen[0][0], 3)


# other faults


def adam(**signals: float) -> tuple[Any, Case]:
    variant = next(each for each in variants() if each.zero_grads and each.rule.name == "adam")
    few = (1, 129, TILE + 3)
    hypers = cases(variant, TILE)[0].hypers[:1]
    return variant, Case("a case", few, hypers, signals=signals)


def assert_fault(
    run: Callable[..., None], monkeypatch: pytest.MonkeyPatch, problem: str | None, **signals: float
) -> None:
    monkeypatch.setitem(DRIVERS, "fake", Entry("fake", run))
    variant, case = adam(**signals)
    fault = prove("fake", variant, [case], seed=0).fault
    assert fault is not None
    if problem is None:
        assert fault.difference is not None
    else:
        assert fault.problem is not None
        assert problem in fault.problem


def test_a_driver_that_does_nothing_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    assert_fault(lambda *_, **__: None, monkeypatch, None)


def test_a_driver_that_raises_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    def raises(*_: Any, **__: Any) -> None:
        raise OSError("out of everything")

    assert_fault(raises, monkeypatch, "OSError: out of everything")


def test_a_driver_that_writes_beyond_the_end_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    def beyond(table: Table, hyper: Any, stream: int = 0, signals: Signals = NO_SIGNALS) -> None:
        oracle.run(table, hyper, stream, signals)
        table.rows[1, NUMEL] += 1
        table.version += 1
        slot_of(table, 1, "exp_avg")[-1] = 0

    assert_fault(beyond, monkeypatch, "of exp_avg of tensor 1 was written, which has 129 elements of 4 bytes")


def test_a_driver_that_writes_nan_for_a_number_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    def undefined(table: Table, hyper: Any, stream: int = 0, signals: Signals = NO_SIGNALS) -> None:
        oracle.run(table, hyper, stream, signals)
        slot_of(table, 1, "param")[:] = np.nan

    assert_fault(undefined, monkeypatch, None)


def test_a_nan_may_have_any_payload(monkeypatch: pytest.MonkeyPatch) -> None:
    def other_payload(table: Table, hyper: Any, stream: int = 0, signals: Signals = NO_SIGNALS) -> None:
        oracle.run(table, hyper, stream, signals)
        for tensor in range(len(table.rows)):
            stored = slot_of(table, tensor, "param")
            bits(stored)[np.isnan(stored)] ^= 0x80000001

    monkeypatch.setitem(DRIVERS, "fake", Entry("fake", other_payload))
    variant, case = adam()
    assert prove("fake", variant, [case], seed=0).fault is None


@pytest.mark.parametrize("field", Signals._fields)
def test_a_driver_that_forgets_a_signal_fails(field: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def deaf(table: Table, hyper: Any, stream: int = 0, signals: Signals = NO_SIGNALS) -> None:
        oracle.run(table, hyper, stream, signals._replace(**{field: 0}))

    assert_fault(
        deaf, monkeypatch, None, loss_scale=3.0, clip_factor=0.3, found_inf=1.0 if field == "found_inf" else 0.0
    )


def test_a_driver_that_keeps_gradients_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    def keeps(table: Table, hyper: Any, stream: int = 0, signals: Signals = NO_SIGNALS) -> None:
        before = [slot_of(table, tensor, "grad").copy() for tensor in range(len(table.rows))]
        oracle.run(table, hyper, stream, signals)
        for tensor, grad in enumerate(before):
            slot_of(table, tensor, "grad")[:] = grad

    assert_fault(keeps, monkeypatch, None)
    assert_fault(keeps, monkeypatch, None, found_inf=1.0)


# what is compared


def test_a_right_driver_passes(plant: Callable[..., None]) -> None:
    plant()
    result = verify()
    assert result.exit_code == 0
    lines = [line.split() for line in result.output.splitlines() if line.startswith("fake ")]
    counts = {rule: sum(each.rule.name == rule for each in variants()) for rule in RULES}
    assert [(line[1], int(line[2]), line[-1]) for line in lines] == [(rule, counts[rule], "ok") for rule in RULES]
    for line in lines:
        assert int(line[3]) >= 10 * int(line[2])
        assert int(line[4].replace(",", "")) > 1000 * int(line[2])
    assert "All bits are the oracle's" in result.output
    assert "\x1b" not in result.output
    assert all(len(line) <= 80 for line in result.output.splitlines() if line.startswith(("fake", "driver")))


@pytest.mark.parametrize("name", FORMATS)
def test_bits_span_the_whole_range(name: str) -> None:
    format = FORMATS[name]
    variant = next(each for each in variants() if each.formats[2 if format.in_blocks else 0] is format)
    tensors = Tensors(variant, [100_000], seed=0)
    for slot, format in tensors.formats.items():
        with np.errstate(all="ignore"):
            values = blocks.load(format, [tensors.stored(0, name) for name in tensors.planes_of(slot)])
        if format.in_blocks:  # whose signs and smallest values are those of scales and codes
            codes, scales = (tensors.stored(0, name) for name in tensors.planes_of(slot))
            assert set(codes) == set(range(256))
            assert np.isnan(values).any()
            assert np.isfinite(values).mean() > 0.4
            assert not np.isfinite(scales).all()
            continue
        tiny = 2.0 ** {"fp64": -1022, "fp16": -14}.get(format.name, -126)
        finite = values[np.isfinite(values)]
        assert np.isnan(values).any()
        assert np.isposinf(values).any()
        assert np.isneginf(values).any()
        assert {bool(sign) for sign in np.signbit(values[values == 0])} == {True, False}
        assert ((abs(finite) > 0) & (abs(finite) < tiny)).any()
        assert ((abs(finite) > 1e-3) & (abs(finite) < 1)).mean() > 0.2


def test_a_seed_draws_its_own_bits() -> None:
    first, again, other = (Tensors(variants()[0], [100], seed) for seed in (1, 1, 2))
    assert (first.buffers[0]["param"] == again.buffers[0]["param"]).all()
    assert (first.buffers[0]["param"] != other.buffers[0]["param"]).any()


def test_tasks_are_all_variants_on_all_drivers_in_every_case() -> None:
    todo = tasks(["a", "b"])
    assert {(task.driver, task.variant) for task in todo} == {(d, v) for d in "ab" for v in range(len(variants()))}
    assert len(todo) == 2 * len(variants())
    assert not any(task.left_out for task in todo)
    assert [task.rule for task in todo if task.driver == "a"] == sorted(
        (each.rule.name for each in variants()), key=list(RULES).index
    )


def test_cases_cover_steps_alignment_hyper_and_signals() -> None:
    for variant in variants():
        made = cases(variant, TILE)
        assert len({case.name for case in made}) == len(made)
        both = {(a, b) for a in (False, True) for b in (False, True)}
        assert {(case.misaligned, case.one_by_one) for case in made} == {*both, ("grad", False)}
        assert any(len(case.hypers) > 1 for case in made)
        assert NEUTRAL in [case.name for case in made]
    signals = [case.signals for variant in variants() for case in cases(variant, TILE)]
    for field in Signals._fields:
        values = [given[field] for given in signals if field in given]
        assert 0 in values
        assert np.isnan(values).any()
        assert np.isinf(values).any()


def test_quick_has_each_option_and_format(plant: Callable[..., None]) -> None:
    every = variants()
    chosen = fewest(every)
    assert chosen == fewest(every)
    assert len(chosen) < len(every) / 4
    covered = set().union(*(features(every[index]) for index in chosen))
    for rule in RULES.values():
        for slots in rule.option_sets():
            assert ("options", rule.name, *slots) in covered
    for kind, formats in (
        ("param", [name for name, each in FORMATS.items() if not each.in_blocks]),
        ("grad", UNIFORM),
        ("state", FORMATS),
    ):
        assert {each[1] for each in covered if each[0] == kind} == set(formats)
    assert {each[1] for each in covered if each[0] == "gradients"} == {"zeroed", "kept"}
    quick = tasks(["fake"], quick=True)
    assert sorted(task.variant for task in quick) == chosen
    assert sum(NEUTRAL not in task.left_out for task in quick) == 1
    plant()
    result = verify("--quick")
    assert result.exit_code == 0
    assert f"Quick: {len(chosen)} of {len(every)} variants" in result.output
    assert f"{len(every) - len(chosen)} other combinations of these are left out" in result.output
    (whole,) = (every[task.variant] for task in quick if NEUTRAL not in task.left_out)
    assert f"The case '{NEUTRAL}' is run for one of the {len(chosen)} alone, {whole}." in result.output


def test_a_driver_for_gpus_that_is_interpreted_proves_nothing_of_a_gpu(plant: Callable[..., None]) -> None:
    said = "fake is interpreted here, on host memory and not on a GPU: TRITON_INTERPRET is set."
    plant(device="cuda")
    plant(name="host")
    result = verify("--quick")
    assert result.exit_code == 0
    lines = result.output.splitlines()
    assert lines.index(said) < lines.index(HEAD)
    assert lines[-1] == "fake was interpreted, so this proves nothing of it on a GPU."
    assert "host is interpreted" not in result.output
    assert "host was interpreted" not in result.output


def test_interpreted_triton_is_said_to_be() -> None:
    """One variant, in a process of its own: Triton either interprets or compiles in one."""
    pytest.importorskip("triton")
    from kit import interpreter

    reason = interpreter.unusable()
    if reason:
        pytest.skip(reason)
    program = """
from rich.console import Console
from gpuopt.verify import command, run
command.tasks = lambda drivers, quick: run.tasks(drivers)[-1:]
raise SystemExit(command.compare(["triton"], False, 0, 1, Console()))
"""
    environment = os.environ | {"TRITON_INTERPRET": "1"}
    command_line = [sys.executable, "-P", "-c", program]
    done = subprocess.run(command_line, env=environment, capture_output=True, text=True, check=True)
    assert "triton is interpreted here, on host memory and not on a GPU: TRITON_INTERPRET is set." in done.stdout
    assert done.stdout.splitlines()[-1] == "triton was interpreted, so this proves nothing of it on a GPU."


def test_numba_gives_the_oracles_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("numba")
    monkeypatch.undo()
    variant = next(each for each in variants() if str(each) == "sgd(param=bf16, grad=bf16)")
    outcome = prove("numba", variant, cases(variant, DRIVERS["numba"].load().TILE)[:4], seed=1)
    assert outcome.fault is None
    assert outcome.comparisons == 8


def test_tensors_of_another_memory() -> None:
    pytest.importorskip("torch")
    host = Tensors(variants()[5], [5, 100, 0], seed=1, misaligned=True)
    placed = PlacedTensors(host, TorchMemory(0, "cpu"))
    before = host.copy()
    host.draw(seed=2)
    assert (placed.download().stored(1, "grad") == before.stored(1, "grad")).all()
    placed.refresh("grad")
    for tensor in range(3):
        for slot in host.formats:
            assert (bits(placed.download().stored(tensor, slot)) == bits(host.stored(tensor, slot))).all()
    assert [(a - b) % 16 for a, b in zip(placed.addresses()[0], host.addresses()[0], strict=True)] == [0] * len(
        host.variant.slots
    )


# what is refused


def test_a_driver_that_does_not_exist_is_refused(plant: Callable[..., None]) -> None:
    plant(name="here")
    result = verify("--driver", "cuda")
    assert result.exit_code == command.UNUSABLE
    assert result.output == "--driver must be one of here, but is 'cuda'.\n"


def test_a_driver_that_cannot_run_is_refused_if_asked_for_and_named_if_not(plant: Callable[..., None]) -> None:
    plant(name="here")
    plant(name="there", reason="the moon is not up")
    result = verify("--driver", "there")
    assert result.exit_code == command.UNUSABLE
    assert result.output == "--driver must be one that runs here, but there does not: the moon is not up.\n"
    result = verify("--quick")
    assert result.exit_code == 0
    assert "there does not run here: the moon is not up." in result.output


def test_only_the_drivers_that_are_asked_for_are_compared(plant: Callable[..., None]) -> None:
    for name in ("one", "two", "three"):
        plant(name=name)
    result = verify("--quick", "--driver", "one", "--driver", "three")
    assert {line.split()[0] for line in result.output.splitlines() if line.endswith(" ok")} == {"one", "three"}


def test_the_oracle_is_refused(plant: Callable[..., None]) -> None:
    plant()
    result = verify("--driver", ORACLE)
    assert result.exit_code == command.UNUSABLE
    assert f"{ORACLE} is the oracle" in result.output


def test_nothing_but_the_oracle_proves_nothing(plant: Callable[..., None]) -> None:
    plant(name="there", reason="the moon is not up")
    result = verify()
    assert result.exit_code == command.NOTHING
    assert f"only {ORACLE} runs here" in result.output
    assert "there does not run here: the moon is not up." in result.output


@pytest.mark.parametrize("words", [("--seed", "-1"), ("--jobs", "0"), ("--seed", "x"), ("--driver",), ("extra",)])
def test_what_typer_refuses(words: tuple[str, ...], plant: Callable[..., None]) -> None:
    plant()
    assert CliRunner().invoke(app, ["verify", *words]).exit_code == command.UNUSABLE


# interrupted, and in several processes


def test_ctrl_c_prints_what_was_compared(plant: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    real = run.perform
    done: list[Task] = []
    counts = Counter(task.rule for task in tasks(["fake"], quick=True))
    first = counts["adam"]

    def until_then(task: Task, seed: int) -> Outcome:
        if len(done) == first + 1:
            raise KeyboardInterrupt
        done.append(task)
        return real(task, seed)

    plant()
    monkeypatch.setattr(run, "perform", until_then)
    result = verify("--quick")
    assert result.exit_code == command.INTERRUPTED
    lines = [line.split() for line in result.output.splitlines() if line.startswith("fake ")]
    assert [(line[1], line[2], line[-1]) for line in lines] == [
        ("adam", str(first), "ok"),
        ("rmsprop", "1", str(counts["rmsprop"])),
    ]
    assert "Interrupted" in result.output
    assert "All bits" not in result.output


def test_processes_find_what_one_finds() -> None:
    """The driver is the oracle itself, which every process has."""
    todo = tasks([ORACLE], quick=True)[:3]

    def found(jobs: int) -> dict[Task, tuple[int, int, Any]]:
        return {task: (each.comparisons, each.elements, each.fault) for task, each in outcomes(todo, 0, jobs)}

    assert found(1) == found(2)


def test_a_process_that_dies_fails_its_driver(plant: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    class Pool:
        def __init__(self, *_: Any) -> None:
            self.given = 0

        def submit(self, function: Any, task: Task, seed: int) -> Future[Outcome]:
            future: Future[Outcome] = Future()
            self.given += 1
            if self.given > sum(each.rule == "adam" for each in tasks(["fake"], quick=True)):
                future.set_exception(BrokenProcessPool("gone"))
            else:
                future.set_result(Outcome(1, 2, 3.0))
            return future

        def shutdown(self, **_: Any) -> None:
            pass

    plant()
    monkeypatch.setattr(run, "ProcessPoolExecutor", Pool)
    result = CliRunner().invoke(app, ["verify", "--quick", "--jobs", "2"])
    assert result.exit_code == command.FAILED
    verdicts = [line.split()[-1] for line in result.output.splitlines() if line.startswith("fake ")][:4]
    assert verdicts == ["ok", "FAILED", "FAILED", "FAILED"]
    assert "a process that ran fake died; --jobs 1 runs it in the one that you see" in result.output


def test_every_core_has_a_process_but_not_more_than_eight(
    plant: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    def none(todo: Any, seed: int, jobs: int) -> Iterator[tuple[Task, Outcome]]:
        asked.append(jobs)
        yield from ((task, Outcome()) for task in todo)

    plant()
    monkeypatch.setattr(command, "outcomes", none)
    for count in (1, 3, 64):
        monkeypatch.setattr(command, "cores", lambda count=count: count)
        assert CliRunner().invoke(app, ["verify"]).exit_code == 0
    assert asked == [1, 3, command.MOST_JOBS]


# the JSON


def test_what_was_compared_is_written_as_it_comes(plant: Callable[..., None], tmp_path: Path) -> None:
    plant(flip("sgd", "param", 3), name="wrong")
    path = tmp_path / "made" / "verify.json"
    assert verify("--quick", "--json", str(path)).exit_code == command.FAILED
    found = json.loads(path.read_text())
    assert (found["quick"], found["seed"]) == (True, 0)
    assert {(line["driver"], line["rule"]) for line in found["lines"]} == {("wrong", rule) for rule in RULES}
    for line in found["lines"]:
        assert line["variants"] == line["of"] > 0
        assert line["comparisons"] > 0
        assert (line["fault"] is None) == (line["rule"] != "sgd")
    (fault,) = (line["fault"] for line in found["lines"] if line["fault"])
    assert "wrong sgd: other bits" in fault[0]


def test_an_interrupted_comparison_leaves_what_it_has(plant: Callable[..., None], tmp_path: Path) -> None:
    def interrupt(table: Table) -> None:
        if table.variant.rule.name == "rmsprop":
            raise KeyboardInterrupt

    plant(interrupt)
    assert verify("--quick", "--json", str(tmp_path / "verify.json")).exit_code == command.INTERRUPTED
    lines = json.loads((tmp_path / "verify.json").read_text())["lines"]
    assert lines[0]["variants"] == lines[0]["of"]
    assert lines[-1]["variants"] == 0


def test_a_json_that_cannot_be_written_is_refused(plant: Callable[..., None], tmp_path: Path) -> None:
    plant()
    (tmp_path / "file").write_text("")
    done = verify("--json", str(tmp_path / "file" / "verify.json"))
    assert done.exit_code == command.UNUSABLE
    assert "--json must be in a folder that can be written" in done.stderr


def test_drivers_for_one_device_are_compared_as_far_as_they_run(plant: Callable[..., None]) -> None:
    plant(name="host")
    plant(name="there", device="cuda")
    plant(name="absent", device="cuda", reason="it sees no device")
    result = verify("--quick", "--device", "cuda")
    assert result.exit_code == 0
    assert "Comparing there with numpy" in result.output
    assert "absent does not run here: it sees no device." in result.output
    assert verify("--device", "tpu").exit_code == command.UNUSABLE
