"""``python -m gpuopt.bench.gpu_round``: everything to do on a machine with an NVIDIA GPU, in one go.

Times steps against torch.optim and a copy, sweeps over constants, runs the tests marked ``gpu``, and compares bits.
One JSON, ``$OUT/gpu-<device>.json`` (``out/`` when OUT is not set), holds all of it and is written anew after every
part. Ends with 1 when a test failed, bits differ or a part broke, with 2 when there is no GPU.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from gpuopt import machine
from gpuopt.bench import gpu_bits, gpu_steps, gpu_sweeps

SCHEMA = 1
ROOT = Path(__file__).resolve().parents[1]
TESTS_LIMIT = 280.0
"""Seconds that the tests may take."""

TEST_WORKERS = 8
"""Processes that share the GPU for the tests, where pytest-xdist is there: compiling takes most of their time."""

LAST_START = 400.0
"""Seconds after which no further part is begun, so that the round ends within its 8 minutes."""

STEP = "step: "
"""What the keys of the timed configurations begin with."""

Part = Callable[[], Any]


def parts() -> dict[str, Part]:
    """What is done, in order, by the JSON's key."""
    return {
        **{STEP + config.title: partial(_freed, partial(gpu_steps.run, config)) for config in gpu_steps.CONFIGS},
        "cupy_forms": partial(_freed, gpu_sweeps.cupy_forms),
        "triton_tiles": partial(_freed, gpu_sweeps.triton_tiles),
        "tests": run_tests,
        "bits": bits,
    }


def main() -> int:
    """The round; returns the exit code."""
    device = device_name()
    if device is None:
        print("gpu_round: no NVIDIA GPU here that PyTorch can use; nothing was run.", file=sys.stderr)
        return 2
    out = Path(os.environ.get("OUT") or "out")
    out.mkdir(parents=True, exist_ok=True)
    path = out / file_name(device)
    report = perform(parts(), {"device": device, "machine": machine.describe()}, lambda found: write(found, path))
    print("\n".join(summary(report)))
    print(f"Wrote {path} after {report['seconds']:.0f} s.")
    return 0 if report["good"] else 1


def perform(
    parts: dict[str, Part],
    head: dict[str, Any],
    keep: Callable[[dict[str, Any]], None],
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, Any]:
    """Runs the parts one after the other and keeps the report after each.

    A part that breaks leaves its traceback in the report and does not stop the others.
    """
    begun = clock()
    report: dict[str, Any] = {"schema": SCHEMA, **head, "complete": False, "errors": {}, "seconds_of": {}}
    for name, part in parts.items():
        before = clock()
        if before - begun > LAST_START:
            report["errors"][name] = "not begun, since time had run out"
            continue
        print(f"gpu_round: {name} ...", file=sys.stderr, flush=True)
        try:
            report[name] = part()
        except Exception:  # noqa: BLE001 (whatever breaks, the other parts are to be had)
            report["errors"][name] = traceback.format_exc()
        report["seconds_of"][name] = round(clock() - before, 1)
        report["seconds"] = round(clock() - begun, 1)
        report["good"] = is_good(report)
        keep(report)
    report["seconds"] = round(clock() - begun, 1)
    report["complete"] = not report["errors"]
    report["good"] = is_good(report)
    keep(report)
    return report


def is_good(report: dict[str, Any]) -> bool:
    """Whether nothing broke or failed, not all tests were skipped, no bits differ and no contender was wrong."""
    tests, found = report.get("tests"), report.get("bits")
    return (
        not report["errors"]
        and (tests is None or (tests["exit_code"] == 0 and tests.get("passed", 0) > 0))
        and (found is None or found["different"] == [])
        and not any(config["problems"] for config in configs(report))
    )


def configs(report: dict[str, Any]) -> list[dict[str, Any]]:
    """The timed configurations of a report."""
    return [found for name, found in report.items() if name.startswith(STEP)]


def bits() -> dict[str, Any]:
    """All comparisons: how many, by driver, and those that found a difference."""
    found = list(gpu_bits.compare())
    by_driver: dict[str, int] = {}
    for comparison in found:
        by_driver[comparison["driver"]] = by_driver.get(comparison["driver"], 0) + 1
    return {
        "comparisons": by_driver,
        "elements": sum(comparison["elements"] for comparison in found),
        "different": [comparison for comparison in found if comparison["different"]],
    }


def run_tests(folder: str = "tests/gpu", limit: float = TESTS_LIMIT, workers: int = TEST_WORKERS) -> dict[str, Any]:
    """The tests marked ``gpu``, in a process of their own."""
    with tempfile.TemporaryDirectory() as temporary:
        junit = Path(temporary) / "junit.xml"
        # -P: the root of the repository must not be on the path, where kernels/ would hide another package.
        command = [sys.executable, "-P", "-m", "pytest", "-q", "-m", "gpu", f"--junitxml={junit}", folder]
        if workers and find_spec("xdist") is not None:
            command += ["-n", str(workers)]
        environment = {**os.environ, "TRITON_INTERPRET": "0"}
        try:
            done = subprocess.run(
                command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=limit, check=False
            )
            code, output = done.returncode, done.stdout + done.stderr
        except subprocess.TimeoutExpired as error:
            code, output = 124, _text(error.stdout) + f"\nstopped after {limit:.0f} s"
        counts = counts_of(junit.read_text()) if junit.exists() else {}
    return {"exit_code": code, **counts, "tail": output[-4000:]}


def counts_of(junit: str) -> dict[str, Any]:
    """What a JUnit report counts, and the names of the tests that failed."""
    cases = list(ElementTree.fromstring(junit).iter("testcase"))

    def having(*tags: str) -> list[str]:
        return [
            f"{case.get('classname')}.{case.get('name')}"
            for case in cases
            if any(case.find(tag) is not None for tag in tags)
        ]

    failed, skipped = having("failure", "error"), having("skipped")
    return {
        "passed": len(cases) - len(failed) - len(skipped),
        "failed": len(failed),
        "skipped": len(skipped),
        "failures": failed,
    }


def summary(report: dict[str, Any]) -> list[str]:
    """The short table that is printed last."""
    lines = [f"{report['device']}, {report['machine']['versions']}"]
    for config in configs(report):
        lines.append(config["title"])
        for row in config["contenders"]:
            launched = row["launches"] or {}
            lines.append(
                f"  {row['name']:<14} {row['median'] * 1e3:9.3f} ms {row['gb_per_s']:7.0f} GB/s "
                f"{row['share_of_copy']:6.1%} of copy, host {row['host_median'] * 1e6:6.0f} us, "
                f"{launched.get('kernels', '?')} kernels, {launched.get('copies', '?')} copies"
            )
        lines += [f"  {name}: {problem}" for name, problem in config["problems"].items()]
    for key in ("cupy_forms", "triton_tiles"):
        for row in report.get(key, []):
            times = ", ".join(
                f"{name} {seconds * 1e6:.1f} us (host {row['host'][name] * 1e6:.0f})"
                for name, seconds in row["gpu"].items()
            )
            lines.append(f"{key} {row['numel']:>11,}: {times}")
    if "tests" in report:
        tests = report["tests"]
        lines.append(
            f"tests: {tests.get('passed', 0)} passed, {tests.get('failed', 0)} failed, "
            f"{tests.get('skipped', 0)} skipped, exit code {tests['exit_code']}"
        )
        lines += [f"  FAILED {name}" for name in tests.get("failures", [])[:20]]
    if "bits" in report:
        found = report["bits"]
        lines.append(f"bits: {found['comparisons']} comparisons, {len(found['different'])} with a difference")
        lines += [f"  DIFFERENT {comparison}" for comparison in found["different"][:20]]
    for name, error in report["errors"].items():
        lines.append(f"BROKEN {name}: {error.strip().splitlines()[-1]}")
    return lines


def write(report: dict[str, Any], path: Path) -> None:
    """As JSON, in one go."""
    part = path.with_name(path.name + ".part")
    part.write_text(json.dumps(report, indent=1) + "\n")
    part.replace(path)


def file_name(device: str) -> str:
    """``gpu-nvidia-h200.json`` of ``NVIDIA H200``."""
    return f"gpu-{re.sub(r'[^a-z0-9]+', '-', device.lower()).strip('-')}.json"


def device_name() -> str | None:
    """What PyTorch calls the first GPU; None where it sees none."""
    if find_spec("torch") is None:
        return None
    import torch

    return torch.cuda.get_device_name(0) if torch.cuda.is_available() else None


def _freed(part: Part) -> Any:
    """What ``part`` finds, with the memory that it leaves in the pools handed back."""
    import gc

    import cupy
    import torch

    try:
        return part()
    finally:
        gc.collect()
        cupy.get_default_memory_pool().free_all_blocks()
        torch.cuda.empty_cache()


def _text(output: str | bytes | None) -> str:
    return output.decode(errors="replace") if isinstance(output, bytes) else output or ""


if __name__ == "__main__":
    sys.exit(main())
