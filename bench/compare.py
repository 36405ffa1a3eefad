"""Two runs of the benchmark, and which rows have become slower or faster between them."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Mapping
from math import hypot
from pathlib import Path
from typing import Any, Literal, NamedTuple

from gpuopt.bench.noise import BUSY, noise
from gpuopt.bench.results import BUDGET_SPENT, NOT_REACHED, SCHEMA
from gpuopt.machine import Spread

THRESHOLD = 0.05
"""Share of the older median that medians must differ by to count."""

CUT_SHORT = (NOT_REACHED, BUDGET_SPENT)

Run = Mapping[str, Any]
"""What ``bench/SCHEMA.md`` describes."""


class Change(NamedTuple):
    """One row in two runs.

    Attributes:
        workload: Its key.
        contender: Its name.
        before: Seconds, the median of the older run.
        after: Seconds, the median of the newer run; None where it was not timed.
        verdict: ``"slower"`` and ``"faster"`` where the medians differ by more than ``THRESHOLD`` and by more than
            such medians differ by chance; ``"lost"`` where a row that was timed now has no time.
        why: Why it has none.
    """

    workload: str
    contender: str
    before: float
    after: float | None
    verdict: Literal["slower", "faster", "same", "lost"]
    why: str | None = None

    @property
    def is_worse(self) -> bool:
        """Whether it is a reason to fail: the others' code is not ours to keep fast."""
        return self.contender.startswith("gpuopt ") and self.verdict in ("slower", "lost")


def load(path: Path) -> Run:
    """An older run.

    Raises:
        ValueError: There is none of this schema.
    """
    try:
        run = json.loads(path.read_text())
    except OSError as error:
        raise ValueError(
            f"--compare must be a JSON of gpuopt bench, but {path} cannot be read: {error.strerror}."
        ) from None
    except ValueError:
        raise ValueError(f"--compare must be a JSON of gpuopt bench, but {path} is no JSON.") from None
    schema = run.get("schema") if isinstance(run, dict) else None
    if schema != SCHEMA:
        raise ValueError(f"--compare must be of schema {SCHEMA}, but {path} is of {schema}.")
    missing = [key for key in ("machine", "workloads", "scale", "copy") if key not in run]
    if missing:
        raise ValueError(f"--compare must be a JSON of gpuopt bench, but {path} has no {', '.join(missing)}.")
    return dict(run)


def shared(old: Run, workloads: Iterable[str], contenders: Iterable[str], device: str) -> bool:
    """Whether the older run timed any of these, so that there is something to compare."""
    keys, names = set(workloads), set(contenders)
    return any(
        key in keys and name in names and where == device and row["step"] for (key, name, where), row in _rows(old)
    )


def changes(old: Run, new: Run, contenders: Collection[str]) -> Iterator[Change]:
    """All rows that were timed in the older run and were asked for in the newer.

    What a run that was cut short did not come to is left out.

    Args:
        old: The older run.
        new: The newer run.
        contenders: Names of those that were asked for in it.
    """
    before, after = dict(_rows(old)), dict(_rows(new))
    reasons = {skipped["what"]: skipped["why"] for skipped in new["skipped"]}
    for (workload, contender, device), row in before.items():
        now = after.get((workload, contender, device))
        clock = "device" if now is not None and now["device"] and row["device"] else "step"
        if row["step"] is None or contender not in contenders:
            continue
        was = row[clock]
        if now is not None and now[clock]:
            yield Change(workload, contender, was["median"], now[clock]["median"], _verdict(was, now[clock]))
        elif now is not None and now["why"] not in CUT_SHORT:
            yield Change(workload, contender, was["median"], None, "lost", now["why"])
        elif now is None and reasons.get(workload, NOT_REACHED) not in CUT_SHORT:
            yield Change(workload, contender, was["median"], None, "lost", reasons[workload])


def differences(old: Run, new: Run) -> list[str]:
    """In what the runs differ besides the code, and what spoils one of them, a clause each."""
    found = []
    one, other = old["machine"], new["machine"]
    pairs = {
        "CPU": (one["cpu"], other["cpu"]),
        "number of cores": (one["cores"], other["cores"]),
        "GPU": (_gpus(one), _gpus(other)),
        "scale": (old["scale"], new["scale"]),
        "system": (one["system"], other["system"]),
        "version of Python": (one["python"], other["python"]),
    }
    for package in {**one["versions"], **other["versions"]}:
        pairs[f"version of {package}"] = (one["versions"].get(package), other["versions"].get(package))
    for what, (was, now) in pairs.items():
        if was != now:
            found.append(f"the {what} was {was or 'none'} and is {now or 'none'}")
    for device in old["copy"].keys() & new["copy"].keys():
        was, now = (run["copy"][device]["gb_per_s"] for run in (old, new))
        if abs(now - was) > THRESHOLD * was:
            found.append(f"a copy in {device} memory went at {was:.1f} GB/s and goes at {now:.1f}")
    for which, machine in (("older", one), ("newer", other)):
        if (machine["others_load"] or 0.0) > BUSY:
            found.append(f"other processes took {machine['others_load']:.0%} of the CPU in the {which} run")
    return found


def _gpus(machine: Mapping[str, Any]) -> str:
    return ", ".join(f"{gpu['name']} with driver {gpu['driver']}" for gpu in machine["gpus"])


def _rows(run: Run) -> Iterator[tuple[tuple[str, str, str], dict[str, Any]]]:
    for workload in run["workloads"]:
        for row in workload["rows"]:
            yield (workload["key"], row["contender"], workload["device"]), row


def _verdict(was: Spread, now: Spread) -> Literal["slower", "faster", "same"]:
    difference, one, other = now["median"] - was["median"], noise(was), noise(now)
    if one is None or other is None or abs(difference) <= max(hypot(one, other), THRESHOLD * was["median"]):
        return "same"
    return "slower" if difference > 0 else "faster"
