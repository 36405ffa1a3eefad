"""The Triton driver's smaller kernels, compiled and run on the host from their PTX, as `test_ptx_step.py` does.

They hold what the interpreted ones hold in ``interpreted/test_triton_gradnorm.py`` and ``test_triton_schedule.py``:

1. Sums of squares are within ``NORM`` of the exact sum for every format, whatever the sizes and the alignment, and the
   same bits again; what is not finite shows wherever it is, in the sums of other parts too; more tiles than programs
   leave none out. Gradients are only read, each element of them once.
2. The end of the norm is within ``NORM`` of the host's; its factor is the host's for its norm, bit for bit.
3. Hyper rows have the bits of the host's for every rule, both compute dtypes and settings from everywhere; step counts
   advance by one, or by none where an infinity was found; the tensors then have the bits of the NumPy form.

Each for an H100; for an A100 and a B200 where that is few kernels. No thread touches what it was not given, and
the warps of a block meet in shared memory only with a barrier between.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from kit.host_gpu import HostGpu, host_gpu
from kit.schedules import assert_rows_of_the_host, assert_steps_by_rows_of_the_host
from kit.squares import BAD, assert_close, assert_ends, assert_parts, assert_shows, of_format

from gpuopt.bench.code.gpus import ARCHS
from gpuopt.kernels.drivers import triton as driver
from gpuopt.kernels.drivers import triton_norm
from gpuopt.kernels.rules import RULES, Rule
from gpuopt.kernels.variant import Variant
from gpuopt.verify.tensors import Tensors
from gpuopt.verify.variants import UNIFORM, epilogue_variants

TILE = driver.TILE
NUMELS = [0, 1, 127, 128, 129, TILE - 1, TILE, TILE + 1, 3 * TILE + 130]

each_format = pytest.mark.parametrize("name", UNIFORM)
each_rule = pytest.mark.parametrize("rule", RULES.values(), ids=RULES)


@pytest.fixture(params=ARCHS)
def gpu(request: pytest.FixtureRequest) -> Iterator[HostGpu]:
    with host_gpu(request.param) as gpu:
        yield gpu


@pytest.fixture
def h100() -> Iterator[HostGpu]:
    with host_gpu() as gpu:
        yield gpu


@each_format
@pytest.mark.parametrize("misaligned", [False, True, "grad"], ids=["aligned", "misaligned", "misaligned gradients"])
def test_sums_are_nearly_exact(name: str, misaligned: bool | str, gpu: HostGpu) -> None:
    assert_close(gpu.sum_squares, name, TILE, NUMELS, misaligned)
    for launched in gpu.launches:
        for buffer in launched.memory.buffers:
            if buffer.name.startswith("grad"):
                assert (launched.memory.counts(launched.memory.loads, buffer) == 1).all()


@each_format
@pytest.mark.parametrize("bad", BAD.values(), ids=BAD)
def test_what_is_not_finite_shows(name: str, bad: float, h100: HostGpu) -> None:
    assert_shows(h100.sum_squares, name, TILE, [0, 1, TILE, TILE + 129], bad)


@each_format
def test_parts(name: str, h100: HostGpu) -> None:
    assert_parts(h100.sum_squares, name, TILE, [5, TILE + 129, 2 * TILE, 0, 1])
    assert len(h100.compilations) == 1


@pytest.mark.parametrize("programs", [1, 2, 3])
def test_programs_share_all_tiles(programs: int, h100: HostGpu, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(triton_norm, "PROGRAMS", programs)
    assert_close(h100.sum_squares, "fp32", TILE, [TILE, 5, 2 * TILE + 300, 128, 1], misaligned=False)
    tensors = Tensors(of_format("fp32"), [7 * TILE], ordinary_share=1.0)
    assert len(h100.sum_squares(tensors.table(TILE))) <= programs


def test_the_end_of_the_norm(gpu: HostGpu) -> None:
    assert_ends(triton_norm.clip)


@each_rule
@pytest.mark.parametrize("format", ["fp32", "fp64"])
def test_hyper_rows_are_those_of_the_host(rule: Rule, format: str, gpu: HostGpu) -> None:
    assert_rows_of_the_host(driver.place, driver.step, rule, format, sourced=0.5)


@pytest.mark.parametrize("variant", epilogue_variants(), ids=str)
def test_tensors_are_stepped_by_the_rows_of_the_host(variant: Variant, h100: HostGpu) -> None:
    assert_steps_by_rows_of_the_host(driver.run, variant, TILE, [1, 130, TILE, 0, TILE + 300])
