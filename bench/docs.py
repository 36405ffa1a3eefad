"""``python -m gpuopt.bench.docs``: puts what committed runs say into the README and ``docs/``, and draws the picture.

The runs are those of ``bench/results/`` in a checkout. What is between ``<!-- NAME -->`` and ``<!-- end -->`` on a page
of :func:`pages` is made here and not by hand, and so are the pictures, and the reports beside the runs.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from gpuopt.bench.goals import all_helped, asked, doubt, seen
from gpuopt.bench.gpu.summary import OURS, THEIRS
from gpuopt.bench.html import render
from gpuopt.bench.picture import SHOWN, Run, held, machines, moved, pictures, rivals
from gpuopt.bench.ratio import times_as_fast
from gpuopt.bench.tables import BASE
from gpuopt.bench.workloads import EIGHT_BIT_SETS, FORMAT_SETS

ROOT = Path(__file__).resolve().parents[1]

CPU, GPU = "amd-epyc-2-cores", "nvidia-h100-80gb-hbm3"
"""The machines whose runs are shown in full."""

FIGURES = {
    **SHOWN,
    "Adam or AdamW, all bfloat16": ("adamw/one-24/bf16", "adam/llama-3.2-1b/bf16"),
    "Adam, 10,000 tensors of 1,000": ("adam/10000x1000/fp32", "adam/10000x1000/fp32"),
    "Adam, 1,000 tensors of 64 (GPU: 300)": ("adam/1000x64/fp32", "adam/300x64/fp32"),
    "Adam, one tensor of 1,024": ("adam/one-10/fp32", "adam/one-10/fp32"),
}
"""Rows of the README's table: keys of workloads on a CPU and on a GPU."""

STEPS = {
    "PyTorch": (
        "adam/200x100000/fp32",
        "rmsprop/200x100000/fp32",
        "adam/1000x64/fp32",
        "rmsprop/1000x64/fp32",
        "adam/1000x64/fp32/new-grads",
        "adam/experts-64x4x256/fp32/1-of-8",
        "adamw/200x100000/fp32/clip-ema",
    ),
    "arrays": ("arrays/adam/one-20m/fp32", "arrays/rmsprop/one-20m/fp32", "arrays/adam/1000x64/fp32"),
    "sizes": tuple(f"adam/one-{power}/fp32" for power in (10, 14, 18, 22, 26, 28)),
    "models": (
        "adamw/resnet-50/fp32",
        "adamw/vit-l16-width-256/fp32",
        "adamw/gpt2-124m-width-192/fp32",
        "adamw/llama-3.2-1b-width-256/fp32",
        "adam/10000x1000/fp32",
    ),
}
"""Keys of the workloads that are the columns of each table of step times."""

FORMATS = tuple(f"adamw/one-24/{name}" for name in FORMAT_SETS | EIGHT_BIT_SETS)
"""Keys of the rows of the table of formats; the first is what the others are compared with."""

ON_GPU = (
    "adam/llama-3.2-1b/fp32",
    "rmsprop/llama-3.2-1b/fp32",
    "sgd/llama-3.2-1b/fp32",
    "adagrad/llama-3.2-1b/fp32",
    "adam/llama-3.2-1b/bf16",
    "adam/llama-3.2-1b/fp32/misaligned-grads",
    "adamw/gpt2-124m/fp32/clip-ema",
    "adam/10000x1000/fp32",
    "adam/300x64/fp32",
)
"""Keys of the rows of the table of a GPU."""

OURS_ON_CPU = "gpuopt numba"
"""The contender of the table of formats."""

LOOP = "torch for-loop"
"""Besides the others, for how many times as fast: on a few large tensors it is faster than foreach."""

MARKS = {"wrong": "wrong", "broken": "broken", "skipped": "none"}

MEMORY = "adam/200x100000/fp32"
"""Key of the workload whose memory and first step are shown."""


def load(folder: Path = ROOT / "bench" / "results") -> dict[str, Run]:
    """All runs, by the names of their files."""
    return {path.stem: json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))}


def pages(runs: Mapping[str, Run]) -> dict[str, dict[str, str]]:
    """By page, from the root of the checkout, what is to be between its comments, in Markdown."""
    cpu, gpu = runs[CPU], runs[GPU]
    return {
        "README.md": {"figures": figures(runs)},
        "docs/benchmarks.md": {
            "machine": machine(cpu),
            **{name: step_times(cpu, keys) for name, keys in STEPS.items()},
            "formats": formats(cpu),
            "goals": goals(cpu),
            "memory": memory(cpu),
            "training": trainings(runs[f"{CPU}-train"]),
            "formats training": formats_training(runs[f"{CPU}-formats"]),
            "gpu machine": gpu_machine(gpu),
            "gpu": gpu_table(gpu),
        },
        "docs/formats.md": {"state": losses(runs[f"{CPU}-state"]), "embedding": updates(runs[f"{CPU}-embedding"])},
    }


def renewed(page: str, name: str, blocks: Mapping[str, str]) -> str:
    """The text of the page that is called so, with its blocks of :func:`pages`.

    Raises:
        ValueError: It has no place for a block, or several.
    """
    for block, text in blocks.items():
        begin, end = f"<!-- {block} -->\n", "<!-- end -->"
        around = re.split(f"{begin}.*?{end}", page, flags=re.DOTALL)
        if len(around) != 2:
            raise ValueError(f"{name} must have one place for {block}, between comments, but has {len(around) - 1}")
        page = f"{begin}{text}\n{end}".join(around)
    return page


def figures(runs: Mapping[str, Run]) -> str:
    """A row per kind of step, a column per machine: bytes that are moved, and how many times as fast ours is."""
    names = list(machines(runs))
    rows = []
    for title, keys in FIGURES.items():
        workloads = held(runs, keys)
        ratios = {name: times_as_fast(*rivals(workload)) for name, workload in workloads.items()}
        on_cpu = {name for name, workload in workloads.items() if workload["device"] == "cpu"}
        told = {name: f"{ratio.value:.2f}x" if name in on_cpu else str(ratio) for name, ratio in ratios.items()}
        cells = [told.get(name, "") for name in names]
        rows.append([title, " to ".join(f"{each:.0f}" for each in moved(workloads.values())), *cells])
    return table(["", "bytes moved", *names], rows)


def machine(results: Run) -> str:
    """One line: what the run was on, when, and how fast a copy was."""
    head, copy = results["machine"], results["copy"]["cpu"]["gb_per_s"]
    versions = ", ".join(f"{name} {head['versions'][name]}" for name in ("torch", "numpy", "numba"))
    return (
        f"{head['cpu']}, {head['cores']} cores, {head['date'][:10]}; {versions}; a copy, read and written, "
        f"at {copy:.1f} GB/s, without what the CPU reads because it is about to be overwritten."
    )


def gpu_machine(results: Run) -> str:
    """One line: which GPU the run was on, when, and how fast a copy was."""
    head, copy = results["machine"], results["copy"]["cuda"]["gb_per_s"]
    versions = ", ".join(f"{name} {head['versions'][name]}" for name in ("torch", "triton", "cupy"))
    gpu = head["gpus"][0]
    return (
        f"{gpu['name']}, driver {gpu['driver']}, CUDA {gpu['cuda']}, {head['cpu']}, {head['date'][:10]}; {versions}; a "
        f"copy, read and written, at {copy:,.0f} GB/s, {copy / gpu['datasheet_gb_per_s']:.0%} of the data sheet's."
    )


def gpu_table(results: Run) -> str:
    """A row per workload: shares of the copy's rate, the time and how many times as fast it is, launches, the host."""
    lines = []
    for workload in _workloads(results, ON_GPU):
        rows = {row["contender"]: row for row in workload["rows"]}
        ours = rows["gpuopt triton"]
        shares = [f"{rows[name]['copy_share']:.0%}" for name in OURS]
        ratios = [str(times_as_fast(ours, rows[name])) if rows[name]["step"] else "none" for name in (*THEIRS, LOOP)]
        calls = [_call(rows[name]) for name in (OURS[0], *THEIRS)]
        time = f"{ours['device']['median'] * 1e3:.3g}"
        lines.append([workload["title"], *shares, time, *ratios, str(ours["launches"]), *calls])
    head = [
        "",
        "triton, of a copy",
        "cupy, of a copy",
        "triton, ms",
        *(f"x {name}" for name in (*THEIRS, LOOP)),
        "launches",
    ]
    return table([*head, "host, us: triton", *THEIRS], lines)


def _call(row: Run) -> str:
    """Microseconds until a call returns; where a step could not be queued whole, it has waited for the GPU in them."""
    if not row["call"]:
        return "none"
    return f"{row['call']['median'] * 1e6:,.0f}" if row["device"] else "waits"


def step_times(results: Run, keys: Sequence[str]) -> str:
    """Milliseconds per step: a row for each contender that was timed on one of the workloads."""
    columns = _workloads(results, keys)
    cells = [{row["contender"]: _cell(row) for row in workload["rows"]} for workload in columns]
    names = dict.fromkeys(row["contender"] for workload in columns for row in workload["rows"] if row["step"])
    head = ["", *(workload["title"] for workload in columns)]
    return table(head, [[name, *(column.get(name, "none") for column in cells)] for name in names])


def formats(results: Run) -> str:
    """A row per set of formats: its bytes, and how fast a step is."""
    stored_as = _workloads(results, FORMATS)
    (base,) = (row for row in stored_as[0]["rows"] if row["contender"] == BASE)
    lines = []
    for workload in stored_as:
        rows = {row["contender"]: row for row in workload["rows"]}
        ours = rows[OURS_ON_CPU]
        shares = [f"{ours['copy_share']:.0%}", f"{times_as_fast(ours, base).value:.2f}x"] if ours["step"] else ["", ""]
        kept, moved = (f"{workload[of] / workload['numel']:g}" for of in ("stored", "bytes"))
        lines.append([workload["title"], kept, moved, _cell(ours), *shares, _cell(rows[BASE])])
    head = ["", "bytes stored", "moved in a step", f"{OURS_ON_CPU}, ms", "of a copy", f"x {BASE} in float32"]
    return table([*head, f"{BASE}, ms"], lines)


def goals(results: Run) -> str:
    """A row per goal: what was to be so many times faster than what, and was it."""
    titles = {workload["key"]: workload["title"] for workload in results["workloads"]}
    rows = [
        [
            titles[goal["workload"]],
            goal["ours"],
            goal["against"] or ", ".join(goal["theirs"]),
            asked(goal),
            goal["why"] or seen(goal),
            {True: "met", False: "**missed**", None: ""}[goal["met"]] + doubt(goal),
        ]
        for goal in results["goals"]
    ]
    told = table(["", "", "against", "times as fast, at least", "seen", ""], rows)
    return "\n\n".join([told, *all_helped(results["goals"], titles)])


def memory(results: Run) -> str:
    """A row per contender: what it takes for a step besides its time."""
    rows = [
        [row["contender"], f"{row['extra_memory'] / 1e6:.1f}", f"{row['compile']:.1f}"]
        for row in _workloads(results, (MEMORY,))[0]["rows"]
        if row["extra_memory"] is not None
    ]
    return table(
        ["", "MB beyond parameters, gradients and state", "seconds of the first step beyond a usual one"], rows
    )


def trainings(training: Run) -> str:
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


def formats_training(stored: Run) -> str:
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


def losses(state: Run) -> str:
    """A row per recipe and format: how much higher its loss is than float32's, and what seeds make of float32's."""
    first = state["trials"][0]
    seeds = len(first["seeds"])
    title = f"{first['title']}, {first['numel']:,} parameters, {first['recipe']['steps']:,} steps"
    head = [title, "kept as", f"above float32, {seeds} seeds", "in the mean", "seeds are apart"]
    rows = [
        [
            f"lr {trial['recipe']['lr']:g}, betas {_listed(trial['recipe']['betas'])}",
            row["title"],
            ", ".join(f"{difference:+z.4f}" for difference in row["differences"]),
            f"{row['difference']:+z.4f}",
            f"{trial['spread']:.4f}",
        ]
        for trial in state["trials"]
        for row in trial["rows"][1:]
    ]
    return table(head, rows)


def updates(embedding: Run) -> str:
    """A row per optimizer, with its largest update in each training, as a multiple of the learning rate.

    What did not train has its reason below.
    """
    trials = embedding["trials"]
    head = ["", *(f"rows of {trial['width']}, betas {_listed(trial['betas'])}" for trial in trials)]
    rows, reasons = [], []
    for several in zip(*(trial["rows"] for trial in trials), strict=True):
        rows.append([_called(several[0]), *map(_update, several)])
        why = dict.fromkeys(f"{_called(row)}: `{row['why']}`" for row in several if row["status"] != "trained")
        reasons += list(why)
    return "\n\n".join([table(head, rows), *reasons])


def _listed(betas: Sequence[float]) -> str:
    return ", ".join(f"{beta:g}" for beta in betas)


def _called(row: Run) -> str:
    """An optimizer, with the version of its library."""
    name, comma, kept = row["optimizer"].partition(",")
    return f"{name} {row['version']}{comma}{kept}" if row["version"] else f"{name}{comma}{kept}"


def _update(row: Run) -> str:
    if row["status"] != "trained":
        return str(row["status"])
    return f"{row['update']:,.0f}" if row["update"] >= 100 else f"{row['update']:.2f}"


def _workloads(results: Run, keys: Sequence[str]) -> list[Run]:
    found = {workload["key"]: workload for workload in results["workloads"]}
    missing = [key for key in keys if key not in found]
    if missing:
        raise ValueError(f"results must have the workloads {', '.join(keys)}, but have no {', '.join(missing)}")
    return [found[key] for key in keys]


def _cell(row: Run) -> str:
    return MARKS[row["status"]] if row["step"] is None else f"{row['step']['median'] * 1e3:.3g}"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """In Markdown."""
    lines = [f"| {' | '.join(cells)} |" for cells in (head, *rows)]
    return "\n".join([lines[0], "|---" * len(head) + "|", *lines[1:]])


def made(runs: Mapping[str, Run], root: Path = ROOT) -> Iterator[tuple[str, str]]:
    """Every file that is made of the runs, from the root of the checkout, and its text."""
    for name, blocks in pages(runs).items():
        yield name, renewed((root / name).read_text(), name, blocks)
    yield f"bench/results/{CPU}.html", render(dict(runs[CPU]), dict(runs[f"{CPU}-train"]))
    yield f"bench/results/{GPU}.html", render(dict(runs[GPU]))
    yield from pictures(runs)


def main(root: Path = ROOT) -> None:
    """Writes them."""
    for name, text in made(load(), root):
        (root / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
