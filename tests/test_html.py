"""The HTML report shows what its JSON says, all of it, and needs nothing else.

- It is one well-formed page without a script and without an address outside itself; what it is given is escaped.
- Every workload, contender, reason, goal, fault and fact about the machine is on it. Faults come before all else.
- Only contenders with right results have bars and curves; those that are wrong or broken are named as such beside them.
- Bars are as long as their numbers, on the scale of the copy's line; curves are where their times and sizes are.
- Numbers that are compared share their unit, which is in the heading, and zero is not the same as unknown.
- Figures from compiled code stand under a heading that says that they were not measured.
- Losses of trainings are drawn from their own JSON, those of contenders that were trained rightly alone, and beside
  them stands which machine they were trained on and when, which need not be that of the benchmark.
- Runs that are empty, interrupted, without a GPU, without a copy or with skipped rows alone make a page too.

All results here are invented (``kit/invented.py``).
"""

from __future__ import annotations

import copy
import json
import math
import re
from collections import Counter
from functools import cache
from html import unescape
from html.parser import HTMLParser
from itertools import pairwise
from typing import Any

import pytest
from kit import invented

from gpuopt.bench.html import render
from gpuopt.bench.html.bars import ROOM, extra_memory, launches, speed
from gpuopt.bench.html.compiled import summaries
from gpuopt.bench.html.curves import curves, series
from gpuopt.bench.html.looks import looks
from gpuopt.bench.html.numbers import UNKNOWN, duration, elements, memory, times
from gpuopt.bench.html.page import page
from gpuopt.bench.html.tables import workload_table

VOID = {"meta", "img", "br", "hr", "link", "input"}
NASTY = "<script>alert('\"&')</script>{{ 7 * 7 }}"


class Parsed(HTMLParser):
    """Elements in order, the text, and whether every element that was opened is closed in turn."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert not self._open, f"never closed: {self._open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        assert len(dict(attrs)) == len(attrs), f"{tag} has an attribute twice"
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open, f"{tag} is closed but was not opened"
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self._open:
            self.text += data


@cache
def full_text() -> str:
    return render(invented.full())


def section(text: str, name: str) -> str:
    """The part of the page from the section with this id to the next of its level."""
    return text.split(f'<section id="{name}">')[1].split('<section id="', maxsplit=1)[0]


def look_of(workload: dict[str, Any]) -> Any:
    return looks(row["contender"] for row in workload["rows"])


RUNS = {
    "full": invented.full,
    "empty": invented.empty,
    "interrupted": lambda: {**invented.full(), "complete": False, "seconds": None, "goals": []},
    "without a GPU": lambda: invented.empty(
        workloads=[invented.workload("cpu", "many-10000", tensors=10_000)], copy=invented.copies("cpu")
    ),
    "without a copy": lambda: invented.empty(
        workloads=[invented.workload("cpu", f"one-{power}", numel=2**power) for power in (10, 11, 12)]
    ),
    "skipped rows alone": lambda: invented.empty(
        workloads=[
            invented.workload(
                "cuda", f"one-{power}", numel=2**power, rows=[invented.row("Apex", "skipped", "not installed")]
            )
            for power in (10, 11, 12)
        ]
    ),
    "nothing known": lambda: invented.empty(
        seconds=None,
        machine=invented.machine(
            gpus=1,
            **dict.fromkeys(("date", "commit", "image", "system", "python", "cpu", "memory", "others_load")),
        ),
        workloads=[invented.workload("cpu", "one-10", rows=[invented.row("gpuopt numba")])],
        copy={"cpu": None},
    ),
}


@pytest.mark.parametrize("run", RUNS.values(), ids=RUNS)
def test_every_run_is_one_well_formed_page_that_needs_nothing_else(run: Any) -> None:
    results = run()
    before = copy.deepcopy(results)
    text = render(results)
    assert results == before
    parsed = Parsed(text)
    assert text.startswith("<!DOCTYPE html>")
    names = Counter(tag for tag, _ in parsed.elements)
    assert names["h1"] == names["main"] == names["style"] == 1
    assert not names["script"]
    assert not names["link"]
    assert not [name for _, attrs in parsed.elements for name in attrs if name.startswith("on")]
    addresses = [value for _, attrs in parsed.elements for name, value in attrs.items() if name in ("href", "src")]
    ids = [attrs["id"] for _, attrs in parsed.elements if "id" in attrs]
    assert all(value and value.startswith("#") and value[1:] in ids for value in addresses)
    assert len(ids) == len(set(ids))
    assert not re.search(r"https?:|@import|url\(", text)
    assert "None" not in parsed.text
    assert "nan" not in parsed.text.split()


def test_everything_in_the_json_is_on_the_page() -> None:
    results = invented.full()
    shown = Parsed(full_text()).text
    said = [workload["title"] for workload in results["workloads"]]
    said += [row[key] for workload in results["workloads"] for row in workload["rows"] for key in ("contender", "why")]
    said += [entry[key] for entry in results["skipped"] for key in ("what", "why")]
    said += [*results["faults"], results["code"]["note"], *(one["variant"] for one in results["code"]["kernels"])]
    said += [results["machine"][key] for key in ("date", "commit", "cpu", "system", "python")]
    said += [*results["machine"]["versions"].values(), *results["drivers"].values()]
    said += [results["machine"]["gpus"][0][key] for key in ("name", "driver", "cuda", "compute_capability")]
    said += [
        "1,755 of 1,980 MHz",
        "2,619 of 2,619 MHz",
        "3,350 GB/s",
        "700 W",
        "80.0 GiB",
        "gpuopt bench --out 'out/a folder'",
        "with clip, ema",
    ]
    assert [text for text in said if text is not None and text not in shown] == []


def test_every_row_has_its_figures_in_a_table() -> None:
    workload = invented.workload("cuda", "gpt2-124m", tensors=148, numel=10**6)
    workload["rows"] = [
        invented.row(
            "gpuopt triton",
            step=invented.spread(2e-3, n=31),
            device={"n": 29, "median": 1.5e-3, "p10": 1.25e-3, "p90": 1.75e-3},
            discarded=4,
            not_queued=2,
            gpu={"sm_mhz": invented.spread(1980), "memory_mhz": invented.spread(2619.0), "power_w": None},
            launches=1,
            gb_per_s=18.7,
            copy_share=0.951,
            extra_memory=3 * 2**20,
            compile=0.25,
        ),
        invented.row("Apex", "skipped", "not installed"),
    ]
    table = workload_table(workload)
    assert dict(zip(table.headings, table.rows[0].cells, strict=True)) == {
        "device, ms": "1.50",
        "p10 to p90, ms": "1.94 to 2.16",  # that of the step, which comes after that of the device
        "n": "31",
        "step, ms": "2.00",
        "discarded": "4",
        "not queued whole": "2",
        "SM, MHz": "1,980",
        "memory, MHz": "2,619",
        "GB/s": "18.7",
        "% of copy": "95.1",
        "launches": "1",
        "extra memory, MiB": "3.00",
        "first step, ms": "250",
    }
    assert "1.25 to 1.75" in table.rows[0].cells
    assert (table.rows[1].cells, table.rows[1].why) == ([], "not installed")
    assert "148 tensors, 1,000,000 elements; all fp32; 28,000,000 bytes" in table.facts


def test_what_no_row_knows_has_no_column() -> None:
    workload = invented.workload("cpu", "one-20")
    headings = workload_table(workload).headings
    assert [heading.partition(",")[0] for heading in headings][:3] == ["step", "p10 to p90", "n"]
    assert "discarded" not in headings
    assert headings[-1] == "first step, ms"
    for row in workload["rows"]:
        row.update(extra_memory=None, compile=None)
    assert workload_table(workload).headings[-1] == "launches"


@pytest.mark.parametrize("where", ["title", "contender", "why", "fault", "skipped", "cpu", "note", "variant"])
def test_what_it_is_given_is_escaped(where: str) -> None:
    results = invented.empty(
        workloads=[invented.workload("cpu", "one-20")], copy=invented.copies("cpu"), code=invented.code()
    )
    row = results["workloads"][0]["rows"][0]
    match where:
        case "title":
            results["workloads"][0]["title"] = NASTY
        case "contender":
            row["contender"] = NASTY
        case "why":
            row.update(status="wrong", why=NASTY)
        case "fault":
            results["faults"] = [NASTY]
        case "skipped":
            results["skipped"] = [{"what": NASTY, "why": NASTY}]
        case "cpu":
            results["machine"]["cpu"] = NASTY
        case "note":
            results["code"]["note"] = NASTY
        case "variant":
            results["code"]["kernels"][0]["variant"] = NASTY
    text = render(results)
    assert "script" not in {tag for tag, _ in Parsed(text).elements}
    assert "alert('" not in text
    assert NASTY in unescape(text)


def test_faults_come_first_and_an_interrupted_run_says_so() -> None:
    text = render(invented.empty(complete=False, faults=["the second"]))
    faults = text.index('class="alert"')
    assert faults < text.index("stopped before its end") < text.index("the second") < text.index("<h2>Machine")
    assert 'class="alert"' not in render(invented.empty())


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"scale": "quick"}, "This was a quick run"),
        ({"machine": invented.machine(others_load=0.2)}, "Other processes took 20% of all cores"),
        ({"workloads": [{**invented.workload("cuda", "a"), "rows": [invented.row("Apex", discarded=3)]}]}, "3 samples"),
    ],
)
def test_what_spoils_the_times_is_said_above_them(given: dict[str, Any], said: str) -> None:
    assert said in render(invented.empty(**given)).split("<h2>Machine")[0]
    assert 'class="notice"' not in render(invented.empty())


def test_throttling_is_said_above_the_times() -> None:
    machine = invented.machine(gpus=1)
    machine["gpus"][0]["throttled"] = ["power cap"]
    assert "was throttled meanwhile (power cap)" in render(invented.empty(machine=machine)).split("<h2>Machine")[0]


# charts
def test_bars_are_as_long_as_their_numbers_best_first_with_the_copy_s_line_on_the_same_scale() -> None:
    workload = invented.workload("cpu", "one-20", rows=[])
    for name, rate in (("torch fused", 10.0), ("gpuopt numba", 30.0), ("torch foreach", 5.0)):
        workload["rows"].append(invented.row(name, step=invented.spread(1 / rate), gb_per_s=rate, copy_share=rate / 20))
    chart = speed(workload, 20.0, look_of(workload))
    assert [bar.contender for bar in chart.bars] == ["gpuopt numba", "torch fused", "torch foreach"]
    assert [bar.position for bar in chart.bars] == pytest.approx([ROOM, ROOM / 3, ROOM / 6])
    assert chart.copy == pytest.approx(ROOM * 2 / 3)
    assert [bar.share for bar in chart.bars] == ["150.0", "50.0", "25.0"]
    assert chart.comparison is not None
    assert chart.comparison.startswith("gpuopt numba is 3.00 times as fast as torch fused")


def test_wrong_and_broken_contenders_are_marked_and_not_ranked() -> None:
    workload = invented.workload("cpu", "one-20")
    fastest = max(workload["rows"], key=lambda row: row["gb_per_s"])
    for status, sign in (("wrong", "✗ wrong"), ("broken", "! broken")):
        fastest.update(status=status, why="its bits differ")
        chart = speed(workload, 20.0, look_of(workload))
        assert fastest["contender"] not in [bar.contender for bar in chart.bars]
        assert fastest["contender"] not in (chart.comparison or "")
        assert chart.failed == [fastest]
        text = render(invented.empty(workloads=[workload]))
        assert f"{sign}, not ranked" in section(text, "cpu")
        assert re.search(rf'class="status">{sign}</td><td class="why" colspan="\d+">its bits differ', text)


def test_contenders_that_compute_something_else_are_marked_and_not_compared_with() -> None:
    workload = invented.workload("cpu", "one-20")
    fastest = max(workload["rows"][2:], key=lambda row: row["gb_per_s"])
    fastest["note"] = "state in 8 bits"
    chart = speed(workload, 20.0, look_of(workload))
    assert fastest["contender"] in [bar.contender for bar in chart.bars]
    assert fastest["contender"] not in (chart.comparison or "")
    text = render(invented.empty(workloads=[workload]))
    assert f"{fastest['contender']} †</th>" in section(text, "cpu")
    assert f"† {fastest['contender']}: state in 8 bits" in section(text, "cpu")
    assert f"{fastest['contender']}<br><small>state in 8 bits</small>" in section(text, "rows")


def test_skipped_rows_with_one_reason_are_one_line() -> None:
    rows = [invented.row("Apex", "skipped", "not installed"), invented.row("late", "exact", "the run ended before")]
    results = invented.empty(
        workloads=[invented.workload("cpu", name, rows=rows) for name in ("a", "b")],
        drivers={"numpy": None, "triton": "no GPU"},
        skipped=[{"what": "Adam, 8B", "why": "too large"}],
    )
    lines = re.findall("<li><b>(.*)</b>: (.*)</li>", section(render(results), "skipped"))
    expected = [("driver triton", "no GPU"), ("Adam, 8B", "too large"), ("Apex in 2 workloads", "not installed")]
    expected.append(("late in 2 workloads", "the run ended before"))
    assert lines == expected


def test_launches_have_a_logarithmic_axis_from_one() -> None:
    workload = invented.workload("cuda", "many", rows=[])
    workload["rows"] = [invented.row(f"c{count}", launches=count) for count in (1000, 1, 10, 100)]
    places = [bar.position for bar in launches(workload, look_of(workload)).bars]
    steps = [after - before for before, after in pairwise(places)]
    assert steps == pytest.approx([steps[0]] * 3)
    assert 0 < places[0] < places[-1] == pytest.approx(ROOM)


def test_no_extra_memory_is_a_zero_and_an_unknown_one_no_bar() -> None:
    workload = invented.workload("cpu", "many", rows=[])
    for name, extra in (("a", 2**21), ("b", 0), ("c", None)):
        workload["rows"].append(invented.row(name, extra_memory=extra))
    chart = extra_memory(workload, look_of(workload))
    assert [(bar.contender, bar.value, bar.position) for bar in chart.bars] == [("b", "0", 0.0), ("a", "2.00", ROOM)]
    assert chart.unit == "MiB"


def test_curves_are_where_times_and_sizes_are() -> None:
    group = [invented.workload("cpu", f"one-{power}", numel=2**power, rows=[]) for power in (10, 12, 20)]
    for workload, seconds in zip(group, (1e-6, 1e-5, 1e-3), strict=True):
        workload["rows"] = [
            invented.row("gpuopt numba", step=invented.spread(seconds)),
            invented.row("torch fused", "wrong", "no", step=invented.spread(1e-9)),
        ]
    chart = curves(group, "step", 28.0, look_of(group[0]))
    assert chart is not None
    (curve,) = chart.curves
    assert [point.x for point in curve.points] == pytest.approx([0, 20, 100])
    first, second, third = (point.y for point in curve.points)
    assert third < second < first, "a longer time is further up"
    assert (first - third) == pytest.approx(3 * (first - second))
    assert all(p10 > point.y > p90 for point in curve.points if point.spread for p10, p90 in [point.spread])
    assert all(point.spread for point in curve.points)
    assert [tick.text for tick in chart.up] == ["1 µs", "10 µs", "100 µs", "1 ms"]
    assert [tick.at for tick in chart.up] == pytest.approx([first, second, (second + third) / 2, third])
    assert [tick.text for tick in chart.across] == ["2¹⁰", "2¹²", "2²⁰"]
    seconds = group[2]["bytes"] / 28e9
    assert chart.reference[2] == (
        pytest.approx(100),
        pytest.approx(third + (first - third) / 3 * math.log10(1e-3 / seconds)),
    )
    assert curves(group, "device", 28.0, look_of(group[0])) is None


def test_a_series_differs_in_its_size_alone_and_leaves_only_its_largest_as_bars() -> None:
    workloads = [invented.workload("cpu", f"one-{power}", numel=2**power) for power in (12, 10, 11, 13)]
    workloads += [invented.workload("cpu", f"rms-{power}", "RMSprop", numel=2**power) for power in (10, 11)]
    workloads += [invented.workload("cpu", "gpt2", tensors=148)]
    workloads += [invented.workload("cpu", "rules", numel=2**14)]
    workloads[3]["rows"] = [invented.row("gpuopt numba", "skipped", "too little memory")]
    assert [[one["shapes"] for one in group] for group in series(workloads)] == [
        ["one-10", "one-11", "one-12", "one-13"]
    ]
    (device,) = page(invented.empty(workloads=workloads)).devices
    titles = ["Adam, one-12", "RMSprop, rms-10", "RMSprop, rms-11", "Adam, gpt2", "Adam, rules"]
    assert [chart.title for _, charts in device.speed for chart in charts] == titles
    assert [group for group, _ in device.speed] == ["one", "rms", "gpt2", "rules"]
    assert [table.title for table in device.tables] == [workload["title"] for workload in workloads]


def test_contenders_are_told_apart_by_more_than_colour() -> None:
    names = ["gpuopt numba", "gpuopt numpy", "gpuopt triton", "gpuopt cupy", *(f"other {index}" for index in range(14))]
    found = looks(names)
    assert len({(look.colour, look.marker) for look in found.values()}) == len(names)
    ours, theirs = ({look.colour for look in found.values() if look.ours is mine} for mine in (True, False))
    assert ours == {"blue", "sky"}
    assert not ours & theirs


def test_charts_say_in_words_what_they_show() -> None:
    parsed = Parsed(full_text())
    figures = [attrs for tag, attrs in parsed.elements if tag == "svg" and "aria-hidden" not in attrs]
    plots = [attrs for attrs in figures if attrs.get("class") == "plot"]
    assert plots
    assert all(attrs["role"] == "img" and attrs["aria-label"] for attrs in plots)
    bars = [attrs for tag, attrs in parsed.elements if tag == "figure" and attrs.get("role") == "group"]
    assert bars
    assert all("gpuopt" in (attrs["aria-label"] or "") for attrs in bars)


# numbers
def test_numbers_that_are_compared_share_a_unit() -> None:
    scale = times([1.5e-3, 40e-3, None, 0.0])
    assert (scale.unit, [scale(value) for value in (1.5e-3, 40e-3, None, 0.0)]) == (
        "ms",
        ["1.50", "40.00", UNKNOWN, "0"],
    )
    assert times([]).unit == "ns"
    assert memory([512, 400 * 2**20])(512) == "0.500"
    assert memory([100, 12]).unit == "bytes"
    assert memory([100, 12])(12) == "12"
    assert [elements(numel) for numel in (1, 2**20, 10**6)] == ["1", "2²⁰", "1,000,000"]
    assert [duration(seconds) for seconds in (3.21, 61, 3 * 3600 + 61)] == ["3.2 s", "1 min 1 s", "3 h 1 min"]


# goals and code
def test_goals_are_met_or_not_or_not_known_and_caches_are_told_of() -> None:
    rows = re.findall(r'<td class="(\w+)">([^<]*)</td></tr>', section(full_text(), "goals"))
    assert rows == [
        ("good", "✓ met"),
        ("good", "✓ met, within noise"),
        ("bad", "✗ NOT MET"),
        ("good", "✓ met. Caches help torch for-loop: it takes 80% of the time that memory would for its bytes."),
        ("muted", "not known: torch fused: not installed"),
    ]
    assert "gpuopt numba on AdamW, gpt2-124m" in section(full_text(), "goals")


def test_figures_from_compiled_code_are_labelled_as_computed() -> None:
    code = section(full_text(), "code")
    assert "<h2>Computed from compiled code, not measured</h2>" in code
    assert code.count("<caption>Computed, not measured") == code.count("<table>") == 2
    assert "sm_90: Invented 90, 100 SMs, 3,000 GB/s, 1,500 MHz, memory answers after 678 ns" in code
    assert "cupy by cupy 14.2.0, nvrtc 13.2" in code
    assert "cupy array sm_80 sgd(odd)" in code
    before, details = code.split("<details>")
    assert "exp_avg" not in before
    assert all(kernel["variant"] in details for kernel in invented.code()["kernels"])
    assert '<section id="code">' not in render(invented.empty())


def test_the_summary_of_compiled_code_is_of_the_worst() -> None:
    kernels = [
        invented.kernel("adam(a)", vector_bytes=8, registers=40, stack=16, bytes_in_flight=20480),
        invented.kernel("adam(b)", occupancy=0.25, instructions=540.0, limit="issue"),
        invented.kernel("adam(c)", registers=None),
        invented.kernel("adam(a)", arch="sm_80", form="table"),
        invented.kernel("adamax(a)"),
    ]
    first, second, third = summaries(kernels)
    assert (first.rule, first.arch, first.variants) == ("adam", "sm_90", 3)
    assert (first.vector_bytes, first.registers, first.stack, first.occupancy) == (8, 64, 16, 0.25)
    assert (first.flight, first.issue, first.limits) == (0.5, 2.0, "memory 2, issue 1")
    assert (first.driver, second.driver) == ("triton step", "triton table")
    assert (second.arch, second.limits, third.rule) == ("sm_80", "memory", "adamax")


# refusals and what comes beside it
def test_another_schema_is_refused() -> None:
    with pytest.raises(ValueError, match="results must have schema 2, but it is 1"):
        render(invented.empty(schema=1))
    with pytest.raises(ValueError, match="training must have schema 1, but it is 7"):
        render(invented.empty(), invented.training(schema=7))


def test_it_is_made_of_json() -> None:
    assert render(json.loads(json.dumps(invented.full()))) == full_text()


# trainings
def test_trainings_show_every_contender_and_draw_those_that_were_trained() -> None:
    trained = invented.training()
    trained["tasks"][0]["rows"][1].update(reached=None, missed="its lowest loss was 2.1")
    trained["tasks"][1]["rows"].append(
        {**trained["tasks"][0]["rows"][3], "status": "diverged", "why": "a loss was nan"}
    )
    text = render(invented.empty(), trained)
    Parsed(text)
    part = section(text, "training")
    assert all(title in part for title in ("A small GPT on invented text", "A classifier of digits"))
    assert all(name in part for name in ("torch for-loop", "torch fused", "gpuopt numba", "it ran out of memory"))
    assert re.search(r"! broken</td><td class=\"why\"", part)
    assert re.search(r"✗ diverged</td><td class=\"why\"", part)
    assert "98.8" in part
    assert "820,736 elements in 52 tensors" in part
    assert "nats per byte" in part
    assert "torch fused did not reach it: its lowest loss was 2.1." in part
    assert text.index("gpt: gpuopt numpy is broken") < text.index("<h2>Machine")
    assert '<section id="training">' not in full_text()


def test_trainings_name_their_own_machine_and_date() -> None:
    other = invented.machine(gpus=2, cpu="Another 64 Processor", cores=64, date="2002-03-04T05:06:07+00:00")
    part = section(render(invented.empty(), invented.training(machine=other)), "training")
    assert (
        "2002-03-04T05:06:07+00:00, on Another 64 Processor, 64 cores, NVIDIA Invented 90, NVIDIA Invented 90" in part
    )
    part = section(
        render(invented.empty(), invented.training(machine=invented.machine(cpu=None, date=None))), "training"
    )
    assert "an unknown date, on an unknown processor, 2 cores, no NVIDIA GPU, commit" in part


def test_curves_of_trainings_are_where_losses_and_steps_are() -> None:
    trained = invented.training()
    first = page(invented.empty(), trained).training[0]
    by_step, by_seconds = first.plots
    assert [curve.contender for curve in by_step.curves] == ["gpuopt numba", "torch for-loop", "torch fused"]
    for curve in by_step.curves:
        assert [point.x for point in curve.points] == pytest.approx([100 * k / 60 for k in range(61)])
        losses = [2 + 3 * 0.95**k for k in range(61)]
        slope = (curve.points[-1].y - curve.points[0].y) / (losses[-1] - losses[0])
        assert slope < 0, "a greater loss is further up"
        assert [point.y for point in curve.points] == pytest.approx(
            [curve.points[0].y + slope * (loss - losses[0]) for loss in losses]
        )
        assert by_step.reference[0][1] == pytest.approx(curve.points[0].y + slope * (2.4 - losses[0]))
        assert 15 <= len(curve.marked) <= 24
    marked = [point.x for curve in by_step.curves for point in curve.marked]
    assert len(marked) == len(set(marked)), "equal curves must not hide each other's markers"
    assert [curve.points[-1].x for curve in by_seconds.curves] == pytest.approx([100 / 1.2, 100, 101 / 1.2])
    assert [tick.text for tick in by_seconds.across] == ["0", "20", "40", "60"]


@pytest.mark.parametrize("rows", [[], [invented.trained("torch fused", curve=[])]], ids=["no row", "no evaluation"])
def test_trainings_without_curves_make_a_page_too(rows: list[dict[str, Any]]) -> None:
    trained = invented.training(complete=False, faults=[])
    trained["tasks"][0]["rows"] = rows
    text = render(invented.empty(), trained)
    Parsed(text)
    assert "The training was stopped before its end." in text


def test_lengths_and_places_are_numbers_within_the_chart() -> None:
    places = [float(place) for place in re.findall(r'"(-?[\d.]+)%"', full_text())]
    assert places
    assert all(math.isfinite(place) and -1 <= place <= 101 for place in places)
