"""What commands print reads well, whatever the terminal, and can be copied from it and searched.

1. Keys of workloads and names of contenders, and whatever else one types back, are whole and on one line, also in a
   terminal that is narrower than they are. Titles are cut nowhere.
2. Through a pipe each entry and each fact is one whole line, without colours and without spaces at its end, whatever
   ``COLUMNS`` says.
3. On a terminal of 80 columns or more no line is longer than it, and values are wrapped between words, in their column.
4. Help names every option and every word of what it says whole.
5. What is refused is refused in one sentence that names the argument, what it must be and what it was. A pattern that
   matches nothing is told what is close to it and where the list is. A package that is missing is told as PyPI has it.
6. Tables of a run hold to the first of these too, with as many contenders as torch and gpuopt have.
"""

from __future__ import annotations

import fcntl
import io
import json
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from functools import cache
from itertools import pairwise

import pytest
import typer
from rich.console import Console
from rich.table import Table
from typer.testing import CliRunner

from gpuopt import footprint, machine, output
from gpuopt.bench import tables
from gpuopt.bench.compare import Change
from gpuopt.bench.contenders import contenders, libraries
from gpuopt.bench.results import Contest, Results, Row
from gpuopt.bench.timing import Timing
from gpuopt.bench.workloads import GROUPS, workloads
from gpuopt.cli import app

PIPE = None
WIDTHS = [80, 200, PIPE]
DEVICES = ("cpu", "cuda")

LISTS = {device: ("bench", "--list", "--device", device) for device in DEVICES}
HELPS = [(*words, "--help") for words in ((), ("info",), ("verify",), ("bench",), ("bench", "train"), ("sweeps",))]
LISTED = "something that gpuopt bench --list --device cpu shows"
BENCH, TRAIN = ("bench", "--device", "cpu"), ("bench", "train", "--device", "cpu")
REFUSED = {
    (*BENCH, "--only", "nonsense"): f"--only must match {LISTED}, but is 'nonsense'.",
    (*BENCH, "--only", "adma/*"): f"--only must match {LISTED}, but is 'adma/*'; close to it: 'adam/*', 'adamw/*', "
    "'adagrad/*'.",
    (*BENCH, "--only", "torch fusd"): f"--only must match {LISTED}, but is 'torch fusd'; close to it: 'torch fused', "
    "'torch foreach', 'torch for-loop'.",
    ("bench", "--device", "tpu"): "--device must be cpu or cuda, but is 'tpu'.",
    (*BENCH, "--compare", "missing.json"): "--compare must be a JSON of gpuopt bench, but missing.json cannot be read: "
    "No such file or directory.",
    (*BENCH, "--out", "/dev/null/x"): "--out must be a folder that can be written, but /dev/null/x is not: Not a "
    "directory.",
    (*TRAIN, "--only", "nonsense"): "--only must be gpt or digits, but is 'nonsense'.",
    ("bench", "train", "--device", "tpu"): "--device must be cpu or cuda, but is 'tpu'.",
    (*TRAIN, "--out", "/dev/null/x"): "--out must be a folder that can be written, but /dev/null/x is not: Not a "
    "directory.",
    ("verify", "--device", "tpu"): "--device must be cpu or cuda, but is 'tpu'.",
    ("verify", "--driver", "cuda"): "--driver must be one of numba, cupy, triton, but is 'cuda'.",
    ("verify", "--driver", "numpy"): "--driver must be one of numba, cupy, triton, but numpy is the oracle itself.",
    ("verify", "--json", "/dev/null/x/y"): "--json must be in a folder that can be written, but /dev/null/x is not: "
    "Not a directory.",
}

SEPARATOR, EXIT = "-- next --", "-- exit --"

PROGRAM = f"""
import json, runpy, sys
from gpuopt.cli import app

for words in json.loads(sys.argv[1]):
    print({SEPARATOR!r}, flush=True)
    try:
        if words[0] == "sweeps":
            sys.argv[1:] = words[1:]
            runpy.run_module("gpuopt.bench.sweeps", run_name="__main__")
        app(words, prog_name="gpuopt")
    except SystemExit as end:
        print({EXIT!r}, end.code, flush=True)
"""


def on_a_terminal(command: list[str], width: int) -> str:
    """What a command prints on a terminal of so many columns, colours left out."""
    ours, its = pty.openpty()
    fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", 50, width, 0, 0))
    environment = {key: value for key, value in os.environ.items() if key not in ("COLUMNS", "NO_COLOR")}
    with subprocess.Popen(command, stdin=its, stdout=its, stderr=its, env=environment | {"TERM": "xterm"}):
        os.close(its)
        said = b""
        try:
            while part := os.read(ours, 1 << 16):
                said += part
        except OSError:  # how the end is told of
            pass
    os.close(ours)
    return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", said.decode()).replace("\r\n", "\n")


def through_a_pipe(command: list[str]) -> str:
    environment = {key: value for key, value in os.environ.items() if key != "FORCE_COLOR"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    return subprocess.run(command, env=environment | {"COLUMNS": "80"}, text=True, check=True, **pipes).stdout


@cache
def said(width: int | None) -> dict[tuple[str, ...], tuple[int, list[str]]]:
    """The exit code and the lines of each command, all run by one process."""
    commands = [*LISTS.values()]
    if width is PIPE or width >= 80:
        commands += [("info",), *HELPS, *REFUSED]
    command = [sys.executable, "-P", "-c", PROGRAM, json.dumps(commands)]
    text = through_a_pipe(command) if width is PIPE else on_a_terminal(command, width)
    answers = {}
    for words, answer in zip(commands, text.split(f"{SEPARATOR}\n")[1:], strict=True):
        lines, _, code = answer.rpartition(EXIT)
        answers[words] = int(code), lines.splitlines()
    return answers


def first_cells(lines: list[str]) -> list[str]:
    return [re.split(r" {2,}", line.strip())[0] for line in lines]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("width", [40, *WIDTHS])
def test_keys_and_names_are_whole_on_a_line(width, device):
    code, lines = said(width)[LISTS[device]]
    assert code == 0
    known = [each.key for each in workloads(device)] + [each.name for each in contenders(device)]
    assert [cell for cell in first_cells(lines) if cell in set(known)] == known
    assert not [line for line in lines if "…" in line]


@pytest.mark.parametrize("device", DEVICES)
def test_an_entry_is_one_line_in_a_pipe(device):
    _, lines = said(PIPE)[LISTS[device]]
    assert all(line == line.rstrip() for line in lines)
    for workload in workloads(device):
        (line,) = (line for line in lines if line.split()[:1] == [workload.key])
        cells = [workload.key, workload.title, f"{len(workload.shapes.shapes):,}", f"{workload.shapes.numel:,}"]
        assert re.split(r" {2,}", line.strip()) == cells
    for contender in contenders(device):
        (line,) = (line for line in lines if first_cells([line]) == [contender.name])
        assert (contender.absent() or "yes") in line
        assert (contender.note or "") in line


@pytest.mark.parametrize("width", [80, 200])
def test_no_line_is_longer_than_the_terminal(width):
    for words, (_, lines) in said(width).items():
        longest = max(lines, key=len)
        assert len(longest) <= width, (words, longest)


def test_a_pipe_has_no_colours():
    assert not [words for words, (_, lines) in said(PIPE).items() if "\x1b" in "".join(lines)]


@pytest.mark.parametrize("forced", ["", "1"])
def test_colours_that_are_forced_into_a_pipe_do_not_make_it_narrow(forced, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", forced)
    monkeypatch.setenv("COLUMNS", "80")
    console = output.terminal()
    assert (console.is_terminal, console.width) == (bool(forced), output.ENDLESS)


@pytest.mark.parametrize("width", WIDTHS)
def test_facts_are_wrapped_in_their_column(width):
    code, lines = said(width)[("info",)]
    assert code == 0
    titles = [line.strip() for line in lines]
    cpu = lines[titles.index("CPU") + 1 : next(at for at, title in enumerate(titles) if title.startswith("GPU"))]
    column = len("  others' load  ")
    indents = {len(line) - len(line.lstrip()) for line in cpu}
    assert indents == ({2, column} if width == 80 else {2})
    if width is PIPE:
        assert not [line for line in lines if line.startswith("   ") or line != line.rstrip()]


@pytest.mark.parametrize("width", WIDTHS)
def test_options_of_adam_are_whole_on_a_line(width):
    _, lines = said(width)[("info",)]
    rows = [re.split(r" {2,}", line.strip()) for line in lines]
    for choice in footprint.choices():
        cells = [choice.dtype, f"{choice.stored:g}", f"{choice.moved:g}", choice.options]
        assert [cell for cell in cells if cell] in rows


def of(words: tuple[str, ...]):
    """The command that words are of."""
    if words[0] == "sweeps":
        from gpuopt.bench.sweeps.command import sweeps

        alone = typer.Typer(add_completion=False)
        alone.command()(sweeps)
        return typer.main.get_command(alone)
    command = typer.main.get_command(app)
    for word in words[:-1]:
        command = command.commands[word]
    return command


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("words", HELPS, ids=" ".join)
def test_help_has_every_option_and_word_whole(words, width):
    code, lines = said(width)[words]
    assert code == 0
    command = of(words)
    options = [name for parameter in command.params for name in parameter.opts if name.startswith("--")]
    assert {line.split()[0] for line in lines if line.startswith("  --")} == {*options, "--help"}
    whole = set(" ".join(lines).split())
    texts = [command.help, *(parameter.help for parameter in command.params)]
    for name, below in getattr(command, "commands", {}).items():
        assert [line for line in lines if line.split() == [name, *below.short_help.split()]]
    assert {word for text in texts for word in text.split()} <= whole


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("words", REFUSED, ids=" ".join)
def test_what_is_refused_is_told_in_one_sentence(words, width):
    code, lines = said(width)[words]
    assert code == output.UNUSABLE
    assert " ".join(" ".join(lines).split()) == REFUSED[words]
    assert width is not PIPE or len(lines) == 1


@pytest.mark.parametrize(
    ("pattern", "close"),
    [("adam", "adam/*"), ("numba", "gpuopt numba"), ("rmsprop/1000x64", "rmsprop/1000x64/fp32"), ("sgd", "sgd/*")],
)
def test_a_pattern_that_matches_nothing_is_told_what_is_close(pattern, close):
    answer = CliRunner().invoke(app, [*BENCH, "--only", pattern])
    assert f"close to it: {close!r}" in answer.output


def test_what_the_report_needs_is_asked_for_before_any_work(monkeypatch, tmp_path):
    monkeypatch.setattr(output, "find_spec", lambda name: None)
    answer = CliRunner().invoke(app, [*BENCH, "--out", str(tmp_path)])
    assert answer.exit_code == output.UNUSABLE
    assert answer.output == "jinja2 is not installed (pip install 'gpuopt[bench]').\n"
    assert CliRunner().invoke(app, LISTS["cpu"]).exit_code == 0


def test_a_library_that_is_missing_is_called_as_pypi_calls_it(monkeypatch):
    monkeypatch.setattr(libraries, "find_spec", lambda name: None)
    told = {each.name: each.absent() for each in contenders("cpu") if each.guest}
    assert told["optimi"] == told["optimi foreach"] == "torch-optimi is not installed"
    assert told["DeepSpeed"] == "deepspeed is not installed"


# the tables of a run


def shown(table: Table, width: int, terminal: bool = True) -> list[str]:
    console = Console(file=io.StringIO(), width=width, force_terminal=terminal, color_system=None)
    output.show(table, console)
    return console.file.getvalue().splitlines()


@pytest.mark.parametrize("width", [80, 200, output.ENDLESS])
@pytest.mark.parametrize("group", GROUPS)
def test_a_run_has_titles_and_times_whole(group, width):
    names = [each.name for each in contenders("cpu") if not each.guest]
    rows = [Row(name, "close", timing=Timing([0.0123] * 10)) for name in names]
    contests = [Contest(each, "cpu", rows) for each in workloads("cpu") if each.group == group]
    lines = shown(tables.group_table("A group", contests, Results("full", [], machine.describe(), {})), width)
    assert max(map(len, lines)) <= width
    words = " ".join(lines).split()
    for contest in contests:
        assert set(contest.workload.title.split()) <= set(words)
    assert words.count("12.3") == len(contests) * len(names)
    assert not [line for line in lines if "…" in line]


@pytest.mark.parametrize("width", [80, 200, output.ENDLESS])
def test_a_comparison_has_keys_and_names_whole(width):
    why = "it needs 9.0 GB at least, and 8.0 GB can be had"
    keys, names = ([each.key for each in workloads("cpu")], ["gpuopt numba", "torch for-loop"])
    found = [Change(key, names[0], 1.0, None, "lost", why) for key in keys]
    found += [Change(key, names[1], 0.1, 0.2, "slower") for key in keys]
    lines = shown(tables.changes_table(found, width), width)
    assert max(map(len, lines)) <= width
    cells = first_cells(lines)
    if width == 80:
        pairs = list(pairwise(cells))
        assert all((key, name) in pairs for key in keys for name in names)
    else:
        assert all(any(line.split()[:3] == [key, *name.split()] for line in lines) for key in keys for name in names)
        assert sum(f"lost: {why}" in line for line in lines) == len(keys)


def test_what_does_not_fit_a_terminal_is_longer_and_not_cut():
    table = Table("a heading", "another")
    table.add_column("third", no_wrap=True)
    table.add_row("word " * 30, "a-long-word-of-30-characters---", "what must not wrap")
    (row,) = (line for line in shown(table, 20) if "what must not wrap" in line)
    assert "a-long-word-of-30-characters---" in row
