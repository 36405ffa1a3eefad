"""Two runs of the benchmark, and which rows have become slower or faster between them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from math import sqrt
from pathlib import Path
from typing import Any, Literal, NamedTuple

from gpuopt.bench.results import SCHEMA, TIMED

THRESHOLD = 0.05
"""Share of the older median that medians must differ by to count."""

CERTAINTY = 1.5
"""About three standard errors of a median, in tenths of the samples to tenths over the root of their number."""

Run = Mapping[str, Any]
"""What ``bench/SCHEMA.md`` describes."""


class Change(NamedTuple):
    """One row in two runs.

    Attributes:
        workload: Its key.
        contender: Its name.
        before: Seconds, the median of the older run; None where it was not timed.
        after: Seconds, the median of the newer run; None where it was not timed.
        verdict: ``"slower"`` and ``"faster"`` where the medians differ by more than ``THRESHOLD`` and by more than
            such medians differ by chance; ``"lost"`` where a row that was timed is now
            wrong or broken.
    """

    workload: str
    contender: str
    before: float | None
    after: float | None
    verdict: Literal["slower", "faster", "same", "lost"]

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
    missing = [key for key in ("machine", "workloads") if key not in run]
    if missing:
        raise ValueError(f"--compare must be a JSON of gpuopt bench, but {path} has no {', '.join(missing)}.")
    return dict(run)


def changes(old: Run, new: Run) -> Iterator[Change]:
    """All rows that were timed in the older run and are in the newer."""
    before = {key: row for key, row in _rows(old) if row["status"] in TIMED}
    for key, row in _rows(new):
        if key in before:
            was, now = _times(before[key]), _times(row)
            if was is None:
                continue
            if now is not None:
                yield Change(*key[:2], was["median"], now["median"], _verdict(was, now))
            elif row["status"] in ("wrong", "broken"):
                yield Change(*key[:2], was["median"], None, "lost")


def other_machine(old: Run, new: Run) -> list[str]:
    """In what the machines differ, a clause each."""
    found = []
    for what in ("cpu", "cores"):
        was, now = (run["machine"][what] for run in (old, new))
        if was != now:
            found.append(f"{what} was {was} and is {now}")
    was, now = ([gpu["name"] for gpu in run["machine"]["gpus"]] for run in (old, new))
    if was != now:
        found.append(f"GPUs were {', '.join(was) or 'none'} and are {', '.join(now) or 'none'}")
    return found


def _rows(run: Run) -> Iterator[tuple[tuple[str, str, str], dict[str, Any]]]:
    for workload in run["workloads"]:
        for row in workload["rows"]:
            yield (workload["key"], row["contender"], workload["device"]), row


def _times(row: dict[str, Any]) -> dict[str, Any] | None:
    """The spread that counts."""
    times: dict[str, Any] | None = row["device"] or row["step"]
    return times


def _verdict(was: dict[str, Any], now: dict[str, Any]) -> Literal["slower", "faster", "same"]:
    difference = now["median"] - was["median"]
    noise = CERTAINTY * sqrt(sum((times["p90"] - times["p10"]) ** 2 / times["n"] for times in (was, now)))
    if abs(difference) <= max(noise, THRESHOLD * was["median"]):
        return "same"
    return "slower" if difference > 0 else "faster"
