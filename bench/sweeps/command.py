"""``python -m gpuopt.bench.sweeps``."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from math import inf
from pathlib import Path
from typing import Annotated, Any

import typer

from gpuopt import backends
from gpuopt.bench.meters import Meter, meter_for
from gpuopt.bench.results import BUDGET_SPENT, NOT_REACHED
from gpuopt.bench.sweeps import report
from gpuopt.bench.sweeps.run import Group, as_dict, hold
from gpuopt.bench.sweeps.subjects import ADAM, ADAM_BF16, LARGE, MANY, RMSPROP, SGD, Subject
from gpuopt.bench.timing import first_line
from gpuopt.machine import copy_rate, describe
from gpuopt.output import refuse, write_json

JSON = "sweeps.json"
FAILED, INTERRUPTED = 1, 130
"""Exit codes: an alternative is wrong or failed, or a whole group; Ctrl-C."""

FORM_SIZES = tuple(1 << power for power in (16, 18, 20, 22, 24, 27))
"""Elements of the array that both forms of the CuPy driver step, which ``PLAIN_NUMEL`` lies among."""


def sweeps(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Where sweeps.json is written.")],
    budget: Annotated[float, typer.Option(metavar="SECONDS", help="After so many no group is begun.", min=0)] = inf,
) -> None:
    """Times other kernels than the product's on the GPU that is here."""
    why = backends.available()["triton"]
    if why is not None:
        refuse(f"There is no GPU to sweep on: {why}.")
    raise typer.Exit(sweep(groups(_arch()), folder, budget, meter_for("cuda")))


def groups(arch: str) -> list[Group]:
    """Everything that is tried, what matters most first.

    Args:
        arch: Of the GPU, as in ``"sm_90"``.
    """
    from gpuopt.bench.sweeps import by_cupy, by_triton

    def triton(subject: Subject) -> Group:
        return Group("triton", subject, partial(by_triton.alternatives, subject.variant))

    def cupy(subject: Subject) -> Group:
        return Group("cupy", subject, partial(by_cupy.forms, subject.variant, arch))

    many = Subject("Adam fp32, 10,000 x 1,000", ADAM, MANY)
    kinds = {"Adam fp32": ADAM, "Adam all bf16": ADAM_BF16}
    return [
        triton(Subject("Adam fp32, 2^27", ADAM, LARGE)),
        triton(Subject("Adam fp32, 2^27, misaligned gradients", ADAM, LARGE, misaligned=True)),
        triton(many),
        Group("cupy", many, partial(by_cupy.tiles, many.variant, arch)),
        triton(Subject("Adam all bf16, 2^27", ADAM_BF16, LARGE)),
        triton(Subject("Adam all bf16, 2^27, misaligned gradients", ADAM_BF16, LARGE, misaligned=True)),
        *(cupy(Subject(f"{name}, {numel:,}", kind, (numel,))) for name, kind in kinds.items() for numel in FORM_SIZES),
        *(
            cupy(Subject(f"{name}, 2^27, misaligned gradients", kind, LARGE, misaligned=True))
            for name, kind in kinds.items()
        ),
        triton(Subject("SGD with momentum fp32, 2^27", SGD, LARGE)),
        triton(Subject("RMSProp fp32, 2^27", RMSPROP, LARGE)),
    ]


def sweep(
    chosen: Sequence[Group],
    folder: Path,
    budget: float,
    meter: Meter,
    device: str = "cuda",
    clock: Callable[[], float] = time.perf_counter,
) -> int:
    """Tries some groups, writing and printing what there is after each; returns the exit code."""
    folder.mkdir(parents=True, exist_ok=True)
    begun = clock()
    copy = copy_rate(device)
    found: dict[str, Any] = {"machine": describe(), "copy": copy, "groups": [], "missing": []}
    missing, interrupted = {group.name: NOT_REACHED for group in chosen}, False
    print(f"A copy, read and written: {copy['gb_per_s']:,.0f} GB/s.", flush=True)
    try:
        for group in chosen:
            if clock() - begun > budget:
                missing[group.name] = BUDGET_SPENT
                continue
            try:
                found["groups"].append(as_dict(group, hold(group, meter, device), copy))
                del missing[group.name]
                print(*report.lines(found["groups"][-1]), sep="\n", flush=True)
            except Exception as error:  # noqa: BLE001 (whatever it is, the other groups are to be had)
                missing[group.name] = first_line(error)
            found["missing"] = [f"{name}: {why}" for name, why in missing.items()]
            write_json(found, folder / JSON)
    except KeyboardInterrupt:
        interrupted = True
    found["missing"] = [f"{name}: {why}" for name, why in missing.items()]
    found["seconds"] = clock() - begun
    write_json(found, folder / JSON)
    for each in found["missing"]:
        print(f"Missing: {each}")
    if interrupted:
        return INTERRUPTED
    expected = {BUDGET_SPENT}
    failed = any(row["why"] for group in found["groups"] for row in group["rows"])
    return FAILED if failed or set(missing.values()) - expected else 0


def _arch() -> str:
    import torch

    major, minor = torch.cuda.get_device_capability(0)
    return f"sm_{major}{minor}"
