"""``gpuopt bench`` as a user meets it.

- A whole run, shrunk, times every contender that can run here on every workload; its JSON is that of
  ``bench/SCHEMA.md``, and its tables hold what the JSON holds, without control codes where they go into a file.
- A contender that is wrong or raises is named and not ranked, and the others are timed; the exit code is 1.
- A goal is judged against the fastest of its rivals, of which none counts as faster than memory could be for the bytes
  that it was seen to move; where bytes decide, they say what is to be had.
- A run says how long it takes, and gives workloads less time where others took longer than they were to.
- What does not fit into memory, or comes after the budget, is skipped with the numbers.
- Ctrl-C keeps what was done. Patterns that match nothing, an ``--out`` that cannot be written, a device that is not
  there and a file that cannot be compared with are refused before any work, in a sentence.
- A run is compared with an older one row by row, with regard to noise; that anything is slower is exit code 1.
"""

from __future__ import annotations

import copy
import io
import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from kit import invented
from rich.console import Console
from typer.testing import CliRunner

from gpuopt import backends, machine
from gpuopt.bench import command, compare, contest, goals, suite, tables
from gpuopt.bench.alone import Alone
from gpuopt.bench.code import figures
from gpuopt.bench.contenders import contenders
from gpuopt.bench.contenders.contender import Contender, Entrant
from gpuopt.bench.order import FULL, QUICK, Order, Scale, Watcher
from gpuopt.bench.problem import WARM_UP, Problem
from gpuopt.bench.results import BUDGET_SPENT, NOT_REACHED, SCHEMA, Contest, Results, Row
from gpuopt.bench.selection import select
from gpuopt.bench.timing import Timing
from gpuopt.bench.workloads import JUDGED, TAILS, Workload, workloads

ROOT = Path(__file__).resolve().parents[1]
TINY = Scale("full", seconds=0.0, each=60.0, alone=True)
SMALL = (
    Workload("sizes", "Adam", "one-10", turns=3),
    Workload("arrays", "Adam", "one-10", front="arrays", turns=3),
    Workload("formats", "AdamW", "one-10", "bf16-fp32-state", turns=3),
    Workload("tail", "AdamW", "one-12", tail=TAILS[1], turns=3),
    Workload("many", "Adam", "one-10", new_grads=True, turns=3),
    Workload("many", "Adam", "experts-64x4x256", parts=8, turns=3),
)
USUAL = [contender for contender in contenders("cpu") if not contender.slow]
ALONE = "memory and first step"
NAMES = {contender.name for contender in USUAL}


def console():
    return Console(file=io.StringIO(), width=200)


def printed(to):
    return to.file.getvalue()


def order(some_workloads=SMALL, some_contenders=USUAL, **options):
    measured = Alone(extra_memory=7, compile=0.5)
    return Order("cpu", TINY, some_workloads, some_contenders, alone=lambda *_: measured, **options)


def run(out, *some, **options):
    """Exit code, JSON and terminal of a run."""
    to = console()
    code = command.benchmark(order(*some, **options), out, to)
    assert (out / "report.html").read_text().startswith("<!DOCTYPE html>")
    return code, json.loads((out / "bench.json").read_text()), printed(to)


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    return run(tmp_path_factory.mktemp("bench"))


# a whole run


def test_whole_run_is_clean(ran):
    code, found, text = ran
    assert code == 0
    assert found["faults"] == []
    assert "WRONG" not in text
    assert "\x1b" not in text


def test_trainings_in_the_same_folder_are_in_the_report(tmp_path):
    trained = tmp_path / "train.json"
    trained.write_text(json.dumps(invented.training()))
    _, _, text = run(tmp_path, SMALL[:1], USUAL[:1])
    assert "left out" not in text
    assert 'id="training"' in (tmp_path / "report.html").read_text()


@pytest.mark.parametrize("what", ["{", "{}", '{"schema": 0}', '{"schema": 1}'])
def test_trainings_that_cannot_be_read_are_left_out_of_the_report(tmp_path, what):
    (tmp_path / "train.json").write_text(what)
    code, _, text = run(tmp_path, SMALL[:1], USUAL[:1])
    assert code == 0
    assert f"{tmp_path / 'train.json'} is left out of the report: " in text


def test_json_is_that_of_the_schema(ran):
    _, found, _ = ran
    schema = (ROOT / "bench" / "SCHEMA.md").read_text()

    def documented(heading):
        section = schema.split(heading, 1)[1].split("\n## ", 1)[0]
        cells = [line.split("|")[1] for line in section.splitlines() if line.startswith("| `")]
        return {name.strip(" `") for cell in cells for name in cell.split(",")}

    assert set(found) == documented("# The JSON of `gpuopt bench`, schema 2")
    assert set(found["machine"]) == documented("## `machine`")
    for workload in found["workloads"]:
        assert set(workload) == documented("## A workload")
        for row in workload["rows"]:
            assert set(row) == documented("## A row")


def test_json_holds_what_was_measured(ran):
    _, found, _ = ran
    assert found["schema"] == SCHEMA == 2
    assert found["complete"]
    assert found["scale"] == "full"
    assert found["drivers"] == backends.available()
    assert found["copy"]["cpu"]["gb_per_s"] > 0
    assert [workload["key"] for workload in found["workloads"]] == [workload.key for workload in SMALL]
    timed = 0
    for workload in found["workloads"]:
        for row in workload["rows"]:
            if row["status"] not in ("exact", "close"):
                assert row["status"] == "skipped"
                assert row["why"]
                assert row["step"] is None
                continue
            timed += 1
            assert row["why"] is None
            assert row["step"]["n"] == 6
            assert row["step"]["p10"] <= row["step"]["median"] <= row["step"]["p90"]
            assert row["device"] is None
            assert row["gb_per_s"] == pytest.approx(workload["bytes"] / row["step"]["median"] / 1e9)
            assert row["copy_share"] == pytest.approx(row["gb_per_s"] / found["copy"]["cpu"]["gb_per_s"])
            assert (row["extra_memory"], row["compile"]) == (7, 0.5)
            assert (row["launches"] is not None) == row["contender"].startswith("gpuopt")
    assert timed > len(SMALL)


def test_tables_hold_what_was_found(ran):
    text = ran[2]
    for workload in SMALL:
        assert workload.title in text
    for part in ("Formats", "numba", "for-loop", "copy: cpu", "torch.optim keeps state in its parameter's dtype"):
        assert part in text


# contenders that are wrong, or raise, or do not fit


def played(name, after=None, error=None, **settings):
    """A contender that does nothing, and raises after so many steps."""
    steps = []

    def set_up(problem):
        def step():
            steps.append(name)
            if after is not None and len(steps) > after:
                raise error or RuntimeError("it broke\nand more")

        return Entrant(step, lambda: {"param": problem.params()})

    return Contender(name, "cpu", set_up, **settings)


@pytest.mark.parametrize(
    ("contender", "status", "why"),
    [
        (played("other"), "wrong", "units in the last place"),
        (played("other", after=0), "broken", "RuntimeError: it broke"),
        (played("other", after=0, error=MemoryError("9 GB")), "skipped", "MemoryError: 9 GB"),
        (played("other", absent=lambda: "it is away"), "skipped", "it is away"),
        (played("other", refuses=lambda workload: "it will not"), "skipped", "it will not"),
    ],
)
def test_contender_that_cannot_be_ranked_is_named_and_the_others_are_timed(contender, status, why, tmp_path):
    code, found, text = run(tmp_path, SMALL[:1], [contender, *USUAL[:2]])
    first, *others = found["workloads"][0]["rows"]
    assert first["status"] == status
    assert why in first["why"]
    assert (first["step"], first["gb_per_s"], first["extra_memory"]) == (None, None, None)
    assert all(row["step"]["n"] == 6 for row in others)
    assert why in " ".join(text.split())
    assert code == (1 if status in ("wrong", "broken") else 0)
    assert len(found["faults"]) == code


def test_wrong_contender_is_not_timed_at_all(tmp_path):
    steps = []

    def set_up(problem):
        return Entrant(lambda: steps.append(1), lambda: {"param": problem.params()})

    run(tmp_path, SMALL[:1], [Contender("wrong", "cpu", set_up), USUAL[0]])
    assert len(steps) == WARM_UP


def test_workload_that_breaks_is_a_fault_and_the_others_are_timed(tmp_path, monkeypatch):
    def breaks(self, workload, device):
        if workload == SMALL[0]:
            raise ModuleNotFoundError("No module named 'cupy'")
        real(self, workload, device)

    real = Problem.__init__
    monkeypatch.setattr(Problem, "__init__", breaks)
    code, found, _ = run(tmp_path, SMALL[:2], USUAL[:1])
    assert code == 1
    assert found["faults"] == [f"{SMALL[0].key}: ModuleNotFoundError: No module named 'cupy'"]
    assert [workload["rows"][0]["status"] for workload in found["workloads"]] == ["skipped", "exact"]
    assert found["workloads"][0]["rows"][0]["why"].startswith("the workload broke: ModuleNotFoundError")
    assert found["complete"]
    assert found["skipped"] == []


@pytest.mark.parametrize("after", [None, 0])
def test_fault_of_a_guest_is_told_and_is_no_failure(after, tmp_path):
    code, found, text = run(tmp_path, SMALL[:1], [played("guest", after=after, guest=True), USUAL[0]])
    assert code == 0
    assert len(found["faults"]) == 1
    assert found["faults"][0] in " ".join(text.split())


def test_contender_that_breaks_while_it_is_timed_is_broken(tmp_path, monkeypatch):
    right = next(each for each in USUAL if each.name == "torch foreach")

    def set_up(problem):
        entrant, steps = right.set_up(problem), []

        def step():
            steps.append(1)
            if len(steps) > 6:
                raise RuntimeError("late")
            entrant.step()

        return Entrant(step, entrant.outcome)

    code, found, _ = run(tmp_path, SMALL[:1], [replace(right, name="late", set_up=set_up), right])
    row, other = found["workloads"][0]["rows"]
    assert (row["status"], row["why"], row["step"]) == ("broken", "RuntimeError: late", None)
    assert other["step"]["n"] == 6
    assert code == 1


def test_guest_that_is_not_installed_is_named_once(tmp_path):
    guests = [played(name, absent=lambda: "guest is not installed", guest=True) for name in ("guest", "guest 8-bit")]
    _, found, text = run(tmp_path, SMALL[:2], [*guests, USUAL[0]])
    assert found["skipped"] == [{"what": guest.name, "why": "guest is not installed"} for guest in guests]
    assert "skipped guest, guest 8-bit: guest is not installed" in text
    assert [row["contender"] for workload in found["workloads"] for row in workload["rows"]] == [USUAL[0].name] * 2
    assert text.count("guest is not installed") == 1


def test_what_does_not_fit_is_skipped_with_the_numbers(tmp_path, monkeypatch):
    free = 10_000_000
    monkeypatch.setattr("gpuopt.bench.contest.memory.available", lambda device: free)
    small, large = Workload("sizes", "Adam", "one-18", turns=3), Workload("sizes", "Adam", "one-20", turns=3)
    _, found, text = run(tmp_path, [large, small], USUAL[:4])
    assert found["complete"]
    assert found["skipped"] == [{"what": large.key, "why": "it needs 0.0 GB at least, and 0.0 GB can be had"}]
    statuses = [row["status"] for row in found["workloads"][0]["rows"]]
    assert statuses == ["exact", "exact", "skipped", "skipped"]
    assert "can be had beside the others" in found["workloads"][0]["rows"][2]["why"]
    assert large.key in text


def test_arrays_need_cupy_on_a_gpu(monkeypatch):
    monkeypatch.setattr(contest.backends, "available", lambda: {"cupy": "cupy is not installed"})
    monkeypatch.setattr(contest.memory, "available", lambda device: None)
    assert contest._impossible(SMALL[1], "cuda", USUAL) == "cupy is not installed"
    assert contest._impossible(SMALL[1], "cpu", USUAL) is None
    assert contest._impossible(SMALL[0], "cuda", USUAL) is None


def test_nothing_begins_after_the_budget(tmp_path):
    code, found, _ = run(tmp_path, SMALL[:2], USUAL[:1], budget=0.0)
    assert not found["complete"]
    assert [skipped["what"] for skipped in found["skipped"]] == [workload.key for workload in SMALL[:2]]
    assert found["workloads"] == []
    assert code == 0


def test_what_is_not_measured_alone_is_told(tmp_path):
    asked = replace(order(SMALL[:1], USUAL[:1]), alone=lambda *_: Alone(why="it died"))
    assert command.benchmark(asked, tmp_path, console()) == 0
    found = json.loads((tmp_path / "bench.json").read_text())
    assert found["skipped"][0]["why"] == "it died"
    assert found["workloads"][0]["rows"][0]["extra_memory"] is None


def test_quick_run_measures_nothing_alone(tmp_path):
    def never(*_):
        raise AssertionError

    quick = replace(order(SMALL[:1], USUAL[:1]), scale=replace(QUICK, seconds=0.0), alone=never)
    assert command.benchmark(quick, tmp_path, console()) == 0


def test_section_on_compiled_code_is_that_which_was_asked_for(tmp_path):
    code, found, _ = run(tmp_path, SMALL[:1], USUAL[:1], code=lambda: figures.section((), ()))
    assert (code, found["code"]["kernels"]) == (0, [])


def test_section_that_breaks_is_a_fault_and_the_rest_is_kept(tmp_path):
    def breaks():
        raise RuntimeError("no assembler")

    code, found, text = run(tmp_path, SMALL[:1], USUAL[:1], code=breaks)
    assert (code, found["code"]) == (1, None)
    assert found["faults"] == ["the section on compiled code: RuntimeError: no assembler"]
    assert found["workloads"][0]["rows"][0]["step"]["n"] == 6
    assert "no assembler" in text


def test_launches_on_a_gpu_are_counted_of_what_was_timed(monkeypatch):
    monkeypatch.setattr(suite, "Problem", lambda *_: None)
    monkeypatch.setattr(suite, "waiting_for", lambda _: int)
    monkeypatch.setattr(contest, "give_back", lambda _: None)
    steps = []
    monkeypatch.setattr(suite, "count", lambda entrant, device: (device, len(steps)))

    def set_up(problem):
        return Entrant(lambda: steps.append(1), dict)

    def breaks(problem):
        raise RuntimeError("no profiler")

    right, broken = Contender("right", "cuda", set_up), Contender("broken", "cuda", breaks)
    found = Results("full", [], machine.describe(), {})
    found.contests = [
        Contest(SMALL[0], "cuda", [row("right", 1.0), row("broken", 1.0), row("other", why="is not there")])
    ]
    asked = replace(order((), (right, broken)), device="cuda")
    suite._count_launches(asked, found, Watcher(), lambda: True, int)
    timed = ("right", "broken")
    assert found.skipped == [(f"{SMALL[0].key}: launches of {name}", BUDGET_SPENT) for name in timed]
    assert list(suite._missing(asked, found)) == [f"{SMALL[0].key}: {ALONE} of {name}" for name in timed]
    found.skipped.clear()
    assert f"{SMALL[0].key}: launches of right" in suite._missing(asked, found)
    suite._count_launches(asked, found, Watcher(), lambda: False, int)
    assert [each.launches for each in found.contests[0].rows] == [("cuda", 1), None, None]
    assert found.skipped == [(f"{SMALL[0].key}: launches of broken", "RuntimeError: no profiler")]


# goals


def row(name, *times, **settings):
    return Row(name, "close" if times else "skipped", timing=Timing(list(times)), **settings)


COPIED = {"bytes": 2 * 10**9, "seconds": {"n": 15, "median": 9.0, "p10": 2.0, "p90": 20.0}, "gb_per_s": 2 / 9}


def judged(goal, *rows):
    """What is said of a goal, as JSON holds it, where memory moves 1.5 GB in a second: 12 take 8 s."""
    verdict = goals.judge(goal, {each.contender: each for each in rows}, COPIED)
    return {**asdict(goal), **asdict(verdict), "met": verdict.met, "close": verdict.close}


OURS_OF_CALLS = goals.Goal("w", "ours", ("slow", "fast", "absent"), 4.0)


def test_goal_is_judged_against_the_fastest_rival():
    rows = [row("ours", 2.0), row("slow", 20.0), row("fast", 7.0), row("absent", why="is not there")]
    said = judged(OURS_OF_CALLS, *rows)
    assert (said["against"], said["ratio"], said["met"], said["cached"]) == ("fast", 3.5, False, None)
    assert judged(replace(OURS_OF_CALLS, at_least=3.5), *rows)["met"] is True
    assert (said["off"], said["close"]) == (None, True)  # of one sample
    assert goals.seen(said) + goals.doubt(said) == "3.50, of few samples"
    assert judged(replace(OURS_OF_CALLS, theirs=("absent",)), *rows)["why"] == "absent: is not there"
    nobody = judged(replace(OURS_OF_CALLS, ours="nobody"), *rows)
    assert (nobody["why"], nobody["met"], nobody["at_least"]) == ("nobody: not run", None, 4.0)


def test_bytes_say_what_is_to_be_had_and_no_rival_is_faster_than_memory():
    goal = replace(OURS_OF_CALLS, at_least=None)
    ours = row("ours", *[2.0] * 10, moved=3 * 10**9)
    in_caches, in_memory = row("slow", *[4.0] * 10, moved=12 * 10**9), row("fast", *[10.0] * 10, moved=6 * 10**9)
    said = judged(goal, ours, in_caches, in_memory)
    assert said["at_least"] == pytest.approx(0.95 * 12 / 3)
    assert (said["against"], said["ratio"], said["cached"], said["met"]) == ("slow", 4.0, 0.5, True)
    assert goals.helped(said) == "Caches help slow: it takes 50% of the time that memory would for its bytes."
    said = judged(goal, ours, in_memory)
    assert said["at_least"] == pytest.approx(0.95 * 6 / 3)
    assert (said["against"], said["ratio"], said["cached"], said["met"]) == ("fast", 5.0, None, True)
    said = judged(replace(goal, at_least=3.0), ours, in_caches)
    assert (said["ratio"], said["cached"], said["met"]) == (2.0, None, False)  # of calls, not of bytes
    said = judged(goal, ours, row("fast", 10.0))
    assert (said["met"], said["close"], said["why"]) == (None, False, "what they move was not counted")


def test_goal_that_another_run_could_judge_otherwise_is_close():
    ours, theirs = row("ours", *[1.0] * 10), row("fast", 1.7, *[1.9, 2.0, 2.1] * 3)
    said = judged(replace(OURS_OF_CALLS, at_least=1.95), ours, theirs)
    assert said["ratio"] == 2.0
    assert said["off"] == pytest.approx(1.5 * (2.1 - 1.88) / 10**0.5)
    assert (said["met"], said["close"]) == (True, True)
    assert goals.seen(said) + goals.doubt(said) == f"2.00 ± {said['off']:.2f}, within noise"
    assert not judged(replace(OURS_OF_CALLS, at_least=1.8), ours, theirs)["close"]


def test_a_run_says_how_long_it_takes_and_keeps_to_it(tmp_path):
    _, _, text = run(tmp_path, SMALL[:1], USUAL[:1])
    assert text.startswith("This takes about 1 min 0 s.\n")
    assert replace(order(SMALL[:1]), budget=7.0).expected == 7.0
    some = replace(order(SMALL[:4]), scale=Scale("quick", seconds=5.0, each=10.0, alone=False))
    assert some.expected == 40.0
    assert some.seconds(0.0, 4) == 5.0
    assert some.seconds(12.0, 3) == pytest.approx(28 / 3 / 2)
    assert some.seconds(39.0, 1) == some.seconds(90.0, 1) == 1.0
    on_gpu = replace(some, device="cuda")
    assert (on_gpu.expected, on_gpu.seconds(90.0, 1)) == (None, 5.0)
    quick = replace(order([each for each in workloads("cpu") if each in JUDGED]), scale=QUICK)
    assert quick.expected <= 120.0


def test_times_on_the_gpu_count_where_a_contender_has_them():
    ours, theirs = (Row(name, "exact", timing=Timing([2.0] * 10, [1.0] * 10)) for name in ("ours", "theirs"))
    assert [each.times["median"] for each in (ours, theirs)] == [1.0, 1.0]
    theirs.timing.device = [1.0] * 8  # of ten
    assert theirs.device is None
    assert [each.times["median"] for each in (ours, theirs)] == [1.0, 2.0]
    assert row("absent", why="is not there").times is None


def test_a_rows_share_of_a_copy_is_by_its_own_time_on_the_gpu():
    ours, theirs = (Row(name, "exact", timing=Timing([2.0] * 10, [1.0] * 10, [0.5] * 10)) for name in ("a", "b"))
    theirs.timing.device = []
    copied = {"cuda": {"bytes": 1, "seconds": machine.spread([1.0]), "gb_per_s": 1.0}}
    results = Results("quick", [], machine.describe(), {}, copied)
    results.contests.append(Contest(SMALL[0], "cuda", [ours, theirs, row("absent", why="is not there")]))
    rows = results.as_dict()["workloads"][0]["rows"]
    assert [each["copy_share"] for each in rows] == [SMALL[0].bytes / 1e9, SMALL[0].bytes / 2e9, None]
    assert [each["gb_per_s"] for each in rows] == [each["copy_share"] for each in rows]
    assert [each["call"] and each["call"]["median"] for each in rows] == [0.5, 0.5, None]


def test_wrong_contender_is_not_ranked():
    ours, wrong = row("ours", 2.0), Row("fast", "wrong", "all of it", timing=Timing([0.1]))
    assert wrong.step is None
    said = judged(replace(OURS_OF_CALLS, theirs=("fast",)), ours, wrong)
    assert (said["ratio"], said["met"], said["why"]) == (None, None, "fast: all of it")


@pytest.mark.parametrize(
    ("key", "word"), [("adam/1000x64/fp32", "NOT MET"), ("rmsprop/200x100000/fp32", "Caches help")]
)
def test_goals_are_shown_with_what_is_to_be_said_of_them(key, word):
    workload = next(each for each in JUDGED if each.key == key)
    copied = {"cpu": {"bytes": 1, "seconds": machine.spread([1.0]), "gb_per_s": 1e-9}}
    found = Results("quick", [], machine.describe(), {}, copied)
    rows = [row("gpuopt numba", 1.0, moved=20), row("torch fused", 2.0), row("torch for-loop", 2.0, moved=52)]
    found.contests = [Contest(workload, "cpu", rows)]
    command._judge(found)
    to = console()
    tables.show(found, to)
    assert word in " ".join(printed(to).split())


def test_formats_are_shown_with_their_bytes_and_against_torch_in_fp32():
    found = Results("quick", [], machine.describe(), {})
    for formats, seconds in (("fp32", 2.0), ("split24-stochastic-state", 0.5)):
        rows = [row("gpuopt numba", seconds), *([row("torch fused", 1.0)] if formats == "fp32" else [])]
        found.contests.append(Contest(Workload("formats", "AdamW", "one-24", formats), "cpu", rows))
    to = console()
    tables.show(found, to)
    text = printed(to)
    assert all(said in text for said in ("12 stored, 28 moved", "7 stored, 16 moved", "0.50x", "1.00x", "2.00x"))
    found.contests[0].workload = replace(found.contests[0].workload, group="models")
    tables.show(found, to := console())
    assert "0.50x" not in printed(to)


def test_busy_machine_is_told_of():
    to = console()
    busy = Results("full", [], machine.describe(), {}, loads=[0.5, None, 0.3])
    assert busy.as_dict()["machine"]["others_load"] == pytest.approx(0.4)
    tables.show(busy, to)
    assert "Other processes took 40% of the CPU" in printed(to)


# what is asked for


def invoke(*arguments):
    answer = CliRunner().invoke(command.app, arguments)
    return answer.exit_code, " ".join(answer.output.split())


def test_ctrl_c_keeps_what_was_done(tmp_path):
    def interrupts(problem):
        raise KeyboardInterrupt

    stopper = played("stopper", refuses=lambda workload: None if workload == SMALL[1] else "not yet")
    code, found, text = run(tmp_path, SMALL[:3], [*USUAL[:1], replace(stopper, set_up=interrupts)])
    assert code == 130
    assert "Interrupted" in text
    assert "saved" in text
    assert not found["complete"]
    assert [workload["key"] for workload in found["workloads"]] == [workload.key for workload in SMALL[:2]]
    assert found["workloads"][0]["rows"][0]["step"]["n"] == 6
    assert found["workloads"][1]["rows"][0]["step"] is None
    assert found["workloads"][1]["rows"][1]["why"] == NOT_REACHED
    assert found["workloads"][1]["rows"][0]["status"] == "exact"
    assert found["workloads"][1]["rows"][0]["why"] == NOT_REACHED
    assert found["skipped"] == [{"what": SMALL[2].key, "why": NOT_REACHED}]
    assert f"{SMALL[1].key}: {USUAL[0].name}" in text
    assert SMALL[2].key in text


def test_ctrl_c_while_a_contender_is_measured_alone_keeps_the_others(tmp_path):
    def interrupts(workload, device, contender):
        if contender == USUAL[1].name:
            raise KeyboardInterrupt
        return Alone(extra_memory=7, compile=0.5)

    asked = replace(order(SMALL[:2], USUAL[:3], code=dict), alone=interrupts)
    assert command.benchmark(asked, tmp_path, console()) == 130
    found = json.loads((tmp_path / "bench.json").read_text())
    assert [each["extra_memory"] for each in found["workloads"][0]["rows"]] == [7, None, None]
    assert all(each["step"]["n"] == 6 for each in found["workloads"][0]["rows"])
    missing = [f"{SMALL[0].key}: {ALONE} of {each.name}" for each in USUAL[1:3]]
    missing = [SMALL[1].key, *missing, suite.CODE]
    assert found["skipped"] == [{"what": what, "why": NOT_REACHED} for what in missing]


def test_workload_that_breaks_when_it_was_timed_is_not_one_that_was_not_reached(tmp_path):
    def breaks(*_):
        raise OSError("no more processes")

    asked = replace(order(SMALL[:2], USUAL[:2]), alone=breaks)
    assert command.benchmark(asked, tmp_path, console()) == 1
    found = json.loads((tmp_path / "bench.json").read_text())
    assert found["complete"]
    assert found["skipped"] == []
    assert found["faults"] == [f"{workload.key}: OSError: no more processes" for workload in SMALL[:2]]


def test_row_of_a_gpu_that_was_always_held_back_says_so():
    throttled = Row("x", "exact", timing=Timing(discarded=6))
    contest._explain(throttled, NOT_REACHED)
    assert (throttled.status, throttled.why) == ("exact", "the GPU was held back in all of its 6 samples")


def test_process_that_is_killed_leaves_what_was_done(tmp_path):
    class Killed(BaseException):
        pass

    def dies(problem):
        raise Killed

    dead = played("dead", refuses=lambda workload: None if workload == SMALL[1] else "not yet")
    with pytest.raises(Killed):
        run(tmp_path, SMALL[:2], [*USUAL[:1], replace(dead, set_up=dies)])
    found = json.loads((tmp_path / "bench.json").read_text())
    assert not found["complete"]
    assert [workload["key"] for workload in found["workloads"]] == [SMALL[0].key]


def test_patterns_choose_workloads_and_contenders():
    everything = workloads("cpu")
    some, who = select(["*/one-10/*", "GPUOPT*"], everything, USUAL, JUDGED)
    assert [workload.key for workload in some] == ["adam/one-10/fp32"]
    assert {contender.name for contender in who} == {"gpuopt numba", "gpuopt numpy"}
    some, who = select(["torch compiled"], everything, contenders("cpu"), JUDGED)
    assert tuple(some) == JUDGED
    assert [contender.name for contender in who] == ["torch compiled"]
    some, who = select([], everything, USUAL)
    assert (some, who) == (list(everything), USUAL)
    some, who = select(["*"], everything, contenders("cpu"), JUDGED)
    assert len(some) == len(everything)
    assert "torch compiled" not in {contender.name for contender in who}


@pytest.fixture
def no_work(monkeypatch):
    def never(*_):
        raise AssertionError("work began")

    monkeypatch.setattr(suite, "run", never)


@pytest.mark.usefixtures("no_work")
def test_list_names_everything():
    code, text = invoke("--list", "--device", "cpu")
    assert code == 0
    for contender in contenders("cpu"):
        assert contender.name in text
    assert "".join(JUDGED[0].key.split()) in text.replace(" ", "")


@pytest.mark.usefixtures("no_work")
def test_pattern_that_matches_nothing_is_refused_with_what_is_close(tmp_path):
    code, text = invoke("--only", "adam/one-9/fp32", "--out", str(tmp_path), "--device", "cpu")
    assert code == 2
    assert text.startswith("--only must match something that gpuopt bench --list --device cpu shows, but is 'adam/")
    assert "'adam/one-" in text.partition("close to it: ")[2]


@pytest.mark.usefixtures("no_work")
def test_out_that_cannot_be_written_is_refused_before_any_work(tmp_path):
    file = tmp_path / "file"
    file.write_text("mine")
    for out in (file, file / "below"):
        code, text = invoke("--out", str(out), "--device", "cpu")
        assert code == 2
        assert "--out must be a folder that can be written" in text
    assert file.read_text() == "mine"


@pytest.mark.usefixtures("no_work")
def test_device_that_is_not_there_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(command.backends, "available", lambda: {"triton": "PyTorch sees no CUDA device"})
    code, text = invoke("--device", "cuda", "--out", str(tmp_path))
    assert (code, text) == (2, "--device cuda cannot be used here: PyTorch sees no CUDA device.")
    code, text = invoke("--device", "tpu", "--out", str(tmp_path))
    assert (code, text) == (2, "--device must be cpu or cuda, but is 'tpu'.")


def test_gpu_that_cannot_be_used_is_told_of(tmp_path, monkeypatch):
    monkeypatch.setattr(command, "benchmark", lambda *_: 0)
    monkeypatch.setattr(command.backends, "available", lambda: {"triton": "PyTorch sees no CUDA device"})
    out = ("--out", str(tmp_path))
    monkeypatch.setattr(command, "gpus", list)
    assert invoke(*out) == (0, "")
    monkeypatch.setattr(command, "gpus", lambda: [{"name": "H100"}])
    assert invoke(*out) == (0, "Timing the CPU, although there is a GPU: PyTorch sees no CUDA device.")
    assert invoke(*out, "--device", "cpu") == (0, "")


@pytest.mark.usefixtures("no_work")
def test_older_run_of_other_workloads_is_refused_before_any_work(ran, tmp_path):
    old = tmp_path / "old.json"
    old.write_text(json.dumps(ran[1]))
    code, text = invoke("--compare", str(old), "--only", "adam/1000x64/*", "--device", "cpu", "--out", str(tmp_path))
    assert code == 2
    assert "has times of nothing that is to be timed now" in text


def test_command_takes_its_options(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(command, "benchmark", lambda asked, out, to, old: seen.append((asked, out, old)) or 0)
    monkeypatch.setattr(command.backends, "available", lambda: {"triton": "PyTorch sees no CUDA device"})
    assert invoke("--device", "cpu")[0] == 0
    options = ["--quick", "--only", "adam/1000x64/fp32", "--only", "gpuopt*", "--out", str(tmp_path), "--budget", "9"]
    assert invoke("--device", "cpu", *options)[0] == 0
    assert invoke("--quick", "--code")[0] == 0
    (full, out, old), (quick, other_out, _), (with_code, *_) = seen
    assert (full.code is None, quick.code is None, with_code.code is None) == (False, True, False)
    assert with_code.device == "cpu"
    assert (full.scale, len(full.workloads), str(out), old) == (FULL, len(workloads("cpu")), "out", None)
    assert (quick.scale, other_out, quick.budget) == (QUICK, tmp_path, 9.0)
    assert [workload.key for workload in quick.workloads] == ["adam/1000x64/fp32"]


# an older run


def aged(found, factor, contender="gpuopt numpy"):
    """The same run with one contender's times multiplied."""
    old = copy.deepcopy(found)
    for workload in old["workloads"]:
        for each in workload["rows"]:
            if each["contender"] == contender and each["step"]:
                each["step"] = {"n": 10, "median": factor * 1.0, "p10": factor * 0.99, "p90": factor * 1.01}
    return old


@pytest.mark.parametrize(
    ("before", "after", "verdict"),
    [
        ((1.0, 0.99, 1.01), (1.2, 1.19, 1.21), "slower"),
        ((1.2, 1.19, 1.21), (1.0, 0.99, 1.01), "faster"),
        ((1.0, 0.99, 1.01), (1.04, 1.03, 1.05), "same"),
        ((1.0, 0.99, 1.01), (1.2, 0.8, 1.6), "same"),
        ((1.0, 0.9, 1.1), (1.2, 1.1, 1.3), "slower"),
        ((1.0, 0.7, 1.3), (1.2, 1.19, 1.21), "same"),
    ],
)
def test_difference_counts_when_it_is_more_than_the_threshold_and_the_noise(before, after, verdict):
    was, now = ({"n": 10, **dict(zip(("median", "p10", "p90"), times, strict=True))} for times in (before, after))
    assert compare._verdict(was, now) == verdict


def test_too_few_samples_tell_nothing():
    few, other = ({"n": 5, "median": median, "p10": median, "p90": median} for median in (1.0, 9.0))
    assert compare._verdict(few, other) == "same"


def test_older_run_is_compared_row_by_row(ran):
    _, found, _ = ran
    slow, fast = aged(found, 1.0), aged(found, 2.0)
    verdicts = {(change.workload, change.contender): change for change in compare.changes(slow, fast, NAMES)}
    changed = {key for key, change in verdicts.items() if change.verdict != "same"}
    assert changed == {(workload.key, "gpuopt numpy") for workload in SMALL}
    assert all(verdicts[key].verdict == "slower" for key in changed)
    assert all(change.verdict in ("same", "faster") for change in compare.changes(fast, slow, NAMES))


def test_workload_that_the_older_run_had_not_is_not_compared(ran):
    _, found, _ = ran
    old = copy.deepcopy(found)
    key = old["workloads"].pop()["key"]
    seen = list(compare.changes(old, found, NAMES))
    assert {change.workload for change in seen} == {workload.key for workload in SMALL} - {key}
    assert {change.verdict for change in seen} == {"same"}


def test_row_that_is_wrong_now_is_lost(ran):
    _, found, _ = ran
    new = copy.deepcopy(found)
    new["workloads"][0]["rows"][0].update(status="wrong", step=None)
    lost = [change for change in compare.changes(found, new, NAMES) if change.verdict != "same"]
    assert [(change.contender, change.verdict, change.is_worse) for change in lost] == [("gpuopt numba", "lost", True)]


def test_what_was_asked_for_and_has_no_time_now_is_lost(ran):
    _, found, _ = ran
    new = copy.deepcopy(found)
    key = new["workloads"].pop(0)["key"]
    new["skipped"].append({"what": key, "why": "it needs 9.0 GB"})
    row = new["workloads"][0]["rows"][0]
    row.update(status="skipped", why="numba is not installed", step=None)
    lost = {
        (change.workload, change.contender): change.why
        for change in compare.changes(found, new, NAMES)
        if change.is_worse
    }
    ours = [
        each["contender"] for each in found["workloads"][0]["rows"] if each["step"] and "gpuopt" in each["contender"]
    ]
    assert lost == {
        **{(key, contender): "it needs 9.0 GB" for contender in ours},
        (new["workloads"][0]["key"], row["contender"]): "numba is not installed",
    }
    assert not [each for each in compare.changes(found, new, {"torch fused"}) if each.is_worse]
    for why in compare.CUT_SHORT:
        new["skipped"][-1]["why"] = row["why"] = why
        assert not [each for each in compare.changes(found, new, NAMES) if each.verdict == "lost"]


def test_what_differs_besides_the_code_is_said(ran):
    _, found, _ = ran
    found = copy.deepcopy(found)
    found["machine"]["others_load"] = 0.0
    assert compare.differences(found, found) == []
    new = copy.deepcopy(found)
    new["scale"] = "quick"
    new["machine"]["versions"]["torch"] = "1.0"
    new["machine"]["others_load"] = 0.3
    new["machine"]["gpus"] = [{"name": "H100", "driver": "570"}]
    new["copy"]["cpu"]["gb_per_s"] = 2 * found["copy"]["cpu"]["gb_per_s"]
    said = compare.differences(found, new)
    assert said[:2] == ["the GPU was none and is H100 with driver 570", "the scale was full and is quick"]
    assert any(clause.startswith("the version of torch was ") and clause.endswith(" is 1.0") for clause in said)
    assert any(clause.startswith("a copy in cpu memory went at ") for clause in said)
    assert said[-1] == "other processes took 30% of the CPU in the newer run"


@pytest.mark.parametrize(("factor", "code"), [(1e-9, 1), (1e9, 0)])
def test_slower_than_the_older_run_is_exit_code_1(factor, code, ran, tmp_path, monkeypatch):
    monkeypatch.setattr(compare, "noise", lambda times: 0.0)  # of a few steps on a busy machine it can be all
    old = aged(ran[1], factor)
    old["machine"]["cpu"] = "Another"
    to = console()
    only_ours = [contender for contender in USUAL if contender.name == "gpuopt numpy"]
    assert command.benchmark(order(SMALL[:1], only_ours), tmp_path, to, old) == code
    assert ("slower" if code else "faster") in printed(to)
    assert "Mind that the CPU was Another" in printed(to)


@pytest.mark.usefixtures("no_work")
@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "cannot be read: No such file"),
        ("{", "is no JSON"),
        ('{"schema": 1}', "must be of schema 2, but"),
        ("[]", "must be of schema 2, but"),
    ],
)
def test_file_that_cannot_be_compared_with_is_refused(text, said, tmp_path):
    path = tmp_path / "old.json"
    if text is not None:
        path.write_text(text)
    code, output = invoke("--compare", str(path), "--out", str(tmp_path), "--device", "cpu")
    assert code == 2
    assert said in output
