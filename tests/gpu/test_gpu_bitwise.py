"""On a GPU the Triton and the CuPy driver give the bits of the NumPy driver, on any stream, in one launch.

The contract of ``test_bitwise.py`` for compiled device code: every variant, inputs over the whole range of each
format, several steps, several hyper rows in one launch, tensors around each tile, aligned or not, alone or many, and
nothing written outside them. Beyond it: the launch goes to the given stream, behind the work that is queued there,
and the host waits for none of it; a step is one kernel and at most one small copy; tensors may have more than 2**31
elements; gradients may move and hyper rows may come and go between steps.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pytest
from kit.device import MEMORIES, DeviceTensors, Memory, kernels_and_copies
from kit.same import assert_same_bits

from gpuopt.kernels.drivers import DRIVERS, Driver
from gpuopt.kernels.drivers import numpy as oracle
from gpuopt.kernels.formats import FORMATS
from gpuopt.kernels.rules import RULES
from gpuopt.kernels.table import POINTERS, Table
from gpuopt.kernels.variant import Variant
from gpuopt.verify.drawing import Array
from gpuopt.verify.tensors import Tensors
from gpuopt.verify.variants import edge_hyper_rows, hyper_rows, variants


@dataclass
class Backend:
    """A driver and the memory that its users have."""

    name: str
    driver: Driver
    memory: Memory

    @property
    def numels(self) -> list[int]:
        """From no element to several tiles."""
        tile = self.driver.TILE
        return [0, 1, 7, 8, 127, 128, 129, tile - 1, tile, tile + 1, 3 * tile + 5, 0]


@pytest.fixture(params=MEMORIES)
def backend(request: pytest.FixtureRequest) -> Iterator[Backend]:
    name = request.param
    reason = DRIVERS[name].unavailable()
    if reason:
        pytest.skip(reason)
    memory = MEMORIES[name]()
    yield Backend(name, DRIVERS[name].load(), memory)
    memory.synchronize()


each_variant = pytest.mark.parametrize("variant", variants(), ids=str)

ADAM = Variant(RULES["adam"], (*(FORMATS[name] for name in ("bf16", "bf16", "fp32", "fp32")), None))
SGD = Variant(RULES["sgd"], (FORMATS["bf16"], FORMATS["bf16"], None))


def alternate(tensors: Tensors, rows: int = 2) -> Array:
    """A hyper row for each tensor, in turn."""
    return np.arange(len(tensors.numels)) % rows


def step_oracle(tensors: Tensors, rows: Sequence[int] | Array, hyper: Array) -> None:
    oracle.run(tensors.table(oracle.TILE, rows), hyper)


@each_variant
@pytest.mark.parametrize("misaligned", [False, True], ids=["aligned", "misaligned"])
def test_steps(backend: Backend, variant: Variant, misaligned: bool) -> None:
    expected = Tensors(variant, backend.numels, seed=1, misaligned=misaligned)
    rows = alternate(expected)
    device = DeviceTensors(expected, backend.memory)
    table = device.table(backend.driver.TILE, rows)
    for step in range(3):
        expected.draw(seed=step)
        device.refresh("grad")
        hyper = variant.hyper_array(hyper_rows(variant, step))
        backend.driver.run(table, hyper)
        step_oracle(expected, rows, hyper)
        assert_same_bits(device.download(), expected, f"{backend.name}, step {step}:")


@each_variant
def test_tensors_one_by_one(backend: Backend, variant: Variant) -> None:
    expected = Tensors(variant, backend.numels, seed=2)
    rows = alternate(expected)
    device = DeviceTensors(expected, backend.memory)
    hyper = variant.hyper_array(hyper_rows(variant, 1))
    for table in device.single_tables(backend.driver.TILE, list(rows)):
        backend.driver.run(table, hyper)
    step_oracle(expected, rows, hyper)
    assert_same_bits(device.download(), expected, f"{backend.name}:")


@each_variant
def test_hyper_at_its_edges(backend: Backend, variant: Variant) -> None:
    scalars = edge_hyper_rows(variant)
    expected = Tensors(variant, [backend.driver.TILE + 3] * len(scalars), seed=3)
    rows = alternate(expected, len(scalars))
    device = DeviceTensors(expected, backend.memory)
    hyper = variant.hyper_array(scalars)
    backend.driver.run(device.table(backend.driver.TILE, rows), hyper)
    step_oracle(expected, rows, hyper)
    assert_same_bits(device.download(), expected, f"{backend.name}:")


@pytest.mark.parametrize("numel", [(1 << 20) - 1, 1 << 20, (1 << 20) + 3])
@pytest.mark.parametrize("misaligned", [False, True], ids=["aligned", "misaligned"])
def test_one_large_tensor(backend: Backend, numel: int, misaligned: bool) -> None:
    """The sizes are those between which the CuPy driver chooses its kernel."""
    expected = Tensors(ADAM, [numel], seed=4, misaligned=misaligned)
    device = DeviceTensors(expected, backend.memory)
    hyper = ADAM.hyper_array(hyper_rows(ADAM, 1))
    backend.driver.run(device.table(backend.driver.TILE, [1]), hyper)
    step_oracle(expected, [1], hyper)
    assert_same_bits(device.download(), expected, f"{backend.name}:")


@pytest.mark.parametrize("numels", [[], [0], [0, 0, 0]], ids=str)
def test_nothing_to_do(backend: Backend, numels: list[int]) -> None:
    expected = Tensors(ADAM, numels)
    device = DeviceTensors(expected, backend.memory)
    backend.driver.run(device.table(backend.driver.TILE), ADAM.hyper_array(hyper_rows(ADAM, 1)))
    assert_same_bits(device.download(), expected, f"{backend.name}:")


def test_gradients_move_between_steps(backend: Backend) -> None:
    expected = Tensors(ADAM, backend.numels, seed=5)
    rows = alternate(expected)
    device = DeviceTensors(expected, backend.memory)
    table = device.table(backend.driver.TILE, rows)
    for step in range(3):
        if step:
            expected.draw(seed=step)
            table.move("grad", device.reallocate("grad"))
        hyper = ADAM.hyper_array(hyper_rows(ADAM, step))
        backend.driver.run(table, hyper)
        step_oracle(expected, rows, hyper)
        assert_same_bits(device.download(), expected, f"{backend.name}, step {step}:")


def test_hyper_rows_come_and_go(backend: Backend) -> None:
    expected = Tensors(ADAM, backend.numels, seed=6)
    device = DeviceTensors(expected, backend.memory)
    table = device.table(backend.driver.TILE)
    for step, count in enumerate([1, 2, 5, 5, 1]):
        rows = alternate(expected, count)
        table.assign_hyper_rows(rows)
        hyper = ADAM.hyper_array([hyper_rows(ADAM, step + k)[k % 2] for k in range(count)])
        backend.driver.run(table, hyper)
        step_oracle(expected, rows, hyper)
        assert_same_bits(device.download(), expected, f"{backend.name}, step {step}:")


@pytest.mark.parametrize("single", [False, True], ids=["table", "single tensor"])
def test_the_launch_waits_on_its_stream_and_the_host_does_not(backend: Backend, single: bool) -> None:
    expected = Tensors(ADAM, [1000] if single else backend.numels, seed=7)
    rows = alternate(expected)
    memory, device = backend.memory, DeviceTensors(expected, backend.memory)
    table = device.table(backend.driver.TILE, rows)
    stream = memory.stream()
    device.refresh("grad")
    # The default stream has its turn first. The second step on a stream is the first that copies over what is there,
    # from pinned memory: so everything is compiled and allocated when it matters.
    for step, handle in enumerate([0, memory.handle(stream), memory.handle(stream)]):
        hyper = ADAM.hyper_array(hyper_rows(ADAM, step))
        backend.driver.run(table, hyper, handle)
        memory.synchronize()
        step_oracle(expected, rows, hyper)
    with memory.on(stream):
        memory.spin(1000)
    assert_same_bits(device.download(), expected, f"{backend.name}, warming up:")

    expected.draw(seed=8)
    hyper = ADAM.hyper_array(hyper_rows(ADAM, 3))
    device.refresh("grad", stream)  # behind a slow kernel: a launch on any other stream finds the old gradients
    backend.driver.run(table, hyper, memory.handle(stream))
    hyper_then = hyper.copy()
    hyper[:] = np.nan  # the caller may use it again at once
    pending = memory.busy(stream)
    step_oracle(expected, rows, hyper_then)
    assert_same_bits(device.download(), expected, f"{backend.name}, on a stream:")
    assert pending, "the host waited for the device"


def test_many_gradients_that_have_moved_make_no_one_wait(backend: Backend) -> None:
    """The table of so many is more than CUDA stages of pageable memory before it returns."""
    expected = Tensors(SGD, [3] * 3000, seed=12)
    memory, device = backend.memory, DeviceTensors(expected, backend.memory)
    table = device.table(backend.driver.TILE)
    assert table.rows.nbytes > 2 << 16
    stream = memory.stream()
    addresses = table.rows[:, POINTERS + SGD.slots.index("grad")].copy()
    for step in range(3):
        hyper = SGD.hyper_array(hyper_rows(SGD, step)[:1])
        table.move("grad", np.roll(addresses, step))
        if step == 2:  # the step before has allocated everything
            memory.synchronize()
            with memory.on(stream):
                memory.spin()
        backend.driver.run(table, hyper, memory.handle(stream))
        pending = memory.busy(stream)
        moved = Table(SGD, oracle.TILE, expected.numels, expected.addresses())
        at = POINTERS + SGD.slots.index("grad")
        moved.move("grad", np.roll(moved.rows[:, at], step))
        oracle.run(moved, hyper)
    assert pending, "the host waited for the device"
    assert_same_bits(device.download(), expected, f"{backend.name}:")


@pytest.mark.parametrize("numels", [[5], [5, 70_000, 1, 4096], [1 << 21]], ids=str)
def test_a_step_is_one_launch(backend: Backend, numels: list[int]) -> None:
    expected = Tensors(ADAM, numels, seed=9)
    device = DeviceTensors(expected, backend.memory)
    table = device.table(backend.driver.TILE, alternate(expected))

    def step(number: int) -> None:
        backend.driver.run(table, ADAM.hyper_array(hyper_rows(ADAM, number)))

    step(0)
    backend.memory.spin(1000)
    backend.memory.synchronize()
    kernels_and_copies(lambda: backend.memory.spin(1000))  # the first profile of a process may miss what runs
    seen, _ = kernels_and_copies(lambda: backend.memory.spin(1000))
    if not seen:
        pytest.skip("PyTorch's profiler sees no kernel here")
    assert len(seen) == 1, seen

    kernels, copies = kernels_and_copies(lambda: step(1))
    assert len(kernels) == 1, kernels
    assert len(copies) <= 1, copies
    assert all("HtoD" in name for name in copies), copies

    table.move("grad", device.reallocate("grad"))
    kernels, copies = kernels_and_copies(lambda: step(2))
    assert len(kernels) == 1, kernels
    assert len(copies) <= 1, copies


def test_a_new_hyper_compiles_nothing(backend: Backend) -> None:
    """Not even where a scalar is 1 or a size is divisible by 16, which Triton would specialise on."""
    if backend.name != "triton":
        pytest.skip("CuPy's kernels are kept by their source, which has no number of a step in it")
    from gpuopt.kernels.drivers.triton import step_kernel

    def binaries() -> int:
        return sum(len(caches[0]) for caches in step_kernel.device_caches.values())

    def step(numels: list[int], scalars: list[list[float]]) -> None:
        device = DeviceTensors(Tensors(ADAM, numels), backend.memory)
        backend.driver.run(device.table(backend.driver.TILE), ADAM.hyper_array(scalars))
        backend.memory.synchronize()

    step([5], hyper_rows(ADAM, 1))
    before = binaries()
    assert before > 0
    for scalars in (edge_hyper_rows(ADAM), hyper_rows(ADAM, 2)[:1]):
        for numels in ([1], [16], [5, 16, 4096], [70_000] * 20):
            step(numels, scalars)
    assert binaries() == before


@pytest.mark.parametrize("misaligned", [False, True], ids=["aligned", "misaligned"])
def test_more_than_2_to_the_31_elements(backend: Backend, misaligned: bool) -> None:
    """Windows at the ends and where offsets outgrow 31 and 32 bits, in elements and in bytes; zeros elsewhere."""
    memory, itemsize, late = backend.memory, 2, 2 if misaligned else 0
    numel = (1 << 31) + 4999
    size = numel * itemsize + late
    if memory.free() < 2 * size + (1 << 30):
        pytest.skip(f"{2 * size + (1 << 30):,} bytes of GPU memory are not free")
    windows = [(0, 3000), ((1 << 30) - 500, 1000), ((1 << 31) - 1500, 3000), (numel - 2000, 2000)]
    expected = Tensors(SGD, [count for _, count in windows], seed=10, ordinary_share=1.0)
    slots = {slot: memory.zeros(size) for slot in ("param", "grad")}

    def window(slot: str, index: int):
        start, count = windows[index]
        return slots[slot][late + start * itemsize : late + (start + count) * itemsize]

    for slot in slots:
        for index in range(len(windows)):
            memory.assign(window(slot, index), memory.upload(expected.stored(index, slot).view(np.uint8)))
    addresses = [memory.address(buffer) + late for buffer in slots.values()]
    addresses += [0] * (len(SGD.slots) - len(slots))
    memory.synchronize()

    hyper = SGD.hyper_array(hyper_rows(SGD, 1)[:1])
    backend.driver.run(Table(SGD, backend.driver.TILE, [numel], [addresses], device=memory.index), hyper)
    memory.synchronize()

    got = expected.copy()
    for slot in slots:
        for index in range(len(windows)):
            got.stored(index, slot).view(np.uint8)[:] = memory.download(window(slot, index))
    step_oracle(expected, [0] * len(windows), hyper)
    assert_same_bits(got, expected, f"{backend.name}:")

    nothing = memory.upload(np.zeros(6000, np.uint8))
    for slot, buffer in slots.items():
        for index, (_, count) in enumerate(windows):
            memory.assign(window(slot, index), nothing[: count * itemsize])
        chunk = 1 << 28
        for start in range(0, size, chunk):
            assert not bool(buffer[start : start + chunk].any()), f"{slot} was written between the windows"


def test_another_device_than_the_current_one(backend: Backend) -> None:
    try:
        memory = MEMORIES[backend.name](1)
        memory.zeros(1)
    except Exception as error:  # noqa: BLE001 (each library has its own)
        pytest.skip(f"there is no second CUDA device ({type(error).__name__})")
    expected = Tensors(ADAM, backend.numels, seed=11)
    device = DeviceTensors(expected, memory)
    hyper = ADAM.hyper_array(hyper_rows(ADAM, 1))
    backend.driver.run(device.table(backend.driver.TILE), hyper)
    step_oracle(expected, [0] * len(expected.numels), hyper)
    assert_same_bits(device.download(), expected, f"{backend.name}:")
