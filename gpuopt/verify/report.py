"""What ``gpuopt verify`` shows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from rich.text import Text

from gpuopt.kernels.formats import FORMATS
from gpuopt.verify.proof import Fault, Outcome
from gpuopt.verify.run import ORACLE, Task

HEAD = f"{'driver':<8} {'rule':<9} {'variants':>8} {'comparisons':>11} {'elements':>15} {'seconds':>8}"


@dataclass
class Line:
    """One driver and one rule.

    Attributes:
        driver: Its name.
        rule: Its name.
        todo: Number of variants that are to be compared.
        outcomes: Of those that have been.
    """

    driver: str
    rule: str
    todo: int = 0
    outcomes: list[tuple[Task, Outcome]] = field(default_factory=list)

    @property
    def complete(self) -> bool:
        """Whether all variants have been compared."""
        return len(self.outcomes) == self.todo

    @property
    def fault(self) -> Fault | None:
        """That of the first variant that has one."""
        in_order = sorted(self.outcomes, key=lambda each: each[0].variant)
        return next((outcome.fault for _, outcome in in_order if outcome.fault), None)

    def text(self) -> Text:
        """The line; seconds are those of all processes together."""
        done = [outcome for _, outcome in self.outcomes]
        text = Text(
            f"{self.driver:<8} {self.rule:<9} {len(done):>8} {sum(each.comparisons for each in done):>11,} "
            f"{sum(each.elements for each in done):>15,} {sum(each.seconds for each in done):>8.1f}  "
        )
        if self.fault:
            return text.append("FAILED", "bold red")
        return text.append("ok", "green") if self.complete else text.append(f"of {self.todo}", "yellow")


def lines(todo: Sequence[Task]) -> dict[tuple[str, str], Line]:
    """A line for each driver and rule, in order."""
    made: dict[tuple[str, str], Line] = {}
    for task in todo:
        made.setdefault((task.driver, task.rule), Line(task.driver, task.rule)).todo += 1
    return made


def as_dict(lines: Iterable[Line], quick: bool, seed: int) -> dict[str, Any]:
    """What has been compared so far, for a JSON; a fault in the words of :func:`explain`."""
    return {
        "quick": quick,
        "seed": seed,
        "lines": [
            {
                "driver": line.driver,
                "rule": line.rule,
                "variants": len(line.outcomes),
                "of": line.todo,
                "comparisons": sum(outcome.comparisons for _, outcome in line.outcomes),
                "elements": sum(outcome.elements for _, outcome in line.outcomes),
                "fault": list(explain(line)) if line.fault else None,
            }
            for line in lines
        ],
    }


def explain(line: Line) -> Iterator[str]:
    """All that there is to know of a line's first fault."""
    fault = line.fault
    assert fault is not None
    found = fault.difference
    yield f"{line.driver} {line.rule}: {fault.problem or f'other bits than those of {ORACLE}'}"
    yield _row("variant", fault.variant)
    yield _row("case", f"{fault.case}, step {fault.step}")
    if found is None:
        return
    format = fault.formats[found.plane.partition(".")[0]]
    more = "" if found.count == 1 else f", the first of {found.count:,} that differ"
    yield _row("slot", found.plane)
    yield _row("index", f"{found.index} of {found.numel:,} elements of tensor {found.tensor}{more}")
    yield _row(line.driver, _both(found.got, format))
    yield _row(ORACLE, _both(found.expected, format))
    for name, entry in fault.inputs.items():
        both = _both(entry, fault.formats[name.partition(".")[0]])
        yield _row("inputs" if name == next(iter(fault.inputs)) else "", f"{name:<16} {both}")
    for what, values in (("hyper", fault.hyper), ("signals", fault.signals)):
        for index, (key, value) in enumerate(values.items()):
            yield _row("" if index else what, f"{key:<18} {value!r}")


def _row(what: str, value: str) -> str:
    return f"  {what:<8} {value}"


def _both(entry: int, format_name: str) -> str:
    """Stored bits in hex, and the value they mean, where they are all that it takes."""
    format = FORMATS[format_name]
    if len(format.planes) > 1:
        return f"0x{entry:x}"
    storage = format.planes[0].storage
    with np.errstate(all="ignore"):
        value = format.load(np.array([entry], f"u{storage.itemsize}").view(storage))[0]
    return f"0x{entry:0{2 * storage.itemsize}x}  {value!s}"
