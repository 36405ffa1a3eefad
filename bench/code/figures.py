"""The section on compiled code: for every kernel what is read off its binary, against what a GPU can do."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from gpuopt.bench.code import ahead, sass
from gpuopt.bench.code.ahead import Compiled
from gpuopt.bench.code.disassembly import disassemble
from gpuopt.bench.code.full_tile import full_tile
from gpuopt.bench.code.gpus import ARCHS, GPUS, WARP
from gpuopt.bench.code.listing import Instruction
from gpuopt.bench.code.waits import traffic
from gpuopt.kernels.drivers.cuda_source import has_array_form
from gpuopt.kernels.epilogue import COPY
from gpuopt.kernels.formats.format import SCALES
from gpuopt.kernels.variant import Variant

FORMS = {"triton": ("step",), "cupy": ("table", "array")}
"""By driver, its kernels of a step."""

NOTE = (
    "Computed from compiled code, not measured: the kernels were compiled for GPUs that need not be here. Counted is "
    "the way of a full tile without the slow ones of divisions and roots of extreme values; issue slots are those of "
    "four schedulers at the highest clock, so instructions that take more than one slot (float32 on sm_80, float64, "
    "roots) cost more than is counted; bytes in flight are the most there can be at once, when all warps that fit are "
    "at their loads."
)


@dataclass(frozen=True)
class Kernel:
    """One kernel of a driver, for one variant and architecture.

    Attributes:
        driver: ``"triton"`` or ``"cupy"``.
        form: One of the driver's ``FORMS``.
        variant: The rule and the formats of its slots.
        arch: ``"sm_90"``.
    """

    driver: str
    form: str
    variant: Variant
    arch: str

    @property
    def name(self) -> str:
        """See :func:`called`."""
        return called(self.driver, self.form, self.arch, str(self.variant))

    def compile(self) -> Compiled:
        """Compiles it, as the driver would on such a GPU."""
        if self.driver == "triton":
            return ahead.compile_triton(self.variant, self.arch)
        from gpuopt.kernels.drivers import cupy as driver

        if self.form == "table":
            return ahead.compile_cupy(driver.table_kernel(self.variant, driver.TILE), self.variant, self.arch)
        return ahead.compile_cupy(driver.array_kernel(self.variant), self.variant, self.arch)


def called(driver: str, form: str, arch: str, variant: str) -> str:
    """What a kernel is called in sentences: ``"cupy table sm_90 adagrad(param=fp32, grad=fp32, sum=fp32)"``."""
    return f"{driver} {form} {arch} {variant}"


def kernels(variants: Iterable[Variant], archs: Iterable[str] = ARCHS, drivers: Iterable[str] = FORMS) -> list[Kernel]:
    """Every kernel that the drivers have for these variants, one architecture after the other.

    Raises:
        ValueError: A driver or architecture is not known.
    """
    archs, drivers, variants = list(archs), list(drivers), list(variants)
    for what, given, known in (("arch", archs, GPUS), ("driver", drivers, FORMS)):
        for each in given:
            if each not in known:
                raise ValueError(f"{what} must be one of {', '.join(known)}, but is {each!r}")
    return [
        Kernel(driver, form, variant, arch)
        for arch in archs
        for driver in drivers
        for variant in variants
        for form in FORMS[driver]
        if form != "array" or has_array_form(variant)
    ]


def quick(variants: Iterable[Variant]) -> list[Variant]:
    """Of ``variants``, each rule without options, all in fp32 and all in bf16."""
    return [
        variant
        for variant in variants
        if variant.present == ("param", "grad", *variant.rule.required)
        and {format.name for format in variant.formats if format} in ({"fp32"}, {"bf16"})
        and not variant.zero_grads
    ]


def section(
    variants: Sequence[Variant],
    archs: Sequence[str] = ARCHS,
    drivers: Sequence[str] = tuple(FORMS),
    advance: Callable[[], None] = lambda: None,
) -> dict[str, Any]:
    """The object ``code`` of the JSON, see ``bench/SCHEMA.md``.

    Args:
        variants: What to compile the kernels for.
        archs: And for which architectures.
        drivers: Whose kernels; one that cannot be compiled here is named with the reason.
        advance: Called after each of :func:`kernels`, done or skipped.
    """
    skipped = []
    why = {driver: ahead.unavailable(driver) for driver in drivers}
    done = []
    for arch, of_arch in groupby(kernels(variants, archs, drivers), key=lambda kernel: kernel.arch):
        compiled = []
        for kernel in of_arch:
            if why[kernel.driver] is None:
                compiled.append((kernel, kernel.compile()))
            advance()
        listings = disassemble([binary.cubin for _, binary in compiled], arch) if compiled else []
        for (kernel, binary), listing in zip(compiled, listings, strict=True):
            try:
                done.append(figures(kernel, binary, listing))
            except ValueError as error:
                skipped.append({"what": kernel.name, "why": str(error)})
    return {
        "note": NOTE,
        "archs": list(archs),
        "gpus": {arch: _described(arch) for arch in archs},
        "toolchain": {driver: ahead.toolchain(driver) for driver in drivers if why[driver] is None},
        "kernels": done,
        "skipped": [{"what": driver, "why": reason} for driver, reason in why.items() if reason] + skipped,
    }


def figures(kernel: Kernel, compiled: Compiled, listing: Sequence[Instruction]) -> dict[str, Any]:
    """The entry of one kernel, see ``bench/SCHEMA.md``.

    Raises:
        ValueError: The way of a full tile cannot be told: it does not move what the variant's slots hold, or it cannot
            do without a call.
    """
    gpu, variant = GPUS[kernel.arch], kernel.variant
    way = full_tile(listing)
    if any(each.kind == "CALL" and not each.guard for each in way):
        raise ValueError("the way of a full tile has a call, whose instructions are not known")
    moved = traffic(way, kernel.form != "array", SCALES.storage.itemsize if variant.in_blocks else None)
    elements, rest = divmod(sum(moved.stores), _bytes(variant, variant.written))
    loaded = _bytes(variant, [slot for slot in variant.present if slot != COPY])
    if rest or sum(moved.loads) != elements * loaded:
        raise ValueError(
            f"the way of a full tile must load {loaded} bytes for each element that it stores, "
            f"but loads {sum(moved.loads)} and stores {sum(moved.stores)}"
        )
    used = sass.resources(compiled.cubin)
    occupancy = gpu.occupancy(used["REG"], compiled.shared, compiled.warps)
    in_flight = round(occupancy * gpu.warps) * WARP * moved.in_flight
    instructions, budget = len(way) / elements, gpu.issue_slots(variant.bytes_per_element)
    times = {"memory": 1.0, "latency": gpu.loads_in_flight / in_flight, "issue": instructions / budget}
    return {
        "driver": kernel.driver,
        "form": kernel.form,
        "variant": str(variant),
        "arch": kernel.arch,
        "vector_bytes": min(*moved.loads, *moved.stores),
        "registers": used["REG"],
        "stack": used["STACK"],
        "shared": compiled.shared,
        "occupancy": occupancy,
        "bytes_in_flight": in_flight,
        "bytes_needed": gpu.loads_in_flight,
        "waits": moved.waits,
        "elements": elements,
        "instructions": round(instructions, 2),
        "budget": round(budget, 1),
        "limit": max(times, key=lambda limit: times[limit]),
    }


def _bytes(variant: Variant, slots: Iterable[str]) -> int:
    """Of one element in these slots, scales aside."""
    planes = {slot: format.planes for slot, format in zip(variant.slots, variant.formats, strict=True) if format}
    return sum(plane.storage.itemsize for slot in slots for plane in planes[slot] if plane.block == 1)


def _described(arch: str) -> dict[str, Any]:
    gpu = GPUS[arch]
    return {
        "name": gpu.name,
        "sms": gpu.sms,
        "gb_per_s": gpu.bandwidth / 1e9,
        "clock_mhz": round(gpu.clock / 1e6),
        "latency_ns": round(gpu.latency * 1e9),
    }
