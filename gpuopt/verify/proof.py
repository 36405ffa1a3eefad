"""Steps a variant by a driver and by the oracle, and compares every stored element."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from gpuopt.kernels.drivers import DRIVERS, Driver
from gpuopt.kernels.drivers import numpy as oracle
from gpuopt.kernels.signals import Signals
from gpuopt.kernels.variant import Variant
from gpuopt.verify.cases import Case
from gpuopt.verify.compare import Difference, first_difference, written_outside
from gpuopt.verify.drawing import Array
from gpuopt.verify.given import Given
from gpuopt.verify.memory import Memory, PlacedTensors, memory_of
from gpuopt.verify.tensors import Tensors


@dataclass(frozen=True)
class Fault:
    """Where a driver did not do as the oracle, in plain data that travels between processes.

    Attributes:
        variant: What it ran, as text.
        case: How, as text.
        step: Which step of the case, the first is 1.
        problem: What went wrong, where it is not that an element differs.
        difference: The first element that differs.
        formats: By slot, the name of its format.
        inputs: By plane, the stored bits of that element before the step.
        hyper: By field, the hyper row of that element's tensor.
        signals: By field, the signals that were given.
    """

    variant: str
    case: str
    step: int = 1
    problem: str | None = None
    difference: Difference | None = None
    formats: dict[str, str] = field(default_factory=dict)
    inputs: dict[str, int] = field(default_factory=dict)
    hyper: dict[str, float] = field(default_factory=dict)
    signals: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Outcome:
    """What came of the comparisons of one variant on one driver.

    Attributes:
        comparisons: Steps that were compared.
        elements: Stored entries that were compared in them, of all planes.
        seconds: How long it took, compilation included.
        fault: The first; no comparison follows it.
    """

    comparisons: int = 0
    elements: int = 0
    seconds: float = 0.0
    fault: Fault | None = None


def prove(driver: str, variant: Variant, cases: Sequence[Case], seed: int) -> Outcome:
    """Compares a driver that can run here with the oracle."""
    begun = time.perf_counter()
    comparisons = elements = 0
    fault = None
    for case in cases:
        compared, fault = _compare(driver, variant, case, seed)
        comparisons += compared
        elements += compared * sum(
            plane.entries(numel) for numel in case.numels for _, plane in variant.planes.values()
        )
        if fault is not None:
            break
    return Outcome(comparisons, elements, time.perf_counter() - begun, fault)


def _compare(driver: str, variant: Variant, case: Case, seed: int) -> tuple[int, Fault | None]:
    """Number of steps compared, and what was wrong in the last of them."""
    expected = Tensors(variant, case.numels, seed, misaligned=case.misaligned)
    rows = np.arange(len(case.numels)) % len(case.hypers[0])
    step = 1
    try:
        runner = _Runner(DRIVERS[driver].load(), memory_of(driver), expected, case, rows)
        for step, scalars in enumerate(case.hypers, start=1):
            if step > 1:
                expected.draw(seed + step)
            before = expected.copy()
            hyper = variant.hyper_array(scalars)
            oracle.run(expected.table(oracle.TILE, rows), hyper, signals=runner.given.signals)
            actual = runner.step(before, hyper)
            outside = written_outside(actual)
            if outside is not None:
                return step, Fault(str(variant), case.name, step, outside)
            found = first_difference(actual, expected)
            if found is not None:
                return step, Fault(
                    str(variant),
                    case.name,
                    step,
                    difference=found,
                    formats={slot: format.name for slot, format in expected.formats.items()},
                    inputs=before.element(found.tensor, found.index),
                    hyper=dict(zip(variant.hyper_fields, hyper[rows[found.tensor]].tolist(), strict=True)),
                    signals=case.signals,
                )
    except Exception as error:  # noqa: BLE001 (whatever a driver raises is a fault of it)
        return step - 1, Fault(str(variant), case.name, step, f"{type(error).__name__}: {error}")
    return len(case.hypers), None


class _Runner:
    """Runs a driver on its own copy of the tensors, which lasts from step to step."""

    def __init__(self, driver: Driver, memory: Memory, tensors: Tensors, case: Case, rows: Array) -> None:
        self.driver = driver
        self.given = Given(tensors.variant, **case.signals)
        self._scalars = [None if each is None else memory.upload(each.view(np.uint8)) for each in self.given.scalars]
        self._signals = Signals(*(0 if each is None else memory.address(each) for each in self._scalars))
        self._placed = PlacedTensors(tensors, memory)
        if case.one_by_one:
            self._tables = self._placed.single_tables(driver.TILE, rows)
        else:
            self._tables = [self._placed.table(driver.TILE, rows)]

    def step(self, tensors: Tensors, hyper: Array) -> Tensors:
        """What a step makes of its copy, which takes the gradients of ``tensors`` first."""
        self._placed.host = tensors
        self._placed.refresh("grad")
        with np.errstate(all="ignore"):  # Triton's interpreter computes with NumPy
            for table in self._tables:
                self.driver.run(table, hyper, signals=self._signals)
        return self._placed.download()
