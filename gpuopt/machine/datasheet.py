"""What the data sheets of GPUs promise of their memory.

Sources: NVIDIA's data sheets of the V100, T4, A10, A100, L4, L40S, H100, H200 and B200 (product pages of the data
center), and the specifications of the GeForce RTX 3090 and 4090.
"""

from __future__ import annotations

GB_PER_S = {
    "Tesla V100-SXM2-16GB": 900,
    "Tesla V100-SXM2-32GB": 900,
    "Tesla V100-PCIE-16GB": 900,
    "Tesla V100-PCIE-32GB": 900,
    "Tesla T4": 320,
    "A10": 600,
    "A100-PCIE-40GB": 1555,
    "A100-SXM4-40GB": 1555,
    "A100 80GB PCIe": 1935,
    "A100-SXM4-80GB": 2039,
    "L4": 300,
    "L40S": 864,
    "H100 PCIe": 2000,
    "H100 80GB HBM3": 3350,
    "H100 NVL": 3900,
    "H200": 4800,
    "H200 NVL": 4800,
    "B200": 8000,
    "GeForce RTX 3090": 936,
    "GeForce RTX 4090": 1008,
}
"""Peak bandwidth in 10^9 bytes per second, by the name that ``nvidia-smi`` gives, without its ``NVIDIA``."""


def bandwidth(name: str | None, memory_clock_mhz: float | None = None, bus_bits: float | None = None) -> float | None:
    """Peak memory bandwidth in 10^9 bytes per second; None where it can neither be looked up nor computed.

    Args:
        name: The GPU's name.
        memory_clock_mhz: The memory's highest clock; it transfers twice per cycle.
        bus_bits: Width of the memory's bus.
    """
    known = GB_PER_S.get((name or "").removeprefix("NVIDIA ").strip())
    if known is not None:
        return float(known)
    if memory_clock_mhz and bus_bits:
        return round(2 * memory_clock_mhz * 1e6 * bus_bits / 8 / 1e9, 1)
    return None
