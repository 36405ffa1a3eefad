"""The harness of the benchmark tells the truth. Clocks, GPUs and contenders are played, and their costs known.

- A time is that of the timed steps alone, and ratios of medians are those of the costs. Contenders take turns, with
  steps at the beginning that are not timed, for as long whether they are fast or slow; what prepares a step is outside
  of its time.
- On a GPU the flush of the cache and the head start are outside the time too, and samples that were taken while the
  GPU was held back are thrown away and counted. A step that the GPU had to wait for has no time on it.
- A contender that raises is out, and the others go on.
- Memory and first steps are measured in a process of their own, from its first step on; launches are those made.
- Nothing is set up that does not fit into memory.
"""

from __future__ import annotations

import os
from types import SimpleNamespace

import numpy as np
import pytest

from gpuopt.bench import alone, launches, memory, timing
from gpuopt.bench.contenders import contenders
from gpuopt.bench.contenders.contender import Contender, Entrant
from gpuopt.bench.meters import LEAST_HEAD_START, CudaMeter, HostMeter
from gpuopt.bench.nvml import Condition, watch_of
from gpuopt.bench.problem import Problem
from gpuopt.bench.timing import Timing, measure
from gpuopt.bench.workloads import DECISIVE, TAILS, Workload
from gpuopt.machine import spread


class FakeTime:
    """A clock that moves only when somebody works or sleeps."""

    def __init__(self):
        self.now = 0.0
        self.log = []

    def clock(self):
        return self.now

    def work(self, name, cost):
        def call(*_):
            self.log.append(name)
            self.now += cost

        return call

    def entrant(self, name, cost, prepare=0.0):
        return Entrant(self.work(name, cost), dict, self.work(f"prepare {name}", prepare))

    def measure(self, *entrants, turns=4, meter=None, **options):
        timings = [Timing() for _ in entrants]
        meter = meter or HostMeter(self.clock)
        options = {"seconds": 1e9, "rest": 0.0, **options}
        pairs = list(zip(entrants, timings, strict=True))
        measure(pairs, meter, turns, clock=self.clock, sleep=self.work("rest", options["rest"]), **options)
        return timings

    def steps(self):
        return "".join(name for name in self.log if len(name) == 1)


# taking turns


def test_times_and_ratios_are_those_of_the_steps():
    fake = FakeTime()
    one, other = fake.measure(fake.entrant("a", 2.0, prepare=11.0), fake.entrant("b", 7.0), rest=5.0)
    assert (len(one.step), len(other.step)) == (8, 8)
    assert spread(one.step)["median"] == pytest.approx(2.0)
    assert spread(other.step)["median"] / spread(one.step)["median"] == pytest.approx(3.5)
    assert one.device == []
    assert one.discarded == 0


def test_contenders_take_turns_with_one_step_each_that_is_not_timed():
    fake = FakeTime()
    fake.measure(fake.entrant("a", 1), fake.entrant("b", 1), turns=2, steps_per_turn=3)
    assert fake.steps() == "aaaabbbb" * 2


def test_fast_contenders_have_as_long_to_warm_up_as_slow_ones():
    fake = FakeTime()
    fast, slow = fake.measure(fake.entrant("a", 0.25), fake.entrant("b", 8.0), turns=1, steps_per_turn=2, warm=1.0)
    assert fake.steps() == "aaaa" + "aa" + "b" + "bb"
    assert (fast.step, slow.step) == ([0.25] * 2, [8.0] * 2)


def test_every_step_is_prepared_and_every_turn_begins_with_a_rest():
    fake = FakeTime()
    fake.measure(fake.entrant("a", 1), turns=1)
    assert fake.log == ["rest", *["prepare a", "a"] * 3]


def test_slow_machine_ends_rounds_early_but_not_at_once():
    fake = FakeTime()
    (found,) = fake.measure(fake.entrant("a", 100.0), turns=50, steps_per_turn=1, seconds=1.0)
    assert len(found.step) == timing.FEWEST_TURNS


def test_contender_that_raises_is_out_and_the_others_go_on():
    fake = FakeTime()

    def breaks():
        if fake.now > 5:
            raise RuntimeError("no more\nof this")
        fake.now += 1

    broken, good = fake.measure(Entrant(breaks, dict), fake.entrant("a", 1.0))
    assert broken.problem == "RuntimeError: no more"
    assert broken == Timing(problem="RuntimeError: no more")
    assert (good.problem, len(good.step)) == (None, 8)


def test_ctrl_c_keeps_the_samples_taken():
    fake = FakeTime()

    def interrupts():
        if fake.now > 10:
            raise KeyboardInterrupt
        fake.now += 1

    entrant, seen = Entrant(interrupts, dict), Timing()
    with pytest.raises(KeyboardInterrupt):
        measure([(entrant, seen)], HostMeter(fake.clock), 50, seconds=1e9, clock=fake.clock, sleep=lambda _: None)
    assert len(seen.step) > 3


# the GPU, played


class FakeCuda:
    """``torch.cuda`` of a GPU that does what is queued when somebody waits."""

    def __init__(self, fake):
        self.fake = fake
        self.slept = []
        self.behind = False
        self.late = 0.0

    def Event(self, enable_timing):  # noqa: N802 (torch's name)
        assert enable_timing
        event = SimpleNamespace(at=None)
        event.record = lambda: setattr(event, "at", self.fake.now)
        event.synchronize = lambda: self.fake.log.append("wait")
        event.query = lambda: self.fake.log.append("query") or self.behind
        event.elapsed_time = lambda end: (end.at - event.at) * 1e3
        return event

    def synchronize(self):
        self.fake.log.append("wait")
        self.fake.now += self.late

    def _sleep(self, cycles):
        self.fake.log.append("head start")
        self.slept.append(cycles)
        self.fake.now += 50.0


def cuda_meter(fake, throttled=lambda: False):
    cuda = FakeCuda(fake)
    meter = CudaMeter(cuda, fake.work("flush", 100.0), lambda: Condition(throttled(), 1980.0), fake.clock)
    return cuda, meter


def test_flush_and_head_start_are_outside_both_times():
    fake = FakeTime()
    _, meter = cuda_meter(fake)
    sample = meter.sample(fake.entrant("a", 3.0, prepare=20.0))
    assert (sample.step, sample.device, sample.call) == (pytest.approx(3.0),) * 3
    assert sample.conditions == (Condition(False, 1980.0),) * 2
    cold = ["prepare a", "flush"]
    assert fake.log == [*cold, "wait", "a", "wait", *cold, "head start", "a", "query", "wait"]


def test_the_hosts_part_does_not_wait_for_the_step():
    fake = FakeTime()
    cuda, meter = cuda_meter(fake)
    cuda.late = 4.0
    sample = meter.sample(fake.entrant("a", 3.0))
    assert (sample.step, sample.call) == (pytest.approx(7.0), pytest.approx(3.0))


def test_ratios_on_the_gpu_are_those_of_the_costs():
    fake = FakeTime()
    _, meter = cuda_meter(fake)
    one, other = fake.measure(fake.entrant("a", 2.0), fake.entrant("b", 3.0), meter=meter)
    assert spread(other.device)["median"] / spread(one.device)["median"] == pytest.approx(1.5)
    assert len(one.device) == len(one.step) == 8


def test_head_start_grows_with_the_time_of_the_host():
    fake = FakeTime()
    cuda, meter = cuda_meter(fake)
    meter.sample(fake.entrant("a", 1e-6))
    meter.sample(fake.entrant("a", 0.01))
    assert cuda.slept == [LEAST_HEAD_START, pytest.approx(0.015 * 2e9, rel=1e-6)]


def test_throttled_samples_are_discarded_and_counted():
    # Before and after each of six samples.
    held_back = iter([False, False, True, True, False, True, True, False, False, False, False, False])
    fake = FakeTime()
    _, meter = cuda_meter(fake, lambda: next(held_back))
    (found,) = fake.measure(fake.entrant("a", 2.0), meter=meter, turns=3)
    assert found.discarded == 3
    assert len(found.step) == len(found.device) == len(found.call) == 3
    assert len(found.conditions) == 12


def test_step_that_the_gpu_waits_for_has_no_time_on_it():
    fake = FakeTime()
    cuda, meter = cuda_meter(fake)
    cuda.behind = True
    (found,) = fake.measure(fake.entrant("a", 2.0), meter=meter, turns=3)
    assert (found.step, found.device, found.not_queued) == ([pytest.approx(2.0)] * 6, [], 6)


def test_unknown_throttling_is_said_to_be_unknown():
    fake = FakeTime()
    _, meter = cuda_meter(fake, lambda: None)
    (found,) = fake.measure(fake.entrant("a", 2.0), meter=meter, turns=1)
    assert found.unwatched == 2
    assert len(found.step) == 2


def test_throttled_samples_are_counted_among_those_of_which_it_is_not_known():
    fake, held_back = FakeTime(), iter([None, True, True, True, None, False])
    _, meter = cuda_meter(fake, lambda: next(held_back))
    (found,) = fake.measure(fake.entrant("a", 2.0), meter=meter, turns=1, steps_per_turn=3)
    assert (found.discarded, found.unwatched, len(found.step)) == (2, 1, 1)


def fake_library(told=0, code=0):
    """NVIDIA's management library, which tells one set of reasons."""
    library = SimpleNamespace(asked=None)

    def handle(uuid, device):
        library.asked = uuid
        return 0

    def reasons(device, reasons):
        reasons._obj.value = told
        return code

    library.nvmlInit_v2 = lambda: 0
    library.nvmlDeviceGetHandleByUUID = handle

    def clock(device, which, clock):
        clock._obj.value = {1: 1980, 2: 2619}[which]
        return code

    def power(device, milliwatts):
        milliwatts._obj.value = 612_500
        return code

    library.nvmlDeviceGetCurrentClocksThrottleReasons = reasons
    library.nvmlDeviceGetClockInfo, library.nvmlDeviceGetPowerUsage = clock, power
    return library


@pytest.mark.parametrize(
    ("reasons", "held_back"),
    [(0x0, False), (0x1, False), (0x2, False), (0x100, False), (0x4, True), (0x8, True), (0x41, True), (0x80, True)],
)
def test_gpu_that_idles_or_has_chosen_clocks_is_not_throttled(reasons, held_back):
    library = fake_library(reasons)
    assert watch_of(library, "GPU-1")() == Condition(held_back, 1980, 2619, 612.5)
    assert library.asked == b"GPU-1"


def test_condition_is_unknown_where_nobody_tells():
    assert watch_of(None, "GPU-1")() == Condition()
    assert watch_of(fake_library(code=3), "GPU-1")() == Condition()
    library = fake_library()
    del library.nvmlDeviceGetClockInfo
    assert watch_of(library, "GPU-1")() == Condition(throttled=False, power_w=612.5)


# launches


def events(*names, kind="CUDA"):
    return [SimpleNamespace(name=name, device_type=SimpleNamespace(name=kind)) for name in names]


def test_kernels_are_told_from_copies_and_marks():
    seen = events("Memcpy HtoD", "step_kernel", "Memset (Device)", "Optimizer.step#Adam.step", "norm_kernel")
    kernels, copies = launches.on_device([*events("aten::add", "step_kernel", kind="CPU"), *seen])
    assert kernels == ["step_kernel", "norm_kernel"]
    assert copies == ["Memcpy HtoD", "Memset (Device)"]
    assert launches.on_device(events("Optimizer.step#Adam.step")) == ([], [])


@pytest.mark.parametrize(("tail", "calls"), [((), 1), (TAILS[1], 2)])
def test_calls_of_the_driver_are_counted_as_they_are_made(tail, calls):
    problem = Problem(Workload("", "AdamW", "1000x64", tail=tail), "cpu")
    (contender,) = (each for each in contenders("cpu") if each.name == "gpuopt numpy")
    entrant = contender.set_up(problem)
    entrant.step()
    before = dict(vars(entrant.driver))
    assert launches.count(entrant, "cpu") == calls
    assert dict(vars(entrant.driver)) == before


def test_launches_of_others_are_not_known_on_a_cpu():
    assert launches.count(Entrant(lambda: None, dict), "cpu") is None


# a process of its own


def test_first_step_is_compared_with_usual_ones_and_memory_with_before():
    fake = FakeTime()
    costs, watched = iter([10.0, 2.0, 3.0, 2.0, 1.0]), []

    def peak(step):
        watched.append(step)
        step()
        return 1234

    def step():
        fake.now += next(costs)

    entrant = Entrant(step, dict, fake.work("prepare", 50.0))
    found = alone.observe(entrant, lambda: None, peak, fake.clock)
    assert found == alone.Alone(1234, 8.0)
    assert len(watched) == 1


def test_memory_of_a_step_is_what_it_allocates():
    size = 64 << 20

    def step():
        np.ones(size, np.uint8).sum()

    found = alone._on_host(step)
    assert found is not None
    assert size * 0.9 < found < size * 1.5
    assert alone._on_host(lambda: None) < size / 8


def test_process_of_its_own_measures_a_contender():
    found = alone.alone(Workload("", "Adam", "one-20"), "cpu", "torch foreach")
    assert found.why is None
    assert found.extra_memory > 3 << 20  # a temporary of the size of the parameter, 4 MiB
    assert found.compile >= 0


def test_process_that_dies_or_raises_or_hangs_is_said_to(monkeypatch):
    workload = Workload("", "Adam", "one-10")
    assert alone.alone(workload, "cpu", "nobody").why.startswith("ValueError")
    assert alone.alone(workload, "cpu", "torch fused", patience=0.0).why == "it took longer than 0 s"
    monkeypatch.setattr(alone, "_answer", os.abort)  # which takes no arguments
    assert alone.alone(workload, "cpu", "torch fused").why == "its process ended with 1"


# what fits


def played(**settings):
    return Contender("x", "cpu", lambda problem: Entrant(lambda: None, dict), **settings)


@pytest.mark.parametrize(
    ("workload", "temporaries", "per_element"),
    [
        (Workload("", "Adam", "one-20m"), 0.0, 12),
        (Workload("", "Adam", "one-20m"), 3.0, 24),
        (Workload("", "AdamW", "one-20m", "bf16"), 0.0, 6),
        (Workload("", "AdamW", "one-20m", "bf16-fp32-state"), 0.0, 10),
        (Workload("", "AdamW", "one-20m", "split24"), 1.0, 14),
        (Workload("", "AdamW", "one-20m", tail=TAILS[0]), 0.0, 20),
        (Workload("", "Adam", "one-20m", new_grads=True), 0.0, 16),
    ],
)
def test_memory_that_a_contender_needs(workload, temporaries, per_element):
    assert memory.needed_bytes(workload, played(temporaries=temporaries)) == per_element * 20_000_000


GPU_BYTES = 81_559 << 20
"""Of an H100 with 80 GB."""


def test_what_decides_fits_into_80_gb_beside_each_other():
    """With a tenth left to others, a context, and what is read between steps."""
    compared = ["gpuopt cupy", "gpuopt triton", "torch fused", "torch foreach"]
    found = {contender.name: contender for contender in contenders("cuda")}
    for workload in DECISIVE:
        needed = sum(memory.needed_bytes(workload, found[name]) for name in compared)
        needed += memory.shared_bytes(workload) + (1 << 28) + (1 << 30)
        assert needed < (1 - memory.RESERVE) * GPU_BYTES, workload.key


def test_memory_that_there_is_leaves_some_to_others(monkeypatch, tmp_path):
    meminfo, use = tmp_path / "meminfo", tmp_path / "current"
    meminfo.write_text("MemTotal: 9 kB\nMemAvailable:  8000000 kB\n")
    monkeypatch.setattr(memory, "MEMINFO", meminfo)
    monkeypatch.setattr(memory, "CGROUP_USE", use)
    monkeypatch.setattr(memory, "memory", lambda: 10_000_000_000)
    assert memory.available("cpu") == 8_192_000_000 - 1_000_000_000
    use.write_text("6000000000\n")
    assert memory.available("cpu") == 3_000_000_000
    use.write_text("9900000000\n")
    assert memory.available("cpu") == 0
    monkeypatch.setattr(memory, "memory", lambda: None)
    assert memory.available("cpu") is None
