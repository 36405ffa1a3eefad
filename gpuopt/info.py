"""``gpuopt info``: what gpuopt finds on this machine."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Annotated, TypedDict

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

import gpuopt
from gpuopt import backends, machine
from gpuopt.footprint import choices
from gpuopt.kernels.drivers import DRIVERS
from gpuopt.output import show as show_table
from gpuopt.output import terminal

UNKNOWN = "unknown"

Section = list[tuple[str, str]]


class Info(TypedDict):
    """What gpuopt finds; keys and their values are those of ``bench/SCHEMA.md``.

    ``copy`` is by device, ``"cpu"`` or ``"cuda"``; None where there is a GPU and nothing that can copy on it.
    """

    gpuopt: str
    drivers: dict[str, str | None]
    machine: machine.Machine
    copy: dict[str, machine.Copy | None]


def gather() -> Info:
    """Looks and measures, which takes about a second."""
    load = machine.OthersLoad()
    copy: dict[str, machine.Copy | None] = {"cpu": machine.copy_rate("cpu")}
    if machine.gpus():
        try:
            copy["cuda"] = machine.copy_rate("cuda")
        except RuntimeError:
            copy["cuda"] = None
    return {
        "gpuopt": gpuopt.__version__,
        "drivers": backends.available(),
        "machine": machine.describe(load),
        "copy": copy,
    }


def info(as_json: Annotated[bool, typer.Option("--json", help="Print it as JSON.")] = False) -> None:
    """Shows which drivers can run here, and what the machine is and how fast it copies."""
    found = gather()
    if as_json:
        typer.echo(json.dumps(found, indent=1))
    else:
        show(found, terminal())


def show(found: Info, console: Console) -> None:
    """Prints a section for each thing, then what Adam takes."""
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column()
    for title, section in sections(found):
        table.add_row(Text(title, "bold"))
        for key, value in section:
            table.add_row(Text(f"  {key}"), Text(value))
    show_table(table, console)
    show_table(_bytes_of_adam(), console)


def sections(found: Info) -> Iterator[tuple[str, Section]]:
    """Titles, and below each what there is to say, as names and values."""
    header = found["machine"]
    yield f"gpuopt {found['gpuopt']}", _build(header)
    yield "Drivers", [(name, _driver(name, reason)) for name, reason in found["drivers"].items()]
    yield "Versions", [(name, version or "not installed") for name, version in header["versions"].items()]
    yield (
        "CPU",
        [
            ("name", header["cpu"]),
            ("cores", str(header["cores"])),
            ("memory", _gib(header["memory"])),
            ("copy", _copy(found["copy"]["cpu"])),
            ("others' load", UNKNOWN if header["others_load"] is None else f"{header['others_load']:.0%} of all cores"),
        ],
    )
    for index, gpu in enumerate(header["gpus"]):
        yield f"GPU {index}", _gpu(gpu)
    if "cuda" in found["copy"]:
        yield "GPU memory", [("copy", _copy(found["copy"]["cuda"]))]
    if not header["gpus"]:
        yield "GPU", [("none", "nvidia-smi lists no NVIDIA GPU, or is not there")]


def _bytes_of_adam() -> Table:
    """Each way to keep parameters and state, and its bytes."""
    title = Text("Bytes of Adam per parameter: stored, and moved in a step", "bold")
    table = Table(title=title, title_justify="left", box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim")
    for heading in ("  dtype", "stored", "moved", "options"):
        table.add_column(heading, no_wrap=True)
    for choice in choices():
        table.add_row(f"  {choice.dtype}", f"{choice.stored:g}", f"{choice.moved:g}", choice.options)
    return table


def _build(header: machine.Machine) -> Section:
    said = [("commit", header["commit"]), ("image", header["image"])]
    return [
        *((key, value) for key, value in said if value is not None),
        ("Python", header["python"]),
        ("system", header["system"]),
    ]


def _driver(name: str, reason: str | None) -> str:
    if reason is not None:
        return f"cannot run here: {reason}"
    entry = DRIVERS[name]
    if entry.is_interpreted():
        return "runs here, interpreted on host memory and not on a GPU, by TRITON_INTERPRET"
    return f"runs here, on {'GPU' if entry.device == 'cuda' else 'host'} memory"


def _gpu(gpu: machine.Gpu) -> Section:
    clocks, throttled = gpu["clocks_mhz"], gpu["throttled"]
    sheet = gpu["datasheet_gb_per_s"]
    return [
        ("name", gpu["name"] or UNKNOWN),
        ("driver", f"{gpu['driver'] or UNKNOWN}, for CUDA up to {gpu['cuda'] or UNKNOWN}"),
        ("capability", gpu["compute_capability"] or UNKNOWN),
        ("memory", _gib(gpu["memory"])),
        ("data sheet", UNKNOWN if sheet is None else f"{sheet:,.0f} GB/s"),
        ("clocks", f"SM {_of(clocks['sm'], clocks['max_sm'])}, memory {_of(clocks['memory'], clocks['max_memory'])}"),
        ("power limit", UNKNOWN if gpu["power_limit_w"] is None else f"{gpu['power_limit_w']:.0f} W"),
        ("held back by", UNKNOWN if throttled is None else ", ".join(throttled) or "nothing"),
    ]


def _of(now: float | None, most: float | None) -> str:
    return f"{UNKNOWN if now is None else f'{now:.0f}'} of {UNKNOWN if most is None else f'{most:.0f}'} MHz"


def _gib(size: int | None) -> str:
    return UNKNOWN if size is None else f"{size / 2**30:.1f} GiB"


def _copy(copy: machine.Copy | None) -> str:
    if copy is None:
        return "not measured, since neither PyTorch nor CuPy sees a GPU"
    seconds = copy["seconds"]
    slow, fast = (copy["bytes"] / seconds[end] / 1e9 for end in ("p90", "p10"))
    return (
        f"{copy['gb_per_s']:.1f} GB/s, read and written: median of {seconds['n']} copies of "
        f"{copy['bytes'] / 2 / 2**20:.0f} MiB ({slow:.1f} at the slowest tenth, {fast:.1f} at the fastest)"
    )
