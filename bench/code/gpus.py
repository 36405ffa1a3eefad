"""The GPUs that code is judged for: limits of their architecture, memory, clock, and how many warps they can hold."""

from __future__ import annotations

from dataclasses import dataclass

WARP = 32
"""Threads."""

SCHEDULERS = 4
"""Of an SM, each issuing one instruction of one warp per clock (CUDA C++ Programming Guide, compute capability 8.x)."""

REGISTERS = 65536
"""Of an SM, 32 bits each (``max_registers_per_multiprocessor`` in CCCL's ``cuda/__device/arch_traits.h``)."""

REGISTER_UNIT = 256
"""Registers are given to a warp in multiples of this (``cudaOccRegAllocationGranularity``)."""

MOST_REGISTERS = 255
"""Of a thread (``max_registers_per_thread``)."""

SHARED_UNIT = 128
"""Bytes of shared memory are given to a block in multiples of this (``cudaOccSMemAllocationGranularity``)."""

SHARED_RESERVED = 1024
"""Bytes that the driver takes of each block's shared memory (``reserved_shared_memory_per_block``)."""


@dataclass(frozen=True)
class Gpu:
    """One GPU of an architecture.

    The limits of an SM are those of ``arch_traits.h``, which CuPy carries; the rest is the GPU's data sheet, except for
    ``loads_in_flight``: that is what NVIDIA's own library keeps in flight for loops like an optimizer's to reach the
    bandwidth (``arch_to_min_bytes_in_flight`` in CUB's ``tuning_transform.cuh``, which CuPy carries too).

    Attributes:
        name: What it is sold as.
        sms: Its streaming multiprocessors.
        warps: Most warps that can be resident on an SM.
        blocks: Most blocks.
        shared: Bytes of shared memory of an SM.
        bandwidth: Bytes per second to and from its memory, by the data sheet.
        clock: Cycles per second of an SM at most: the data sheet's rate of float32 operations over what the SMs do in
            a cycle. Of a B200 sheets say 75 and 80 TFLOPS, and 7.7 and 8.0 TB/s; here are 75 and 8.0, the strictest.
        loads_in_flight: Bytes per SM that must have been asked for, and not have come, for memory to be busy.
    """

    name: str
    sms: int
    warps: int
    blocks: int
    shared: int
    bandwidth: float
    clock: float
    loads_in_flight: int

    @property
    def bandwidth_per_sm(self) -> float:
        """Bytes per second."""
        return self.bandwidth / self.sms

    @property
    def latency(self) -> float:
        """Seconds that a load takes under load, by Little's law: bytes in flight over bandwidth."""
        return self.loads_in_flight / self.bandwidth_per_sm

    def issue_slots(self, bytes_moved: float) -> float:
        """Instructions of one thread that the SMs can issue while memory moves so many bytes for it."""
        return bytes_moved / self.bandwidth_per_sm * self.clock * SCHEDULERS * WARP

    def occupancy(self, registers: int, shared: int, warps: int) -> float:
        """Share of an SM's warps that blocks of one kernel can fill, with the largest part of its memory shared.

        Args:
            registers: Of a thread.
            shared: Bytes of a block, static and dynamic.
            warps: Of a block.
        """
        if not 0 < registers <= MOST_REGISTERS:
            raise ValueError(f"registers must be in [1, {MOST_REGISTERS}], but is {registers}")
        of_warp = _round_up(registers * WARP, REGISTER_UNIT)
        resident = REGISTERS // SCHEDULERS // of_warp * SCHEDULERS  # each scheduler has its own part of the registers
        of_block = _round_up(shared + SHARED_RESERVED, SHARED_UNIT)
        blocks = min(self.blocks, self.warps // warps, resident // warps, self.shared // of_block)
        return blocks * warps / self.warps


GPUS = {
    "sm_80": Gpu("A100 80GB SXM", 108, 64, 32, 164 << 10, 2.039e12, 19.5e12 / (108 * 64 * 2), 16 << 10),
    "sm_90": Gpu("H100 SXM", 132, 64, 32, 228 << 10, 3.35e12, 66.9e12 / (132 * 128 * 2), 32 << 10),
    "sm_100": Gpu("B200", 148, 64, 32, 228 << 10, 8.0e12, 75e12 / (148 * 128 * 2), 64 << 10),
}
"""By architecture. An SM does 64 float32 multiplications and additions in a cycle on sm_80, 128 on the others."""

ARCHS = tuple(GPUS)


def _round_up(amount: int, unit: int) -> int:
    return -(-amount // unit) * unit
