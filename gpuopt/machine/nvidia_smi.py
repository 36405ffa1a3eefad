"""The NVIDIA GPUs, as ``nvidia-smi`` and the CUDA driver describe them."""

from __future__ import annotations

import csv
from typing import TypedDict

from gpuopt.machine import cuda
from gpuopt.machine.answer import answer
from gpuopt.machine.datasheet import bandwidth

FIELDS = (
    "name",
    "driver_version",
    "compute_cap",
    "memory.total",
    "power.limit",
    "clocks.sm",
    "clocks.mem",
    "clocks.max.sm",
    "clocks.max.mem",
    "pci.bus_id",
)
"""What ``nvidia-smi`` is asked for, and one more: why clocks are held back."""

REASONS = ("clocks_event_reasons.active", "clocks_throttle_reasons.active")
"""What that field is called, and was called by drivers before 535."""

THROTTLED = {
    0x04: "software power cap",
    0x08: "hardware slowdown",
    0x10: "sync boost",
    0x20: "software thermal slowdown",
    0x40: "hardware thermal slowdown",
    0x80: "hardware power brake",
}
"""Bits that mean that a GPU is held back. The others mean that it is idle or that somebody has chosen its clocks."""


class Clocks(TypedDict):
    """In MHz, now and at most."""

    sm: float | None
    memory: float | None
    max_sm: float | None
    max_memory: float | None


class Gpu(TypedDict):
    """One GPU; None is what neither ``nvidia-smi`` nor the driver tells."""

    name: str | None
    driver: str | None
    cuda: str | None
    compute_capability: str | None
    memory: int | None
    datasheet_gb_per_s: float | None
    power_limit_w: float | None
    clocks_mhz: Clocks
    throttled: list[str] | None


def gpus() -> list[Gpu]:
    """All GPUs, in the order of ``nvidia-smi``; none where it is not there or fails."""
    for reasons in REASONS:
        table = answer("nvidia-smi", f"--query-gpu={','.join((*FIELDS, reasons))}", "--format=csv,noheader,nounits")
        if table:
            library = cuda.library()
            return parse(table, cuda.version(library), cuda.bus_widths(library))
    return []


def parse(table: str, cuda_version: str | None, bus_widths: dict[str, int]) -> list[Gpu]:
    """What ``nvidia-smi`` answered, one line a GPU.

    Args:
        table: The fields of ``FIELDS`` and the reasons, with commas between them, without units.
        cuda_version: From :func:`gpuopt.machine.cuda.version`.
        bus_widths: From :func:`gpuopt.machine.cuda.bus_widths`.
    """
    return [
        _gpu(dict(zip((*FIELDS, "reasons"), map(_known, line), strict=True)), cuda_version, bus_widths)
        for line in csv.reader(table.splitlines(), skipinitialspace=True)
        if len(line) == len(FIELDS) + 1
    ]


def _gpu(told: dict[str, str | None], cuda_version: str | None, bus_widths: dict[str, int]) -> Gpu:
    mebibytes, max_memory = _number(told["memory.total"]), _number(told["clocks.max.mem"])
    return {
        "name": told["name"],
        "driver": told["driver_version"],
        "cuda": cuda_version,
        "compute_capability": told["compute_cap"],
        "memory": None if mebibytes is None else int(mebibytes) << 20,
        "datasheet_gb_per_s": bandwidth(
            told["name"], max_memory, bus_widths.get(cuda.pci_address(told["pci.bus_id"] or ""))
        ),
        "power_limit_w": _number(told["power.limit"]),
        "clocks_mhz": {
            "sm": _number(told["clocks.sm"]),
            "memory": _number(told["clocks.mem"]),
            "max_sm": _number(told["clocks.max.sm"]),
            "max_memory": max_memory,
        },
        "throttled": _reasons(told["reasons"]),
    }


def _known(text: str) -> str | None:
    """None for what stands in brackets: ``[N/A]``, ``[Not Supported]``, ``[Unknown Error]``."""
    text = text.strip()
    return None if not text or text.startswith("[") or text == "N/A" else text


def _number(text: str | None) -> float | None:
    try:
        return None if text is None else float(text)
    except ValueError:
        return None


def _reasons(mask: str | None) -> list[str] | None:
    if mask is None:
        return None
    try:
        bits = int(mask, 16)
    except ValueError:
        return None
    return [reason for bit, reason in THROTTLED.items() if bits & bit]
