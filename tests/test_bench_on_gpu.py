"""What of the round on a machine with a GPU can be tested without one.

1. The script refuses to begin where there is no GPU, before it installs anything; with one it hands folder and stages
   to the round. A stage that does not exist is refused before any is run.
2. Stages take less than nine minutes together, what decides comes first, and all files lie in one folder, eight at
   most.
3. Each stage is run whatever becomes of those before. One that overruns is interrupted with all that it has started,
   and killed if it does not end; so it is when the round itself is ended. How each ended is written when it has, all
   that is said is in the log, and little of it is shown.
4. The last line has the device, the decisive rows and what failed, from whatever files there are.
5. The tests for GPUs can be collected where PyTorch's catalogue of optimizers cannot be imported.

``interpreted/test_smoke.py`` runs what of the smoke test can be run without a GPU.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from kit import invented
from typer.testing import CliRunner

from gpuopt.bench.gpu import round as round_
from gpuopt.bench.gpu import smoke, stages
from gpuopt.bench.gpu.stages import Stage
from gpuopt.bench.gpu.summary import summary
from gpuopt.bench.results import Results
from gpuopt.bench.workloads import DECISIVE

ROOT = Path(__file__).resolve().parents[1]
ON_GPU = ROOT / "bench" / "on_gpu.sh"


@pytest.fixture
def script(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs the script with an ``nvidia-smi`` that does as told, and a Python that writes down how it is called."""
    for name, does in (("python", 'echo "$@" >> calls'), ("nvidia-smi", '. "$(dirname "$0")/smi"')):
        (tmp_path / name).write_text(f'#!/bin/sh\ncd "{tmp_path}"\n{does}\n')
        (tmp_path / name).chmod(0o755)

    def run(smi: str, *names: str) -> subprocess.CompletedProcess[str]:
        (tmp_path / "smi").write_text(smi)
        path = f"{tmp_path}:{os.environ['PATH']}"
        environment = {"PATH": path, "PYTHON": str(tmp_path / "python"), "OUT": "/somewhere"}
        return subprocess.run([ON_GPU, *names], env=environment, capture_output=True, text=True, check=False)

    return run


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_the_script_refuses_without_a_gpu_and_hands_over_with_one(script, tmp_path):
    done = script("echo 'No devices were found' >&2; exit 6")
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert "no NVIDIA GPU" in done.stderr
    assert not (tmp_path / "calls").exists()
    assert script("echo 'NVIDIA Fake 100 80GB'", "smoke", "tests").returncode == 0
    assert (tmp_path / "calls").read_text().splitlines() == [
        "-m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .",
        "-P -m gpuopt.bench.gpu /somewhere/nvidia-fake-100-80gb smoke tests",
    ]


def invoke(*words: str):
    import typer

    app = typer.Typer()
    app.command()(round_.on_gpu)
    before = [(number, signal.getsignal(number)) for number in (signal.SIGTERM, signal.SIGINT)]
    try:
        return CliRunner().invoke(app, list(words))
    finally:
        for number, handler in before:
            signal.signal(number, handler)


@pytest.fixture
def interruptible():
    """As the round makes itself, also where tests run in the background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_a_round_in_the_background_can_interrupt_its_stages(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(round_, "run", lambda chosen, folder: seen.append(signal.getsignal(signal.SIGINT)) or 0)
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        assert invoke(str(tmp_path), "smoke").exit_code == 0
    finally:
        signal.signal(signal.SIGINT, before)
    assert seen == [signal.default_int_handler]


def test_a_stage_that_does_not_exist_is_refused_before_any_is_run(tmp_path):
    done = invoke(str(tmp_path / "out"), "smoke", "everything")
    assert done.exit_code == 2
    assert "A stage must be one of smoke, bench, verify, tests, sweeps, but is everything." in done.stderr
    assert not (tmp_path / "out").exists()


def test_some_stages_are_run_in_their_order(tmp_path, monkeypatch):
    ran = []
    monkeypatch.setattr(round_, "run", lambda chosen, folder: ran.extend(stage.name for stage in chosen) or 0)
    assert invoke(str(tmp_path), "tests", "smoke").exit_code == 0
    assert invoke(str(tmp_path)).exit_code == 0
    assert ran == ["smoke", "tests", "smoke", "bench", "verify", "tests", "sweeps"]


def test_all_stages_fit_into_what_a_gpu_is_lent_for(monkeypatch):
    found = stages.stages(Path("/out/gpu"))
    installation = 15
    assert sum(stage.limit + round_.GRACE for stage in found.values()) + installation < 9 * 60
    names = [name for stage in found.values() for name in stage.files] + [round_.LOG, round_.JSON]
    assert len(names) == len(set(names)) == 8
    for stage in found.values():
        given = {Path(word.partition("=")[2] or word) for word in stage.arguments if "/out/gpu" in word}
        assert given
        assert {path.name for path in given if path.suffix} <= set(stage.files)
    assert "xdist" in found["tests"].arguments
    monkeypatch.setattr(stages, "find_spec", lambda name: None)
    assert "-n" not in stages.stages(Path("/out/gpu"))["tests"].arguments


def python(name: str, code: str, limit: float = 60.0) -> Stage:
    return Stage(name, limit, ("-c", code))


def test_stages_are_run_whatever_becomes_of_those_before(tmp_path, capfd):
    chosen = [
        python("first", "print('one', flush=True); import os; os._exit(7)"),
        python(
            "second",
            f"import os; print('x' * 5000); print('two', *map(os.environ.get, {list(round_.ENVIRONMENT)[:2]}))",
        ),
        python("third", "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)"),
    ]
    assert round_.run(chosen, tmp_path) == round_.FAILED
    found = json.loads((tmp_path / round_.JSON).read_text())
    assert [(each["stage"], each["code"], each["ended"]) for each in found["stages"]] == [
        ("first", 7, "done"),
        ("second", 0, "done"),
        ("third", -signal.SIGSEGV, "done"),
    ]
    log = (tmp_path / round_.LOG).read_text()
    assert "x" * 5000 in log
    assert log.index("one") < log.index("two 0 1")
    shown = capfd.readouterr().out
    assert "x" * round_.SHOWN not in shown
    assert "two 0 1" in shown
    assert shown.splitlines()[-1] == found["summary"]
    assert found["summary"].endswith("first done with 7, third done with -11")
    assert round_.run(chosen[1:2], tmp_path) == 0
    assert "one" not in (tmp_path / round_.LOG).read_text()


HANGS = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(300)"])
print(child.pid, flush=True)
{wait}
"""
PATIENT = """try:
    time.sleep(300)
except KeyboardInterrupt:
    print("wrote it down", flush=True)
    raise SystemExit(5)"""
STUBBORN = "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN); time.sleep(300)"


def runs(pid: int) -> bool:
    """Whether a process runs, not counting one that has ended and that nobody has asked for yet."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def child_in(log: Path) -> int:
    return int(next(line for line in log.read_text().splitlines() if line.isdigit()))


@pytest.mark.parametrize(
    ("wait", "grace", "code"), [(PATIENT, 15.0, 5), (STUBBORN, 2.0, -signal.SIGKILL)], ids=["patient", "stubborn"]
)
@pytest.mark.usefixtures("interruptible")
def test_a_stage_that_overruns_is_ended_with_all_that_it_has_started(wait, grace, code, tmp_path, monkeypatch):
    monkeypatch.setattr(round_, "GRACE", grace)
    begun = time.perf_counter()
    chosen = [python("hangs", HANGS.format(wait=wait), limit=1.0), python("next", "print('next')")]
    assert round_.run(chosen, tmp_path) == round_.FAILED
    assert time.perf_counter() - begun < 30
    hung, following = json.loads((tmp_path / round_.JSON).read_text())["stages"]
    assert (hung["ended"], hung["code"], following["code"]) == ("overran", code, 0)
    log = (tmp_path / round_.LOG).read_text()
    assert ("wrote it down" in log) == (code == 5)
    assert not runs(child_in(tmp_path / round_.LOG))


def test_whoever_ends_the_round_ends_the_stage(tmp_path):
    code = f"""
import signal
from pathlib import Path
from gpuopt.bench.gpu import round as round_
from gpuopt.bench.gpu.stages import Stage
signal.signal(signal.SIGTERM, signal.default_int_handler)
stage = Stage("hangs", 60.0, ("-c", {HANGS.format(wait=PATIENT)!r}))
raise SystemExit(round_.run([stage, stage], Path({str(tmp_path)!r})))
"""
    process = subprocess.Popen([sys.executable, "-P", "-c", code], stdout=subprocess.PIPE, text=True)
    log = tmp_path / round_.LOG
    while not (log.exists() and any(line.isdigit() for line in log.read_text().splitlines())):
        time.sleep(0.05)
    process.terminate()
    out, _ = process.communicate(timeout=30)
    assert process.returncode == round_.INTERRUPTED
    assert "wrote it down" in out
    (only,) = json.loads((tmp_path / round_.JSON).read_text())["stages"]
    assert only["ended"] == "interrupted"
    assert not runs(child_in(log))


JUNIT = """<testsuites><testsuite tests="5" failures="1" errors="0" skipped="1">
<testcase name="a"/><testcase name="test_x[1]"><failure message="no"/></testcase>
</testsuite></testsuites>"""


def test_the_last_line_says_what_came_of_it(tmp_path):
    decisive = DECISIVE[0]
    shown = invented.workload("cuda", "llama-3.2-1b", numel=10**9, key=decisive.key)
    shown["rows"][1].update(device=None, step=None, copy_share=None, why="it was wrong")
    bench = invented.empty(
        workloads=[shown],
        machine=invented.machine(gpus=1),
        copy=invented.copies("cuda"),
        skipped=[{"what": DECISIVE[1].key, "why": "the budget was spent"}],
        faults=[f"{DECISIVE[2].key}: RuntimeError: no"],
    )
    assert bench.keys() == Results("quick", [], {**invented.machine()}, {}).as_dict().keys()
    (tmp_path / "bench.json").write_text(json.dumps(bench))
    probes = [{"name": "triton: Adam", "why": None}, {"name": "cupy: Adam", "why": "no"}]
    (tmp_path / smoke.JSON).write_text(json.dumps({"probes": probes}))
    lines = [{"driver": "triton", "rule": "adam", "comparisons": 40, "fault": ["bits differ"]}]
    (tmp_path / "verify.json").write_text(json.dumps({"lines": lines}))
    (tmp_path / "tests.xml").write_text(JUNIT)
    rows = [{"name": "sooner", "why": "it spilled"}, {"name": "later", "why": None}]
    found = {"groups": [{"subject": "Adam", "rows": rows}], "missing": ["cupy, Adam: the budget was spent"]}
    (tmp_path / "sweeps.json").write_text(json.dumps(found))
    done = [{"stage": name, "code": 0, "ended": "overran"} for name in stages.stages(tmp_path)]
    line = summary(tmp_path, done)
    assert "\n" not in line
    for part in (
        "NVIDIA Invented 90, copy 3,012 GB/s",
        f"{decisive.key}: triton 97% 1.17x torch fused 2.94x torch foreach, cupy it was wrong",
        f"{DECISIVE[1].key}: the budget was spent",
        f"{DECISIVE[2].key}: RuntimeError: no",
        f"{DECISIVE[3].key}: not there",
        "smoke: 1 of 2 pass (not cupy: Adam)",
        "verify: 40 comparisons, 1 faults (not triton adam)",
        "tests: 3 pass, 1 fail, 1 skipped (not test_x[1])",
        "sweeps: 1 groups, 1 missing (not Adam: sooner)",
        "smoke overran with 0, bench overran with 0",
    ):
        assert part in line


def test_a_row_without_a_time_on_the_gpu_is_compared_by_the_hosts_clock(tmp_path):
    shown = invented.workload("cuda", "llama-3.2-1b", numel=10**9, key=DECISIVE[0].key)
    rows = {row["contender"]: row for row in shown["rows"]}
    for name, seconds in (("gpuopt triton", 0.5), ("torch fused", 1.0), ("torch foreach", 2.0)):
        rows[name]["step"] = invented.spread(seconds)
    rows["torch foreach"]["device"] = None
    (tmp_path / "bench.json").write_text(json.dumps(invented.empty(workloads=[shown])))
    assert f"{DECISIVE[0].key}: triton 97% 1.17x torch fused 4.00x (host) torch foreach" in summary(tmp_path, [])


def test_files_of_an_earlier_round_are_gone_when_a_stage_begins(tmp_path):
    for name in ("its.json", "other.json", "half.json.part"):
        (tmp_path / name).write_text("old")
    assert round_.run([Stage("dies", 60.0, ("-c", "raise SystemExit(3)"), ("its.json",))], tmp_path) == round_.FAILED
    assert {each.name for each in tmp_path.iterdir()} == {"other.json", round_.LOG, round_.JSON}


def test_the_last_line_is_there_without_any_files(tmp_path):
    (tmp_path / "bench.json").write_text('{"machine": ')
    done = [{"stage": name, "code": 1, "ended": "done"} for name in stages.stages(tmp_path)]
    line = summary(tmp_path, done)
    assert line.startswith("no GPU known; smoke: 0 of 0 pass; verify: 0 comparisons")
    assert "tests: no result" in line


def test_the_tests_for_gpus_are_collected_without_pytorchs_catalogue(tmp_path):
    (tmp_path / "expecttest.py").write_text("raise ModuleNotFoundError('it is not there', name='expecttest')")
    command = [
        sys.executable,
        "-P",
        "-m",
        "pytest",
        "tests/gpu",
        "--collect-only",
        "-q",
        "-rs",
        "-p",
        "no:cacheprovider",
    ]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path), "TRITON_INTERPRET": "0"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "test_gpu_optim.py" in done.stdout
    assert "test_gpu_catalogue.py::" not in done.stdout
    assert "PyTorch's catalogue of optimizers imports expecttest" in done.stdout
