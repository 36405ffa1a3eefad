"""``python -m gpuopt.bench.readme RESULTS TRAINING FORMATS GPU README``: puts what JSONs say into the README.

RESULTS is the ``bench.json`` of a full run on a CPU, TRAINING the ``train.json`` of ``gpuopt bench train``, FORMATS the
``formats.json`` of ``gpuopt bench train --formats``, GPU the ``bench.json`` of a run on a GPU. Reports are written
beside RESULTS, of the first two, and beside GPU, with ``.html`` for ``.json``.

What is between ``<!-- NAME -->`` and ``<!-- end -->``, for a name of :func:`blocks`, is made here and not by hand.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gpuopt.bench.goals import doubt, seen
from gpuopt.bench.gpu.summary import OURS, THEIRS
from gpuopt.bench.html import render
from gpuopt.bench.ratio import times_as_fast
from gpuopt.bench.tables import BASE
from gpuopt.bench.workloads import workloads

TABLES: dict[str, dict[str, str]] = {
    "PyTorch": {
        "adam/200x100000/fp32": "Adam, 200 tensors of 100,000",
        "rmsprop/200x100000/fp32": "RMSprop, the same",
        "adam/1000x64/fp32": "Adam, 1,000 tensors of 64",
        "rmsprop/1000x64/fp32": "RMSprop, the same",
        "adam/1000x64/fp32/new-grads": "Adam, 1,000 of 64, new gradients each step",
        "adam/experts-64x4x256/fp32/1-of-8": "Adam, 8 others of 64 experts each step",
        "adamw/200x100000/fp32/clip-ema": "tail, 200 tensors of 100,000",
    },
    "arrays": {
        "arrays/adam/one-20m/fp32": "Adam, 20M elements",
        "arrays/rmsprop/one-20m/fp32": "RMSProp, 20M elements",
        "arrays/adam/1000x64/fp32": "Adam, 1,000 tensors of 64",
    },
    "sizes": {f"adam/one-{power}/fp32": f"2^{power}" for power in (10, 14, 18, 22, 26, 28)},
    "models": {
        "adamw/resnet-50/fp32": "ResNet-50",
        "adamw/vit-l16-width-256/fp32": "ViT-L/16, width 256",
        "adamw/gpt2-124m-width-192/fp32": "GPT-2, width 192",
        "adamw/llama-3.2-1b-width-256/fp32": "Llama 3.2, width 256",
        "adam/10000x1000/fp32": "10,000 tensors of 1,000",
    },
}
"""Keys of workloads, and the heads of their columns, of each table of step times."""

FORMAT_ROWS = {
    "adamw/one-24/fp32": "float32",
    "adamw/one-24/bf16-fp32-state": "bfloat16, state in float32",
    "adamw/one-24/bf16": "bfloat16",
    "adamw/one-24/split32": "bfloat16 + 16 bits, state in float32",
    "adamw/one-24/split24": "bfloat16 + 8 bits, state in float32",
    "adamw/one-24/split24-stochastic-state": "bfloat16 + 8 bits, state in bfloat16, stochastically",
    "adamw/one-24/stochastic-fp32-state": "bfloat16, stochastically, state in float32",
    "adamw/one-24/stochastic": "bfloat16, stochastically",
}
"""Keys of workloads, and the heads of their rows, of the table of formats; the first is what the others are compared
with."""

GPU_ROWS = {
    "adam/llama-3.2-1b/fp32": "Adam, Llama 3.2 1B",
    "rmsprop/llama-3.2-1b/fp32": "RMSprop, the same",
    "sgd/llama-3.2-1b/fp32": "SGD with momentum, the same",
    "adagrad/llama-3.2-1b/fp32": "Adagrad, the same",
    "adam/llama-3.2-1b/bf16": "Adam, all bfloat16, the same",
    "adam/llama-3.2-1b/fp32/misaligned-grads": "Adam, gradients aligned to 4 bytes, the same",
    "adamw/gpt2-124m/fp32/clip-ema": "unscale, clip, AdamW, average; GPT-2 124M",
    "adam/10000x1000/fp32": "Adam, 10,000 tensors of 1,000",
    "adam/300x64/fp32": "Adam, 300 tensors of 64",
}
"""Keys of workloads, and the heads of their rows, of the table of a GPU."""

OURS_ON_CPU = "gpuopt numba"
"""The contender of the table of formats."""

MARKS = {"wrong": "wrong", "broken": "broken", "skipped": "none"}

MEMORY = "adam/200x100000/fp32"
"""Key of the workload whose memory and first step are shown."""


def renewed(
    readme: str,
    results: Mapping[str, Any],
    training: Mapping[str, Any],
    stored: Mapping[str, Any],
    gpu: Mapping[str, Any],
) -> str:
    """A README with what the runs, which ``bench/SCHEMA.md`` describes, say.

    Raises:
        ValueError: It has no place for a block, or a run lacks a workload.
    """
    for name, block in blocks(results, training, stored, gpu).items():
        readme = put(readme, name, block, "the README")
    return readme


def put(page: str, name: str, block: str, called: str) -> str:
    """A page, ``called`` so in an error, with a block in its place.

    Raises:
        ValueError: It has no place for it, or several.
    """
    begin, end = f"<!-- {name} -->\n", "<!-- end -->"
    before, *rest = page.split(begin)
    if len(rest) != 1 or end not in rest[0]:
        raise ValueError(f"{called} must have one place for {name}, between comments, but has {len(rest)}")
    return before + begin + block + "\n" + end + rest[0].partition(end)[2]


def blocks(
    results: Mapping[str, Any], training: Mapping[str, Any], stored: Mapping[str, Any], gpu: Mapping[str, Any]
) -> dict[str, str]:
    """In Markdown: the machines, the tables of step times, the goals, memory and first steps, and the trainings."""
    tables = {name: step_times(results, columns) for name, columns in TABLES.items()}
    return {
        "machine": machine(results),
        **tables,
        "formats": formats(results),
        "goals": goals(results),
        "memory": memory(results),
        "training": trainings(training),
        "formats training": formats_training(stored),
        "gpu machine": gpu_machine(gpu),
        "gpu": gpu_table(gpu),
    }


def machine(results: Mapping[str, Any]) -> str:
    """One line: what the run was on, when, and how fast a copy was."""
    head, copy = results["machine"], results["copy"]["cpu"]["gb_per_s"]
    versions = ", ".join(f"{name} {head['versions'][name]}" for name in ("torch", "numpy", "numba"))
    return (
        f"{head['cpu']}, {head['cores']} cores, {head['date'][:10]}; {versions}; a copy, read and written, "
        f"at {copy:.1f} GB/s, without what the CPU reads because it is about to be overwritten."
    )


def gpu_machine(results: Mapping[str, Any]) -> str:
    """One line: which GPU the run was on, when, and how fast a copy was."""
    head, copy = results["machine"], results["copy"]["cuda"]["gb_per_s"]
    versions = ", ".join(f"{name} {head['versions'][name]}" for name in ("torch", "triton", "cupy"))
    gpu = head["gpus"][0]
    return (
        f"{gpu['name']}, driver {gpu['driver']}, CUDA {gpu['cuda']}, {head['cpu']}, {head['date'][:10]}; {versions}; a "
        f"copy, read and written, at {copy:,.0f} GB/s, {copy / gpu['datasheet_gb_per_s']:.0%} of the data sheet's."
    )


def gpu_table(results: Mapping[str, Any]) -> str:
    """A row per workload: shares of the copy's rate, the time and how many times as fast it is, launches, the host."""
    lines = []
    for key, workload in _workloads(results, GPU_ROWS).items():
        rows = {row["contender"]: row for row in workload["rows"]}
        ours = rows["gpuopt triton"]
        shares = [f"{rows[name]['copy_share']:.0%}" for name in OURS]
        ratios = [str(times_as_fast(ours, rows[name])) if rows[name]["step"] else "none" for name in THEIRS]
        calls = [_call(rows[name]) for name in (OURS[0], *THEIRS)]
        cells = [
            GPU_ROWS[key],
            *shares,
            f"{ours['device']['median'] * 1e3:.3g}",
            *ratios,
            str(ours["launches"]),
            *calls,
        ]
        lines.append(cells)
    head = ["", "triton, of a copy", "cupy, of a copy", "triton, ms", *(f"x {name}" for name in THEIRS), "launches"]
    return table([*head, "host, us: triton", *THEIRS], lines)


def _call(row: Mapping[str, Any]) -> str:
    """Microseconds until a call returns; where a step could not be queued whole, it has waited for the GPU in them."""
    if not row["call"]:
        return "none"
    return f"{row['call']['median'] * 1e6:,.0f}" if row["device"] else "waits"


def step_times(results: Mapping[str, Any], columns: Mapping[str, str]) -> str:
    """Milliseconds per step: a row for each contender that was timed on one of the workloads."""
    workloads = _workloads(results, columns)
    cells = {key: {row["contender"]: _cell(row) for row in workloads[key]["rows"]} for key in columns}
    names = dict.fromkeys(row["contender"] for key in columns for row in workloads[key]["rows"] if row["step"])
    return table(
        ["", *columns.values()], [[name, *(cells[key].get(name, "none") for key in columns)] for name in names]
    )


def formats(results: Mapping[str, Any]) -> str:
    """A row per set of formats: its bytes, and how fast a step is."""
    stored_as = _workloads(results, FORMAT_ROWS)
    first = next(iter(FORMAT_ROWS))
    (base,) = (row for row in stored_as[first]["rows"] if row["contender"] == BASE)
    by_key = {workload.key: workload for workload in workloads("cpu")}
    lines = []
    for key, workload in stored_as.items():
        rows = {row["contender"]: row for row in workload["rows"]}
        ours, moved = rows[OURS_ON_CPU], workload["bytes"] / workload["numel"]
        shares = [f"{ours['copy_share']:.0%}", f"{times_as_fast(ours, base).value:.2f}x"] if ours["step"] else ["", ""]
        kept = by_key[key].stored / workload["numel"]
        cells = [FORMAT_ROWS[key], f"{kept:g}", f"{moved:g}", _cell(ours), *shares, _cell(rows[BASE])]
        lines.append(cells)
    head = ["", "bytes stored", "moved in a step", f"{OURS_ON_CPU}, ms", "of a copy", f"x {BASE} in float32"]
    return table([*head, f"{BASE}, ms"], lines)


def goals(results: Mapping[str, Any]) -> str:
    """A row per goal: what was to be so many times faster than what, and was it."""
    keys = dict.fromkeys(goal["workload"] for goal in results["goals"])
    titles = {key: workload["title"] for key, workload in _workloads(results, keys).items()}
    rows = [
        [
            titles[goal["workload"]],
            goal["ours"],
            goal["against"] or ", ".join(goal["theirs"]),
            "" if goal["at_least"] is None else f"{goal['at_least']:.3g}",
            goal["why"] or seen(goal),
            {True: "met", False: "**missed**", None: ""}[goal["met"]] + doubt(goal),
        ]
        for goal in results["goals"]
    ]
    return table(["", "", "against", "times as fast, at least", "seen", ""], rows)


def memory(results: Mapping[str, Any]) -> str:
    """A row per contender: what it takes for a step besides its time."""
    rows = [
        [row["contender"], f"{row['extra_memory'] / 1e6:.1f}", f"{row['compile']:.1f}"]
        for row in _workloads(results, {MEMORY: ""})[MEMORY]["rows"]
        if row["extra_memory"] is not None
    ]
    return table(
        ["", "MB beyond parameters, gradients and state", "seconds of the first step beyond a usual one"], rows
    )


def trainings(training: Mapping[str, Any]) -> str:
    """A row per contender: how long it took to the goal of each task, and the optimizer's share of a step."""
    cells: dict[str, list[str]] = {row["contender"]: [] for task in training["tasks"] for row in task["rows"]}
    head = [""]
    for task in training["tasks"]:
        head += [f"{task['title']}: seconds to a loss of {task['goal']:g}", "optimizer's share"]
        rows = {row["contender"]: row for row in task["rows"]}
        for contender in cells:
            row = rows[contender]
            reached = row["reached"]
            cells[contender] += [
                row["missed"] if reached is None else f"{reached['seconds']:.3g}",
                "" if row["share"] is None else f"{row['share']:.1%}",
            ]
    return table(head, [[contender, *values] for contender, values in cells.items()])


def formats_training(stored: Mapping[str, Any]) -> str:
    """A row per format of weights: its bytes, its loss from each seed, and how much higher that is than float32's."""
    rows = [
        [
            row["title"],
            str(row["bytes"]),
            ", ".join(f"{loss:.4f}" for loss in row["losses"]),
            ", ".join(f"{difference:+z.4f}" for difference in row["differences"]),
            f"{row['difference']:+z.4f}",
        ]
        for row in stored["rows"]
    ]
    head = [f"{stored['title']}, {stored['numel']:,} parameters", "bytes of a weight", "loss from each seed"]
    return table([*head, "above float32", "in the mean"], rows)


def _workloads(results: Mapping[str, Any], keys: Mapping[str, Any]) -> dict[str, Any]:
    found = {workload["key"]: workload for workload in results["workloads"]}
    missing = [key for key in keys if key not in found]
    if missing:
        raise ValueError(f"results must have the workloads {', '.join(keys)}, but have no {', '.join(missing)}")
    return {key: found[key] for key in keys}


def _cell(row: Mapping[str, Any]) -> str:
    return MARKS[row["status"]] if row["step"] is None else f"{row['step']['median'] * 1e3:.3g}"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """In Markdown."""
    lines = [f"| {' | '.join(cells)} |" for cells in (head, *rows)]
    return "\n".join([lines[0], "|---" * len(head) + "|", *lines[1:]])


def main(arguments: Sequence[str]) -> None:
    """Renews the README in place, and the reports."""
    *paths, readme = map(Path, arguments)
    results, training, stored, gpu = (json.loads(each.read_text()) for each in paths)
    readme.write_text(renewed(readme.read_text(), results, training, stored, gpu))
    paths[0].with_suffix(".html").write_text(render(results, training), encoding="utf-8")
    paths[3].with_suffix(".html").write_text(render(gpu), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
