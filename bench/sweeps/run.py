"""Checks alternatives against the oracle, and times those that are right beside each other."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import cycle
from typing import Any

from gpuopt.bench.contenders.contender import Entrant
from gpuopt.bench.meters import Meter
from gpuopt.bench.noise import noise
from gpuopt.bench.sweeps.alternative import PRODUCT, Alternative, Resources
from gpuopt.bench.sweeps.subjects import Memory, Subject
from gpuopt.bench.timing import Timing, first_line, measure
from gpuopt.kernels.drivers import numpy as oracle
from gpuopt.kernels.variant import Variant
from gpuopt.machine import Copy, Spread, spread
from gpuopt.verify import memory as verified
from gpuopt.verify.compare import first_difference, written_outside
from gpuopt.verify.drawing import Array
from gpuopt.verify.memory import PlacedTensors
from gpuopt.verify.tensors import Tensors
from gpuopt.verify.variants import hyper_rows

TURNS, SECONDS = 12, 8.0
"""Most turns of each alternative, and the time after which no further round begins."""


@dataclass(frozen=True)
class Group:
    """Alternatives that are timed beside each other.

    Attributes:
        driver: Whose they are.
        subject: What they step.
        alternatives: Makes them; the first is the product's.
    """

    driver: str
    subject: Subject
    alternatives: Callable[[], Sequence[Alternative]]

    @property
    def name(self) -> str:
        """What tables call it."""
        return f"{self.driver}, {self.subject.name}"


@dataclass
class Row:
    """What came of an alternative.

    Attributes:
        name: Its name.
        why: Why there are no times; None where there are.
        resources: What a thread of its kernel takes; None where it is not known.
        timing: What was seen of it.
    """

    name: str
    why: str | None = None
    resources: Resources | None = None
    timing: Timing = field(default_factory=Timing)

    @property
    def device(self) -> Spread | None:
        """Seconds on the GPU."""
        return spread(self.timing.device) if self.timing.device else None

    @property
    def host(self) -> Spread | None:
        """Seconds until a step is done, as the host sees it."""
        return spread(self.timing.step) if self.timing.step else None


def hold(group: Group, meter: Meter, device: str = "cuda") -> list[Row]:
    """Checks and times the alternatives of a group; one that is wrong or fails costs the others nothing."""
    subject = group.subject
    memory = Memory(subject, device)
    hypers = [subject.variant.hyper_array(hyper_rows(subject.variant, step)[:1]) for step in (1, 2)]
    rows, entrants = [], []
    for each in group.alternatives():
        row = Row(each.name)
        rows.append(row)
        try:
            row.resources = each.resources()
            row.why = wrong(each, subject.variant, device)
            if row.why is None:
                step = partial(_step, each, memory.table(each.tile), cycle(hypers))
                entrants.append((Entrant(step, dict), row.timing))
        except Exception as error:  # noqa: BLE001 (whatever it is, the others are to be had)
            row.why = first_line(error)
    measure(entrants, meter, TURNS, seconds=SECONDS, rest=0.0)
    for row in rows:
        row.why = row.why or row.timing.problem
    return rows


def wrong(alternative: Alternative, variant: Variant, device: str) -> str | None:
    """How an alternative differs from the oracle on tensors around its tile, as a clause; None where it does not."""
    tile = alternative.tile
    numels = [tile + 5] if alternative.tensors == 1 else [0, 1, 129, tile - 1, 3 * tile, tile + 5, 2 * tile, tile]
    expected = Tensors(variant, numels, seed=1)
    memory = verified.TorchMemory(kind=device)
    if device == "cpu":
        memory.index = None
    placed = PlacedTensors(expected, memory)
    hyper = variant.hyper_array(hyper_rows(variant, 1)[:1])
    alternative.run(placed.table(tile), hyper)
    found = placed.download()
    oracle.run(expected.table(oracle.TILE), hyper)
    differs = first_difference(found, expected)
    if differs is not None:
        return f"{differs.plane} differs from the oracle's in {differs.count} of {differs.numel} elements"
    return written_outside(found)


def _step(alternative: Alternative, table: Any, hypers: Iterator[Array]) -> None:
    alternative.run(table, next(hypers))


def as_dict(group: Group, rows: Sequence[Row], copy: Copy) -> dict[str, Any]:
    """A group for the JSON: times in seconds, shares of the copy's bandwidth, ratios to the product's time."""
    product = next((row.device for row in rows if row.name == PRODUCT), None)
    return {
        "driver": group.driver,
        "subject": group.subject.name,
        "variant": str(group.subject.variant),
        "bytes": group.subject.bytes,
        "rows": [_row(row, group.subject.bytes / copy["gb_per_s"] / 1e9, product) for row in rows],
    }


def _row(row: Row, least: float, product: Spread | None) -> dict[str, Any]:
    used, device = row.resources, row.device
    found: dict[str, Any] = {"name": row.name, "why": row.why, "device": device, "host": row.host}
    found |= {"registers": used and used.registers, "stack": used and used.stack}
    found |= {"not_queued": row.timing.not_queued, "share": None, "ratio": None, "off": None}
    if device is not None:
        found["share"] = least / device["median"]
        if product is not None:
            ratio, errors = product["median"] / device["median"], [noise(device), noise(product)]
            found["ratio"] = ratio
            if None not in errors:
                found["off"] = ratio * sum(
                    (error or 0.0) / each["median"] for error, each in zip(errors, (device, product), strict=True)
                )
    return found
