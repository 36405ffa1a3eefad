"""The copy of a table on a device holds what the table and its header hold, and copies no more than it must.

1. Nothing is copied when nothing has changed; the header alone when any of its parts has; all of it when a tensor has
   moved or its hyper row is another. A change of NaN for NaN of the same bits is none. A new copy takes one copy.
2. After every step the parts on the device are the header's and the table's, each part 16-byte aligned and reaching
   into no other.
3. Each stream has a copy of its own. A header of another layout gets a new one.
4. A twin has the same layout and takes the same words, but no other memory is written. What a step reads
   of it is made once for each.

The device is played by NumPy arrays.
"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpuopt.kernels.drivers.device_table import DeviceTable
from gpuopt.kernels.formats import FORMATS
from gpuopt.kernels.rules import RULES
from gpuopt.kernels.table import ALIGNMENT, POINTERS, Table
from gpuopt.kernels.variant import Variant

ADAM = Variant(RULES["adam"], (*(FORMATS["fp32"],) * 4, None))
TENSORS = 5


class Device:
    """Takes copies, and counts the words of each copy over a buffer that is there."""

    def __init__(self) -> None:
        self.made = 0
        self.copied: list[int] = []

    def to_device(self, array: np.ndarray) -> np.ndarray:
        self.made += 1
        return array.copy()

    def overwrite(self, buffer: np.ndarray, array: np.ndarray) -> None:
        self.copied.append(len(array))
        buffer[: len(array)] = array

    def place(self, table: Table, header: list[np.ndarray], stream: int = 0) -> DeviceTable:
        copy = DeviceTable.of(table, header, stream, self.to_device, self.overwrite)
        assert_holds(copy, table, header)
        return copy


def assert_holds(copy: DeviceTable, table: Table, header: list[np.ndarray]) -> None:
    """Demands every part on the device, bit for bit."""
    for index, part in enumerate([*header, table.rows]):
        words = copy.part(index)
        assert (words.ctypes.data - copy.buffer.ctypes.data) % ALIGNMENT == 0
        assert words.view(np.uint8)[: part.nbytes].tobytes() == part.tobytes()
        assert words.nbytes < part.nbytes + ALIGNMENT
    assert len(copy.buffer) == copy.offsets[-1]
    assert copy.tile_words.ctypes.data % ALIGNMENT == copy.buffer.ctypes.data % ALIGNMENT
    assert np.array_equal(copy.tile_words.view(np.int32)[: table.tiles], table.tile_tensor)


def table_of(tensors: int = TENSORS) -> Table:
    addresses = np.arange(tensors * len(ADAM.slots)).reshape(tensors, -1) * 4096
    return Table(ADAM, 8, [17] * tensors, addresses.tolist(), [0] * tensors, device=0)


def header_of(seed: int = 0, rows: int = 2) -> list[np.ndarray]:
    """Parts of unlike dtypes and odd sizes."""
    rng = np.random.default_rng(seed)
    return [
        rng.integers(0, 99, 3),
        rng.standard_normal((rows, 7)).astype(np.float32),
        rng.standard_normal((3, 3)),
        rng.integers(0, 99, 0),
    ]


@pytest.fixture
def device() -> Device:
    return Device()


def test_nothing_is_copied_when_nothing_has_changed(device: Device) -> None:
    table, header = table_of(), header_of()
    header[1][0, 0] = np.nan
    first = device.place(table, header)
    for _ in range(3):
        assert device.place(table, [part.copy() for part in header]) is first
    table.move("grad", table.rows[:, -6].copy())
    table.move("grad", table.rows[:, -6].tolist())
    table.assign_hyper_rows([0] * TENSORS)
    device.place(table, header)
    assert device.copied == []
    assert device.made == 1


@pytest.mark.parametrize("part", range(3))
def test_the_header_alone_is_copied_when_it_has_changed(device: Device, part: int) -> None:
    table, header = table_of(), header_of()
    copy = device.place(table, header)
    header[part].flat[-1] += 1
    assert device.place(table, header) is copy
    assert device.copied == [copy.offsets[-2]]
    device.place(table, header)
    assert device.copied == [copy.offsets[-2]]


def test_a_zero_that_changes_its_sign_is_copied(device: Device) -> None:
    table, header = table_of(), header_of()
    header[1][0, 0] = 0.0
    device.place(table, header)
    header[1][0, 0] = -0.0
    device.place(table, header)
    assert len(device.copied) == 1


@pytest.mark.parametrize("moved", ["address", "hyper row"])
def test_all_is_copied_when_a_tensor_moves(device: Device, moved: str) -> None:
    table, header = table_of(), header_of()
    copy = device.place(table, header)
    if moved == "address":
        grads = table.rows[:, -6].copy()
        grads[3] += 16
        table.move("grad", grads)
    else:
        table.assign_hyper_rows(np.array([0, 0, 1, 0, 0]))
    device.place(table, header)
    assert device.copied == [len(copy.buffer)]
    device.place(table, header)
    assert device.copied == [len(copy.buffer)]


def test_each_stream_has_its_own_copy(device: Device) -> None:
    table = table_of()
    one, other = device.place(table, header_of(1), 1), device.place(table, header_of(2), 2)
    assert one is not other
    assert_holds(one, table, header_of(1))
    table.move("grad", table.rows[:, -6] + 16)
    device.place(table, header_of(1), 1)
    device.place(table, header_of(2), 2)
    assert device.copied == [len(one.buffer), len(other.buffer)]


def test_another_layout_is_another_copy(device: Device) -> None:
    table = table_of()
    one = device.place(table, header_of())
    other = device.place(table, header_of(rows=3))
    assert one is not other
    wide = header_of(rows=3)
    wide[1] = wide[1].view(np.int32)
    assert device.place(table, wide) is not other
    assert device.copied == []


def test_a_twin_has_memory_of_its_own(device: Device) -> None:
    table = table_of()
    copy = device.place(table, header_of(1))
    assert np.shares_memory(copy.placed(np.int32).rows, copy.buffer)  # before there is a twin, which has its own
    twin = copy.twin(np.zeros_like(copy.buffer))
    table.move("grad", table.rows[:, -6] + 32)
    twin.buffer[:] = twin.words(table, header_of(2))
    assert_holds(twin, table, header_of(2))
    assert np.shares_memory(twin.placed(np.int32).rows, twin.buffer)
    assert twin.placed(np.int32) is twin.placed(np.int32)
    assert device.copied == []
    device.place(table, header_of(1))
    assert device.copied == [len(copy.buffer)]


@settings(max_examples=40, deadline=None, derandomize=True, database=None)
@given(st.lists(st.sampled_from(["header", "address", "hyper row", "layout", "nothing"]), max_size=8))
def test_whatever_happens_the_copy_is_true(events: list[str]) -> None:
    device, table, rows = Device(), table_of(), 2
    for seed, event in enumerate(events):
        rows += event == "layout"
        if event == "address":
            table.move("param", table.rows[:, POINTERS] + 8 * seed)
        if event == "hyper row":
            table.assign_hyper_rows([seed % 2] * TENSORS)
        device.place(table, header_of(seed if event == "header" else 0, rows))
