"""The machine, as terms and what is known of them."""

from __future__ import annotations

import shlex
from typing import Any

from gpuopt.bench.html.numbers import MEMORY, TIMES, UNKNOWN, duration, with_unit

Fact = tuple[str, str]


def facts(results: dict[str, Any]) -> list[Fact]:
    """Of the run and of the host."""
    machine = results["machine"]
    load = machine["others_load"]
    versions = ", ".join(f"{name} {version or 'missing'}" for name, version in machine["versions"].items())
    return [
        ("date", _or_unknown(machine["date"])),
        ("took", duration(results["seconds"])),
        ("command", shlex.join(results["command"]) or UNKNOWN),
        ("scale", results["scale"]),
        ("commit", _or_unknown(machine["commit"])),
        ("image", _or_unknown(machine["image"])),
        ("processor", f"{_or_unknown(machine['cpu'])}, {machine['cores']} cores"),
        ("memory", _bytes(machine["memory"])),
        ("load of others", UNKNOWN if load is None else f"{load:.1%} of all cores"),
        ("system", _or_unknown(machine["system"])),
        ("Python", _or_unknown(machine["python"])),
        ("versions", versions or UNKNOWN),
        *((f"copy on {device}", _copy(copy)) for device, copy in results["copy"].items() if copy),
    ]


def gpu_facts(gpu: dict[str, Any]) -> list[Fact]:
    """Of one GPU."""
    clocks = gpu["clocks_mhz"] or {}
    return [
        ("GPU", _or_unknown(gpu["name"])),
        ("driver", _or_unknown(gpu["driver"])),
        ("CUDA", _or_unknown(gpu["cuda"])),
        ("compute capability", _or_unknown(gpu["compute_capability"])),
        ("memory", _bytes(gpu["memory"])),
        ("bandwidth by data sheet", _with("GB/s", gpu["datasheet_gb_per_s"])),
        ("power limit", _with("W", gpu["power_limit_w"])),
        ("SM clock", _clock(clocks.get("sm"), clocks.get("max_sm"))),
        ("memory clock", _clock(clocks.get("memory"), clocks.get("max_memory"))),
        ("throttled", ", ".join(gpu["throttled"] or []) or "no"),
    ]


def _copy(copy: dict[str, Any]) -> str:
    seconds = copy["seconds"]
    if copy["gb_per_s"] is None:
        return UNKNOWN
    return (
        f"{copy['gb_per_s']:,.1f} GB/s: {with_unit(copy['bytes'], MEMORY)} read and written "
        f"in {with_unit(seconds['median'], TIMES)}, n {seconds['n']}"
    )


def _or_unknown(value: object) -> str:
    return UNKNOWN if value is None else str(value)


def _bytes(value: int | None) -> str:
    return UNKNOWN if value is None else with_unit(value, MEMORY)


def _with(unit: str, value: float | None) -> str:
    return UNKNOWN if value is None else f"{value:,g} {unit}"


def _clock(now: float | None, most: float | None) -> str:
    if now is None:
        return UNKNOWN
    return f"{now:,g} MHz" if most is None else f"{now:,g} of {most:,g} MHz"
