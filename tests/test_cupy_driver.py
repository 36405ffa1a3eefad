"""What the CuPy driver decides on the host: which kernel a table takes, on which stream, what it is given, what it
leaves to the Triton driver, and how long it keeps what a copy to the device is made from.

What the kernels compute is the matter of ``test_bitwise.py`` and, on a GPU, of ``gpu/test_gpu_bitwise.py``.
"""

from __future__ import annotations

import sys
import weakref
from contextlib import nullcontext
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest

from gpuopt.kernels import drivers
from gpuopt.kernels.drivers import cupy as driver
from gpuopt.kernels.drivers import cupy_staging
from gpuopt.kernels.drivers.device_table import Placed
from gpuopt.kernels.formats import FORMATS
from gpuopt.kernels.rules import RULES
from gpuopt.kernels.schedule import Schedule
from gpuopt.kernels.signals import NO_SIGNALS, Signals
from gpuopt.kernels.table import Table
from gpuopt.kernels.variant import Variant
from gpuopt.verify.variants import hyper_rows

VARIANT = Variant(RULES["sgd"], (FORMATS["bf16"], FORMATS["fp32"], FORMATS["fp16"]))
ZEROED = replace(VARIANT, zero_grads=True)
GIVEN = Signals(found_inf=1 << 43)


def table_of(
    *numels: int, grad_address: int = 1 << 40, hyper_rows: list[int] | None = None, variant: Variant = VARIANT
) -> Table:
    """Arrays that are nowhere."""
    addresses = [[1 << 41, grad_address, 1 << 42, 0, 0, 1 << 43][: variant.width] for _ in numels]
    return Table(variant, driver.TILE, numels, addresses, hyper_rows, device=0)


WIDE = Variant(RULES["sgd"], (FORMATS["fp32"],) * 3)
SPLIT, RANDOM = (replace(WIDE, formats=(FORMATS[name], *WIDE.formats[1:])) for name in ("split32", "stochastic_bf16"))
SMALL, SMALL_WIDE = driver.PLAIN_NUMEL[2], driver.PLAIN_NUMEL[4]
BIG = SMALL + 1

TAKES = [
    ("array", table_of(1), NO_SIGNALS),
    ("array", table_of(SMALL), NO_SIGNALS),
    ("table", table_of(BIG), NO_SIGNALS),
    ("array", table_of(SMALL_WIDE, variant=WIDE), NO_SIGNALS),
    ("table", table_of(SMALL_WIDE + 1, variant=WIDE), NO_SIGNALS),
    ("array", table_of(1, grad_address=1 << 40 | 4), NO_SIGNALS),
    ("array", table_of(BIG, grad_address=1 << 40 | 4), NO_SIGNALS),
    ("table", table_of(1, 1), NO_SIGNALS),
    ("table", table_of(1, 0), NO_SIGNALS),
    ("table", table_of(BIG, 1, grad_address=1 << 40 | 4), NO_SIGNALS),
    ("table", table_of(1), GIVEN),
    ("table", table_of(1, grad_address=1 << 40 | 4), GIVEN),
    ("table", table_of(1, variant=ZEROED), NO_SIGNALS),
    ("table", table_of(1, variant=SPLIT), NO_SIGNALS),
    ("table", table_of(1, variant=RANDOM), NO_SIGNALS),
    (None, table_of(0), NO_SIGNALS),
    (None, table_of(), NO_SIGNALS),
    (None, table_of(), GIVEN),
]


@pytest.mark.parametrize(("form", "table", "signals"), TAKES)
@pytest.mark.parametrize("stream", [0, 77])
def test_a_single_small_or_misaligned_array_takes_the_array_kernel(
    form: str | None, table: Table, signals: Signals, stream: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Unless signals are given, gradients zeroed, or formats random or of several planes: it knows nothing of those."""
    launched: list[str] = []
    streams = play_the_device(monkeypatch)
    hyper = VARIANT.hyper_array([[1.0] * len(VARIANT.hyper_fields)])

    def table_form(table: Table, placed: Placed) -> None:
        launched.append("table")
        assert np.array_equal(placed.signals[: len(signals)], signals)
        assert np.array_equal(placed.hyper[: hyper.size], hyper.ravel())
        assert np.array_equal(placed.rows[: table.rows.size], table.rows.ravel())
        assert np.array_equal(placed.tile_tensor[: table.tiles], table.tile_tensor)

    def array_form(table: Table, given: Any) -> None:
        launched.append("array")
        assert np.array_equal(given, hyper)

    monkeypatch.setattr(driver, "run_table", table_form)
    monkeypatch.setattr(driver, "run_plain", array_form)
    driver.run(table, hyper, stream, signals)
    assert launched == ([] if form is None else [form])
    assert streams == {None: [], "array": [(0, stream)], "table": [(0, stream)] * 2}[form]


def play_the_device(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """Host memory in place of the GPU's; the streams that are made current."""
    streams = []

    def from_external(handle: Any) -> Any:
        streams.append(handle.__cuda_stream__())
        return nullcontext()

    cuda = SimpleNamespace(Device=nullcontext, Stream=SimpleNamespace(from_external=from_external))
    monkeypatch.setattr(driver, "cupy", SimpleNamespace(cuda=cuda, asarray=np.array))
    return streams


SCHEDULE = Schedule(*(np.zeros((1, 1), np.int64) for _ in range(4)))


@pytest.mark.parametrize("numels", [(1,), (0,), (1, 1)])
def test_schedule_and_norm_are_tritons(numels: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Any] = []
    placed = Placed("rows", "tile_tensor", "hyper", "signals", ("counts",))

    def place(*arguments: Any) -> Placed:
        calls.append(("place", *arguments))
        return placed

    triton = SimpleNamespace(
        Placed=Placed,
        place=place,
        on_stream=lambda device, stream: nullcontext(),
        as_tensor=lambda array: f"tensor {array}",
        advance=lambda *arguments: calls.append(("advance", *arguments)),
        sum_squares=lambda *arguments: calls.append(("sum_squares", *arguments)),
    )
    play_the_device(monkeypatch)
    monkeypatch.setattr(driver, "_triton", lambda what: triton)
    monkeypatch.setattr(driver, "run_table", lambda *arguments: calls.append(("launch", *arguments)))
    table = table_of(*numels)
    given = driver.place(table, SCHEDULE, 7, GIVEN)
    driver.sum_squares(table, given, 2, 7)
    driver.step(table, given, 7)
    tensors = Placed(*(f"tensor {array}" for array in placed[:4]))
    launch = [("launch", table, placed)] if table.tiles else []
    assert calls == [
        ("place", table, SCHEDULE, 7, GIVEN),
        ("sum_squares", table, tensors, 2, 7),
        ("advance", table, placed, 7),
        *launch,
    ]


@pytest.mark.parametrize("missing", ["triton", "torch"])
def test_what_needs_triton_says_so(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "gpuopt.kernels.drivers.triton", raising=False)
    monkeypatch.delattr(drivers, "triton", raising=False)
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(RuntimeError, match=rf"a schedule needs Triton, with the backend 'cupy' too, but .*{missing}"):
        driver.place(table_of(1), SCHEDULE)


def test_a_single_tensor_takes_its_own_hyper_row(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[Any] = []
    monkeypatch.setattr(driver, "array_kernel", lambda variant: lambda *arguments: given.extend(arguments))
    monkeypatch.setattr(driver, "_array", lambda address, numel, plane: (address, numel, plane.dtype))
    hyper = VARIANT.hyper_array(hyper_rows(VARIANT, 1))
    driver.run_plain(table_of(7, hyper_rows=[1]), hyper)
    assert given == [(1 << 40, 7, "float32"), *hyper[1], (1 << 41, 7, "bfloat16"), (1 << 42, 7, "float16")]


class PlayedEvent:
    """Is done when it is told so."""

    made: ClassVar[list[PlayedEvent]] = []

    def __init__(self, disable_timing: bool) -> None:
        assert disable_timing
        self.done, self.stream = False, None
        self.made.append(self)

    def record(self, stream: str) -> None:
        self.stream = stream


class PlayedBuffer:
    """Takes a copy when it is asked for, as a GPU does that has other work before."""

    def __init__(self) -> None:
        self.queued: list[tuple[slice, np.ndarray, str]] = []

    def set(self, array: Any, stream: Any) -> None:
        self.queued.append((array, stream))


STREAM = SimpleNamespace(ptr=7)


def test_what_a_copy_is_made_from_is_kept_until_it_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[PlayedEvent] = []
    monkeypatch.setattr(PlayedEvent, "made", events)
    cuda = SimpleNamespace(Event=PlayedEvent, get_current_stream=lambda: STREAM)
    monkeypatch.setattr(cupy_staging, "cupy", SimpleNamespace(cuda=cuda))
    monkeypatch.setattr(cupy_staging, "cupyx", SimpleNamespace(empty_pinned=np.empty))
    staging, buffer, alive = cupy_staging.Staging(), PlayedBuffer(), []
    array = np.zeros(4, np.int64)
    for step in range(3):
        array[:] = step
        staging.overwrite(buffer, array)
        pinned, stream = buffer.queued.pop()
        assert (stream, events[-1].stream) == (STREAM, STREAM)
        alive.append(weakref.ref(pinned))
        del pinned
    array[:] = -1
    assert [each().tolist() for each in alive] == [[step] * 4 for step in range(3)]
    events[0].done = events[2].done = True
    staging.overwrite(buffer, array)
    assert [each() is None for each in alive] == [True, False, False]
    events[1].done = True
    staging.overwrite(buffer, array)
    assert [each() is None for each in alive] == [True, True, True]
