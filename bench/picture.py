"""The README's picture: what a step moves and takes, as a share of the fastest of ``torch.optim``'s ways."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from gpuopt.bench.contenders.torch import WAYS
from gpuopt.bench.ratio import times_as_fast

Run = Mapping[str, Any]
"""What ``bench/SCHEMA.md`` describes."""

OURS = {"cpu": "gpuopt numba", "cuda": "gpuopt triton"}
"""The contender that stands for gpuopt, by device."""

SHOWN = {
    "Adam": ("adam/200x100000/fp32", "adam/llama-3.2-1b/fp32"),
    "RMSprop": ("rmsprop/200x100000/fp32", "rmsprop/llama-3.2-1b/fp32"),
    "unscale, clip, AdamW, average": ("adamw/200x100000/fp32/clip-ema", "adamw/gpt2-124m/fp32/clip-ema"),
}
"""Keys of workloads on a CPU and on a GPU."""

LOOKS = {"light": ("#1f2328", "#0969da", "#59636e"), "dark": ("#f0f6fc", "#4493f8", "#9198a1")}
"""Colours of text, bars and lines."""


class Bar(NamedTuple):
    """One thing that is compared: what it is of, ours over theirs, and both in words."""

    of: str
    share: float
    words: str


def machines(runs: Mapping[str, Run]) -> dict[str, dict[str, Run]]:
    """Workloads by their keys, of each run of the benchmark, by what it was on; GPUs first."""
    found: dict[tuple[str, str], dict[str, Run]] = {}
    for run in runs.values():
        if run.get("workloads"):
            head, device = run["machine"], run["workloads"][0]["device"]
            name = head["gpus"][0]["name"] if device == "cuda" else f"{head['cpu']}, {head['cores']} cores"
            if (device, name) in found:
                raise ValueError(f"runs must be of machines with different names, but two are of {name}")
            found[device, name] = {workload["key"]: workload for workload in run["workloads"]}
    return {name: found[device, name] for device, name in sorted(found, reverse=True)}


def rivals(workload: Run) -> tuple[Run, Run]:
    """The row of gpuopt, and that of the fastest of ``torch.optim``'s own ways."""
    rows = {row["contender"]: row for row in workload["rows"] if row["step"]}
    ours = rows[OURS[workload["device"]]]
    theirs = [rows[name] for name in (f"torch {way}" for way in WAYS) if name in rows]
    return ours, min(theirs, key=lambda row: times_as_fast(ours, row).value)


def held(runs: Mapping[str, Run], keys: Iterable[str]) -> dict[str, Run]:
    """By machine, the workload that it has of ``keys``, if it has one."""
    found = machines(runs).items()
    return {name: workloads[key] for name, workloads in found for key in keys if key in workloads}


def moved(workloads: Iterable[Run]) -> tuple[float, float]:
    """Bytes for a parameter that the fastest rival moves, and that gpuopt does, as counted on the first CPU."""
    workload = next(each for each in workloads if each["device"] == "cpu")
    ours, theirs = (row["moved"] / workload["numel"] for row in rivals(workload))
    return theirs, ours


def bars(runs: Mapping[str, Run]) -> dict[str, list[Bar]]:
    """Of each kind of step, the bytes that are moved and the time on each machine."""
    shown: dict[str, list[Bar]] = {}
    for title, keys in SHOWN.items():
        workloads = held(runs, keys)
        theirs, ours = moved(workloads.values())
        shown[title] = [Bar("bytes moved", ours / theirs, f"{theirs:.0f} to {ours:.0f} bytes a parameter")]
        for machine, workload in workloads.items():
            row, rival = rivals(workload)
            ratio = times_as_fast(row, rival)
            took = " to ".join(f"{each[ratio.clock]['median'] * 1e3:.3g}" for each in (rival, row))
            shown[title].append(Bar(machine, 1 / ratio.value, f"{took} ms, {ratio.value:.2f}x"))
    return shown


def pictures(runs: Mapping[str, Run]) -> Iterator[tuple[str, str]]:
    """Their paths from the root of a checkout, and what they are as SVG."""
    shown = bars(runs)
    for name, colours in LOOKS.items():
        yield f"docs/images/step-{name}.svg", draw(shown, *colours)


def draw(shown: Mapping[str, list[Bar]], text: str, bar: str, line: str) -> str:
    """The bars below each other, by groups, as SVG with text that can be read on a phone."""
    from matplotlib import rc_context
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    lines = sum(len(group) + 1.6 for group in shown.values())
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "gpuopt", "text.color": text, "font.size": 11}):
        figure = Figure(figsize=(5.6, 0.26 * lines + 0.2), layout="constrained")
        FigureCanvasSVG(figure)
        axes = figure.subplots()
        at = 0.0
        for title, group in shown.items():
            axes.text(-0.85, at, title, weight="bold", va="center")
            for each in group:
                at += 1
                axes.text(-0.02, at, each.of, ha="right", va="center", fontsize=9)
                axes.barh(at, each.share, height=0.7, color=bar)
                axes.text(max(each.share, 1) + 0.03, at, each.words, va="center", fontsize=9)
            at += 1.6
        axes.vlines(1, 0.4, at - 1, color=line, linewidth=1, linestyle="--")
        axes.text(1, 0, "torch.optim's fastest", color=line, ha="center", va="center", fontsize=9)
        axes.set(xlim=(-0.85, 1.95), ylim=(at - 1, -0.8))
        axes.axis("off")
        file = io.StringIO()
        figure.savefig(file, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    return file.getvalue()
