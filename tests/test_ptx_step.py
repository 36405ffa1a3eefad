"""Compiled kernels of a step, run on the host from their PTX, give the oracle's bits.

For every rule with every set of its optional slots, in every set of formats, with averages, copies and zeroed
gradients:

1. The Triton driver's kernel, compiled by the driver's own launch as on an H100, gives the bits of the NumPy form in
   every slot: tensors of every size around the tile and the width of the masked path, aligned or not, empty ones among
   them; several hyper rows in one launch; hyper at its edges; signals in every combination and at their edges; inputs
   over the whole range of each format, NaN, infinities and subnormals included.
2. So do both of CuPy's kernels as its driver takes them, from what NVRTC makes of the source that CuPy writes: one that
   walks a table, and one for tensors one by one. Kernels for an A100 and a B200 do so for few variants that stand for
   all.
3. No thread touches memory that it was not given, writes what is only to be read, or misses the alignment of an access;
   no product is fused with a sum. Where an infinity was found, nothing is written but zeros to gradients that are to be
   zeroed.
4. What is moved is what `Variant.bytes_moved` says: each entry of each plane that is read is loaded once, each of those
   that are written stored once, and nothing else is stored. A scale, which threads share, is loaded by each that needs
   it, and stored once too. Besides, a tile loads its part of the table.

Triton's interpreter runs what the source says; this runs what the compiler makes of it. What ptxas makes of that is
looked at in ``test_compiled_triton.py``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from kit import ptx
from kit.given import assert_untouched
from kit.host_gpu import host_cupy, host_gpu, slot_of, tensors_of
from kit.patterns import assert_loads, assert_stores

from gpuopt.kernels.drivers import cupy as cupy_driver
from gpuopt.kernels.drivers import triton as driver
from gpuopt.kernels.drivers.cuda_source import MOST_ELEMENTS
from gpuopt.kernels.epilogue import COPY
from gpuopt.kernels.formats import FORMATS, Plane
from gpuopt.kernels.signals import Signals
from gpuopt.kernels.table import ALIGNMENT, NUMEL, POINTERS, Table
from gpuopt.kernels.variant import Variant
from gpuopt.verify.cases import cases
from gpuopt.verify.drawing import Array
from gpuopt.verify.given import COMBINATIONS, EDGES, FOUND, SIGNALLED
from gpuopt.verify.proof import prove
from gpuopt.verify.quick import fewest
from gpuopt.verify.tensors import Tensors
from gpuopt.verify.variants import hyper_rows, variants

VARIANTS = variants()
FEW = [VARIANTS[index] for index in fewest(VARIANTS)]

each_variant = pytest.mark.parametrize("variant", VARIANTS, ids=str)

Moves = Callable[[Table, Array], ptx.Memory]
RecordProperty = Callable[[str, Any], None]


def assert_proved(name: str, variant: Variant, tile: int, *, one_by_one: bool = False, signals: bool = False) -> None:
    """Demands the oracle's bits, and that nothing else is touched, of the first step of the cases of `verify`.

    Args:
        name: The driver.
        variant: What it runs.
        tile: Its tile.
        one_by_one: Whether the cases are among them in which each tensor has a launch of its own.
        signals: Whether those are with signals; of values at their edges for few variants, since all of a rule's and
            format's kernels take signals by the same code.
    """
    wanted = [*COMBINATIONS, *(EDGES if variant in FEW else [])] if signals else [{}]
    chosen = [
        replace(case, hypers=case.hypers[:1])
        for case in cases(variant, tile)
        if case.signals in wanted and (one_by_one or not case.one_by_one)
    ]
    fault = prove(name, variant, chosen, seed=0).fault
    assert fault is None, f"{fault.case}: {fault.problem or fault.difference}"


def plane_of(buffer: ptx.Buffer, variant: Variant) -> Plane:
    """What is in one of the buffers of `tensors_of`."""
    return variant.planes[buffer.name.partition(" ")[0]][1]


def assert_moved_once(memory: ptx.Memory, table: Table) -> None:
    """Demands that each entry that is read was loaded once, each that is written stored once, and no more stored.

    A scale may be loaded more often, by threads that share it, and counts once.
    """
    variant, moved, stored = table.variant, 0, 0
    for buffer in tensors_of(table):
        slot = slot_of(buffer.name)
        loads, stores = (memory.counts(accesses, buffer) for accesses in (memory.loads, memory.stores))
        if plane_of(buffer, variant).block > 1:
            loads = np.minimum(loads, 1)
        assert (loads == (slot != COPY)).all(), buffer.name
        assert (stores == (slot in variant.written)).all(), buffer.name
        moved += int(loads.sum() + stores.sum())
        stored += buffer.size * (slot in variant.written)
    assert moved == sum(variant.bytes_moved(int(numel)) for numel in table.rows[:, NUMEL])
    assert sum(access.size * len(access.addresses) for access in memory.stores) == stored


def assert_accessed_whole(memory: ptx.Memory, table: Table, misaligned: bool | str) -> None:
    """Demands of a full tile 16 bytes in each access of a plane, 8 of single bytes, but entries of a misaligned one.

    Those of scales are single too.
    """
    for buffer in tensors_of(table):
        plane = plane_of(buffer, table.variant)
        size, single = plane.storage.itemsize, slot_of(buffer.name) == misaligned or plane.block > 1
        wanted = size if single else min(ALIGNMENT, MOST_ELEMENTS * size)
        found = {
            access.size
            for access in (*memory.loads, *memory.stores)
            if 0 <= int(access.addresses[0]) - buffer.address < buffer.size
        }
        assert found == {wanted}, buffer.name


def overhead(memory: ptx.Memory, table: Table) -> float:
    """What a table of one full tile loads besides elements, as a share of those; it must be of its part of the table.

    Distinct bytes count: threads that ask for the same are served at once.
    """
    variant, elements = table.variant, tensors_of(table)
    besides = sum(int((memory.counts(memory.loads, each) > 0).sum()) for each in memory.buffers if each not in elements)
    scalars = variant.compute.itemsize * len(variant.hyper_fields)
    wanted = table.tile_tensor.itemsize + 8 * (POINTERS + len(variant.planes) + len(Signals._fields)) + scalars
    assert besides <= wanted  # less where a scalar is of no use to the variant
    return besides / variant.bytes_moved(table.numel)


def assert_moves_what_it_must(step: Moves, variant: Variant, tile: int, record_property: RecordProperty) -> None:
    hyper = variant.hyper_array(hyper_rows(variant, 1)[:1])
    for misaligned in (False, "grad"):
        tensors = [
            Tensors(variant, numels, ordinary_share=1.0, misaligned=misaligned)
            for numels in ([2 * tile, 5, tile + 129], [tile])
        ]
        some, one = (each.table(tile) for each in tensors)
        assert_moved_once(step(some, hyper), some)
        share = overhead(memory := step(one, hyper), one)
        record_property(f"share of what a full tile loads besides its elements, misaligned {misaligned}", share)
        assert share < 0.02
        assert_accessed_whole(memory, one, misaligned)


@each_variant
def test_triton(variant: Variant, record_property: RecordProperty) -> None:
    with host_gpu() as gpu:

        def step(table: Table, hyper: Array) -> ptx.Memory:
            driver.run(table, hyper)
            return gpu.launches[-1].memory

        assert_proved("triton", variant, driver.TILE, signals=True)
        assert_moves_what_it_must(step, variant, driver.TILE, record_property)


@pytest.mark.parametrize("arch", ["sm_80", "sm_100"])
@pytest.mark.parametrize("variant", FEW, ids=str)
def test_triton_on_other_gpus(variant: Variant, arch: str) -> None:
    with host_gpu(arch):
        assert_proved("triton", variant, driver.TILE)


@each_variant
def test_cupy(variant: Variant, record_property: RecordProperty) -> None:
    with host_cupy() as touched:

        def step(table: Table, hyper: Array) -> ptx.Memory:
            cupy_driver.step(table, cupy_driver.place_table(table, hyper))
            return touched[-1]

        assert_proved("cupy", variant, cupy_driver.TILE, one_by_one=True, signals=True)
        assert_moves_what_it_must(step, variant, cupy_driver.TILE, record_property)


@pytest.mark.parametrize("arch", ["sm_80", "sm_100"])
@pytest.mark.parametrize("variant", FEW, ids=str)
def test_cupy_on_other_gpus(variant: Variant, arch: str) -> None:
    with host_cupy(arch):
        assert_proved("cupy", variant, cupy_driver.TILE)


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("backend", ["triton", "cupy"])
def test_patterns(backend: str, name: str) -> None:
    """Of loads and stores: every one of 16 bits, and a million of 32."""
    module, host = {"triton": (driver, host_gpu), "cupy": (cupy_driver, host_cupy)}[backend]
    with host():
        for assert_forms in (assert_loads, assert_stores):
            assert_forms(module.run, name, module.TILE, drawn=1_000_000)


@pytest.mark.parametrize("variant", SIGNALLED, ids=str)
def test_where_an_infinity_was_found_nothing_is_written(variant: Variant) -> None:
    with host_gpu() as gpu:
        for found in FOUND if variant in FEW else FOUND[:1]:
            assert_untouched(driver.run, variant, driver.TILE, [0, 5, driver.TILE + 1], found)
            with host_cupy():
                assert_untouched(cupy_driver.run, variant, cupy_driver.TILE, [0, 5, cupy_driver.TILE + 1], found)
    stored = [each.memory.stores for each in gpu.launches]
    assert all(map(bool, stored)) if variant.zero_grads else not any(stored)
