"""Results of a benchmark that never ran: every number here is invented, in the shape of ``bench/SCHEMA.md``."""

from __future__ import annotations

from typing import Any

FP32 = {"param": "fp32", "grad": "fp32", "state": "fp32"}
MIXED = {"param": "bf16", "grad": "bf16", "state": "fp32"}
BYTES = {"Adam": 28, "AdamW": 28, "RMSprop": 20, "SGD": 20, "Adagrad": 20}

CPU = {
    "gpuopt numba": (0.95, 40e-6, 1),
    "gpuopt numpy": (0.22, 90e-6, 1),
    "torch for-loop": (0.31, 60e-6, None),
    "torch foreach": (0.18, 70e-6, None),
    "torch fused": (0.91, 30e-6, None),
    "torch compiled": (0.6, 120e-6, None),
    "torchao": (0.1, 300e-6, None),
    "DeepSpeed CPU Adam": (0.85, 35e-6, None),
}
"""By contender: share of the copy bandwidth, seconds that a step takes at least, launches."""

CUDA = {
    "gpuopt triton": (0.97, 12e-6, 1),
    "gpuopt cupy": (0.94, 14e-6, 1),
    "torch for-loop": (0.21, 90e-6, 12),
    "torch foreach": (0.33, 60e-6, 14),
    "torch fused": (0.83, 20e-6, 5),
    "torch compiled": (0.88, 25e-6, 3),
    "Apex": (0.71, 22e-6, 40),
    "bitsandbytes": (0.64, 24e-6, 150),
}

CONTENDERS = {"cpu": CPU, "cuda": CUDA}
COPY = {"cpu": 24.5, "cuda": 3012.0}


def spread(median: float, n: int = 30) -> dict[str, Any]:
    return {"n": n, "median": median, "p10": 0.97 * median, "p90": 1.08 * median}


def row(contender: str, status: str = "exact", why: str | None = None, **figures: Any) -> dict[str, Any]:
    """A row of which nothing is known but what is given."""
    unknown = dict.fromkeys(("note", "step", "device", "launches", "gb_per_s", "copy_share", "extra_memory", "compile"))
    return {
        "contender": contender,
        "status": status,
        "why": why,
        "discarded": None,
        "not_queued": 0,
        "gpu": None,
        **unknown,
        **figures,
    }


def timed(device: str, contender: str, moved: int, tensors: int, status: str = "exact") -> dict[str, Any]:
    """A row of a contender that was measured."""
    share, least, launches = CONTENDERS[device][contender]
    seconds = least + moved / (share * COPY[device] * 1e9)
    rate = moved / seconds / 1e9
    return row(
        contender,
        status,
        step=spread(seconds + 8e-6),
        device=spread(seconds) if device == "cuda" else None,
        launches=launches if launches is None or contender.startswith("gpuopt") else launches * min(tensors, 400),
        gb_per_s=rate,
        copy_share=rate / COPY[device],
        extra_memory=0 if contender.startswith("gpuopt") else int(moved * (1.1 - share)) // 7,
        compile=0.4 if contender in ("gpuopt numba", "torch compiled") else 0.01,
    )


def workload(device: str, shapes: str, optimizer: str = "Adam", **given: Any) -> dict[str, Any]:
    """A workload with a row for each contender of its device; ``given`` replaces what it says of itself."""
    numel, tensors = given.get("numel", 2**20), given.get("tensors", 1)
    facts = {
        "key": f"{device}/{optimizer.lower()}/{shapes}",
        "title": f"{optimizer}, {shapes}",
        "group": shapes.partition("-")[0],
        "device": device,
        "front": "torch",
        "optimizer": optimizer,
        "shapes": shapes,
        "tensors": tensors,
        "numel": numel,
        "formats": FP32,
        "tail": [],
        "bytes": BYTES[optimizer] * numel,
        **given,
    }
    rows = [timed(device, name, facts["bytes"], tensors) for name in CONTENDERS[device]]
    return {**facts, "rows": given.get("rows", rows)}


def machine(gpus: int = 0, **given: Any) -> dict[str, Any]:
    gpu = {
        "name": "NVIDIA Invented 90",
        "driver": "590.1",
        "cuda": "13.1",
        "compute_capability": "9.0",
        "memory": 80 * 2**30,
        "datasheet_gb_per_s": 3350.0,
        "power_limit_w": 700.0,
        "clocks_mhz": {"sm": 1755, "memory": 2619, "max_sm": 1980, "max_memory": 2619},
        "throttled": [],
    }
    return {
        "date": "2001-02-03T04:05:06+00:00",
        "commit": "0123456789ab+changes",
        "image": None,
        "system": "Linux-6.0-x86_64",
        "python": "3.11.7",
        "versions": {"numpy": "2.4.6", "numba": "0.68.1", "torch": "2.13.0", "triton": "3.9.0", "cupy": None},
        "cpu": "Invented 2000 Processor",
        "cores": 2,
        "memory": 8 * 2**30,
        "others_load": 0.01,
        "gpus": [gpu] * gpus,
        **given,
    }


def copies(*devices: str) -> dict[str, Any]:
    return {
        device: {
            "bytes": 2**30,
            "seconds": spread(2**30 / COPY[device] / 1e9),
            "gb_per_s": COPY[device],
        }
        for device in devices
    }


def empty(**given: Any) -> dict[str, Any]:
    """A run that did nothing."""
    return {
        "schema": 2,
        "scale": "full",
        "complete": True,
        "seconds": 0.2,
        "command": ["gpuopt", "bench"],
        "machine": machine(),
        "drivers": {"numpy": None, "numba": None, "triton": None, "cupy": "no NVIDIA GPU is visible"},
        "copy": {},
        "workloads": [],
        "goals": [],
        "skipped": [],
        "faults": [],
        "code": None,
        **given,
    }


def full() -> dict[str, Any]:
    """A run on a CPU and a GPU with everything in it that can be there."""
    workloads = []
    for device, last in (("cpu", 25), ("cuda", 31)):
        for power in range(last - 15, last):
            workloads.append(workload(device, f"one-{power}", numel=2**power))
            workloads.append(workload(device, f"one-{power}", "RMSprop", numel=2**power, formats=MIXED))
        workloads += [
            workload(device, "gpt2-124m", "AdamW", tensors=148, numel=124_439_808),
            workload(device, "resnet-50", "SGD", tensors=161, numel=25_557_032),
            workload(device, "vit-l-16", "AdamW", tensors=296, numel=304_326_632, formats=MIXED),
            workload(device, "many-10000", "Adam", tensors=10_000, numel=10_000_000),
            workload(device, "many-10000", "Adagrad", tensors=10_000, numel=10_000_000, front="arrays"),
            workload(device, "gpt2-124m-tail", "AdamW", tensors=148, numel=124_439_808, tail=["clip", "ema"]),
        ]
    wrong, broken, skipped = workloads[30]["rows"][5:8]
    wrong.update(row(wrong["contender"], "wrong", "param[17] is 0x3f800001, the oracle has 0x3f800000"))
    broken.update(row(broken["contender"], "broken", "RuntimeError: 'step' must be <0-dimensional> & more"))
    skipped.update(row(skipped["contender"], "skipped", "not installed: pip install deepspeed"))
    workloads[31]["rows"][3]["status"] = "close"
    workloads[31]["rows"][6]["note"] = "state in 8 bits"
    return empty(
        seconds=1234.5,
        command=["gpuopt", "bench", "--out", "out/a folder"],
        machine=machine(gpus=1),
        copy=copies("cpu", "cuda"),
        workloads=workloads,
        goals=[
            goal(workloads[30]["key"], met=True, ratio=1.04, against="torch fused"),
            goal(workloads[30]["key"], met=True, ratio=0.91, against="torch fused", close=True),
            goal(workloads[31]["key"], met=False, ratio=3.2, against="torch for-loop", at_least=4.0),
            goal(workloads[31]["key"], met=True, ratio=5.5, against="torch for-loop", cached=0.8),
            goal("not-run", met=None, why="torch fused: not installed"),
        ],
        skipped=[{"what": "Adam, llama-3.1-8b on cuda", "why": "needs 119.7 GiB, 79.1 are free"}],
        faults=["torch compiled computes wrong numbers on AdamW, gpt2-124m"],
        code=code(),
    )


def goal(workload: str, **given: Any) -> dict[str, Any]:
    asked = {"workload": workload, "ours": "gpuopt numba", "theirs": ["torch fused"], "at_least": 0.9}
    return {
        **asked,
        "against": None,
        "ratio": None,
        "met": None,
        "cached": None,
        "close": False,
        "off": 0.05,
        "why": None,
        **given,
    }


def kernel(variant: str, **given: Any) -> dict[str, Any]:
    return {
        "driver": "triton",
        "form": "step",
        "variant": variant,
        "arch": "sm_90",
        "vector_bytes": 16,
        "registers": 64,
        "stack": 0,
        "shared": 0,
        "occupancy": 0.5,
        "bytes_in_flight": 65536,
        "bytes_needed": 40960,
        "waits": 2,
        "elements": 8,
        "instructions": 81.5,
        "budget": 270.0,
        "limit": "memory",
        **given,
    }


def code() -> dict[str, Any]:
    archs = ["sm_80", "sm_90", "sm_100"]
    kernels = [
        kernel(f"{rule}(param={stored}, grad={stored}, exp_avg=fp32)", driver=driver, form=form, arch=arch)
        for driver, form in (("triton", "step"), ("cupy", "table"), ("cupy", "array"))
        for rule in ("adam", "rmsprop", "sgd", "adagrad")
        for arch in archs
        for stored in ("fp32", "bf16", "fp16")
    ]
    kernels[0].update(limit="issue", instructions=300.0, registers=None)
    gpu = {"name": "Invented 90", "sms": 100, "gb_per_s": 3000.0, "clock_mhz": 1500, "latency_ns": 678}
    return {
        "note": "Latency and bandwidth are those of data sheets.",
        "archs": archs,
        "gpus": dict.fromkeys(archs, gpu),
        "toolchain": {"triton": {"triton": "3.9.0", "ptxas": "13.0.1"}, "cupy": {"cupy": "14.2.0", "nvrtc": "13.2"}},
        "kernels": kernels,
        "skipped": [{"what": "cupy array sm_80 sgd(odd)", "why": "the way of a full tile has a call"}],
    }


def trained(contender: str, offset: float = 0.0, pace: float = 0.1, **given: Any) -> dict[str, Any]:
    """A row of a training of 60 evaluations, in which the loss falls from 5 to 2."""
    curve = [[10 * k, pace * 10 * k, 2 + 3 * 0.95**k + offset] for k in range(61)]
    return {
        "contender": contender,
        "status": "trained",
        "why": None,
        "steps": 600,
        "seconds": 600 * pace,
        "model": spread(0.9 * pace),
        "optimizer": spread(0.1 * pace),
        "share": 0.1,
        "reached": {"step": 400, "seconds": 400 * pace},
        "missed": None,
        "loss": curve[-1][2],
        "accuracy": None,
        "deviation": {"early": 1e-6, "all": 1e-4},
        "digest": "00ff",
        "curve": curve,
        **given,
    }


def training(**given: Any) -> dict[str, Any]:
    """A run of ``gpuopt bench train`` with two tasks."""
    unknown = dict.fromkeys(("model", "optimizer", "share", "reached", "loss", "accuracy"))
    task = {
        "key": "gpt",
        "title": "A small GPT on invented text",
        "data": {"source": "nowhere", "sha256": "00", "train": 1000, "held_out": 100, "unit": "byte"},
        "optimizer": "AdamW",
        "recipe": {},
        "tensors": 52,
        "numel": 820_736,
        "batch": 16,
        "turn": 10,
        "goal": 2.4,
        "same_bits": True,
        "ranked": ["gpuopt numba", "torch fused", "torch for-loop"],
        "rows": [
            trained("torch for-loop", pace=0.12),
            trained("torch fused", pace=0.101),
            trained("gpuopt numba"),
            trained("gpuopt numpy", status="broken", why="it ran out of memory", curve=[[0, 0.0, 5.0]], **unknown),
        ],
    }
    digits = {**task, "key": "digits", "title": "A classifier of digits", "same_bits": None}
    digits["rows"] = [trained("torch for-loop", accuracy=0.9876)]
    return {
        "schema": 1,
        "scale": "full",
        "complete": True,
        "seconds": 321.0,
        "command": ["gpuopt", "bench", "train"],
        "device": "cpu",
        "machine": machine(),
        "tasks": [task, digits],
        "faults": ["gpt: gpuopt numpy is broken: it ran out of memory"],
        **given,
    }
