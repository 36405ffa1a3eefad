"""The figures as they were when someone last looked at them and agreed, and what has become worse since."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gpuopt.bench.code.figures import called

PATH = Path(__file__).parents[1] / "results" / "code-baseline.json"

HIGHER_IS_WORSE = {
    "vector_bytes": False,
    "stack": True,
    "occupancy": False,
    "bytes_in_flight": False,
    "waits": True,
    "instructions": True,
}
"""What is compared, exactly. Registers are, where they cost occupancy."""

KEPT = ("registers", *HIGHER_IS_WORSE)
"""The figures of a kernel in the file, in this order."""


def name(kernel: dict[str, Any]) -> str:
    """What a kernel of the section is called in the file."""
    return called(kernel["driver"], kernel["form"], kernel["arch"], kernel["variant"])


def write(section: dict[str, Any], path: Path = PATH) -> None:
    """Makes a section the baseline: a line per kernel, in the order of their names.

    Raises:
        ValueError: Something was skipped.
        OSError: The file cannot be written.
    """
    if section["skipped"]:
        why = "; ".join(f"{each['what']}: {each['why']}" for each in section["skipped"])
        raise ValueError(f"a baseline must have every kernel, but some were skipped ({why})")
    kept = {name(kernel): [kernel[key] for key in KEPT] for kernel in section["kernels"]}
    lines = ",\n".join(f"{json.dumps(kernel)}: {json.dumps(kept[kernel])}" for kernel in sorted(kept))
    head = f'"toolchain": {json.dumps(section["toolchain"])},\n"figures": {json.dumps(KEPT)},\n'
    path.write_text(f'{{\n{head}"kernels": {{\n{lines}\n}}\n}}\n')


def read(path: Path = PATH) -> dict[str, Any]:
    """The toolchain by driver, and the figures of each kernel by its name.

    Raises:
        ValueError: The file holds other figures than are compared.
    """
    kept: dict[str, Any] = json.loads(path.read_text())
    if tuple(kept["figures"]) != KEPT:
        raise ValueError(f"{path.name} must have the figures {KEPT}, but has {kept['figures']}: write it anew")
    kernels = {kernel: dict(zip(KEPT, values, strict=True)) for kernel, values in kept["kernels"].items()}
    return {"toolchain": kept["toolchain"], "kernels": kernels}


def other_toolchain(driver: str, toolchain: dict[str, str], baseline: dict[str, Any]) -> str | None:
    """Why the kernels of a driver cannot be compared: other compilers made the baseline. None when they can."""
    then = baseline["toolchain"][driver]
    if toolchain == then:
        return None
    made, makes = (", ".join(f"{tool} {version}" for tool, version in tools.items()) for tools in (then, toolchain))
    return f"the baseline of {driver} was compiled by {made}; here is {makes}"


def worse(kernels: Sequence[dict[str, Any]], baseline: dict[str, Any]) -> list[str]:
    """A sentence for each figure of ``kernels`` that is worse than in the baseline, or that it does not have."""
    found = []
    for kernel in kernels:
        then = baseline["kernels"].get(name(kernel))
        if then is None:
            found.append(f"{name(kernel)} is not in the baseline")
            continue
        found += [
            f"{name(kernel)}: {figure} is {kernel[figure]}, was {then[figure]}"
            for figure, higher_is_worse in HIGHER_IS_WORSE.items()
            if (kernel[figure] > then[figure] if higher_is_worse else kernel[figure] < then[figure])
        ]
    return found
