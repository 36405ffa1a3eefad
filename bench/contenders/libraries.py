"""Optimizers of other libraries, where they are installed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from gpuopt.bench.contenders.contender import Contender, Entrant
from gpuopt.bench.contenders.torch import outcome_of, preparation, torch_params
from gpuopt.bench.problem import Problem
from gpuopt.bench.workloads import Workload

ADAM: dict[str, Any] = {"betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.0}
ADAMW: dict[str, Any] = {**ADAM, "weight_decay": 0.1}
SGD: dict[str, Any] = {"momentum": 0.9}
RMSPROP: dict[str, Any] = {"alpha": 0.99, "eps": 1e-8}
ADAGRAD: dict[str, Any] = {"eps": 1e-10}

COARSE = 0.1
"""Share of what the steps changed that optimizers with state in 8 bits may be off by, as a root mean square."""


@dataclass(frozen=True)
class Library:
    """One way of a library to step parameters of PyTorch.

    Attributes:
        name: What tables call it.
        package: What is installed, as PyPI or GitHub call it.
        module: Where the classes are.
        classes: By the optimizer's name, the class and its arguments besides ``lr``.
        devices: Where it runs.
        formats: Names of the sets of formats that it computes in.
        coarse: See :class:`gpuopt.bench.contenders.contender.Contender`.
        note: What it computes, where that is not what the workload says.
    """

    name: str
    package: str
    module: str
    classes: Mapping[str, tuple[str, dict[str, Any]]]
    devices: tuple[str, ...]
    formats: tuple[str, ...] = ("fp32",)
    coarse: float | None = None
    note: str | None = field(default=None)


EIGHT_BITS = f"state in 8 bits where a tensor has 4,096 elements or more; close means {COARSE:.0%} of the change"

LIBRARIES = (
    Library(
        "Apex",
        "NVIDIA/apex",
        "apex.optimizers",
        {
            "Adam": ("FusedAdam", {**ADAM, "adam_w_mode": False}),
            "AdamW": ("FusedAdam", {**ADAMW, "adam_w_mode": True}),
            "SGD": ("FusedSGD", SGD),
            "Adagrad": ("FusedAdagrad", ADAGRAD),
        },
        ("cuda",),
        ("fp32", "bf16-fp32-state"),
    ),
    Library(
        "bitsandbytes",
        "bitsandbytes",
        "bitsandbytes.optim",
        {
            "Adam": ("Adam", ADAM),
            "AdamW": ("AdamW", ADAMW),
            "RMSprop": ("RMSprop", RMSPROP),
            "SGD": ("SGD", SGD),
            "Adagrad": ("Adagrad", ADAGRAD),
        },
        ("cpu", "cuda"),
        ("fp32", "bf16-fp32-state"),
    ),
    Library(
        "bitsandbytes 8-bit",
        "bitsandbytes",
        "bitsandbytes.optim",
        {"Adam": ("Adam8bit", ADAM), "AdamW": ("AdamW8bit", ADAMW)},
        ("cpu", "cuda"),
        ("fp32", "bf16-fp32-state", "bf16"),
        COARSE,
        EIGHT_BITS,
    ),
    Library(
        "torchao 8-bit",
        "torchao",
        "torchao.optim",
        {"Adam": ("Adam8bit", ADAM), "AdamW": ("AdamW8bit", ADAMW)},
        ("cpu", "cuda"),
        ("fp32", "bf16-fp32-state", "bf16"),
        COARSE,
        EIGHT_BITS,
    ),
    Library(
        "optimi",
        "torch-optimi",
        "optimi",
        {"Adam": ("Adam", ADAM), "AdamW": ("AdamW", ADAMW), "SGD": ("SGD", SGD)},
        ("cpu", "cuda"),
    ),
    Library(
        "optimi foreach",
        "torch-optimi",
        "optimi",
        {
            "Adam": ("Adam", {**ADAM, "foreach": True}),
            "AdamW": ("AdamW", {**ADAMW, "foreach": True}),
            "SGD": ("SGD", {**SGD, "foreach": True}),
        },
        ("cpu", "cuda"),
    ),
    Library(
        "flashoptim",
        "flashoptim",
        "flashoptim",
        {
            "Adam": ("FlashAdam", {**ADAM, "quantize": False, "master_weight_bits": None}),
            "AdamW": ("FlashAdamW", {**ADAMW, "quantize": False, "master_weight_bits": None}),
            "SGD": ("FlashSGD", {**SGD, "quantize": False, "master_weight_bits": None}),
        },
        ("cuda",),
    ),
    Library(
        "flashoptim 8-bit",
        "flashoptim",
        "flashoptim",
        {
            "Adam": ("FlashAdam", {**ADAM, "master_weight_bits": None}),
            "AdamW": ("FlashAdamW", {**ADAMW, "master_weight_bits": None}),
        },
        ("cuda",),
        ("fp32", "bf16-fp32-state", "bf16"),
        COARSE,
        f"state in 8 bits; close means {COARSE:.0%} of the change",
    ),
    Library(
        "DeepSpeed",
        "deepspeed",
        "deepspeed.ops.adam",
        {
            "Adam": ("DeepSpeedCPUAdam", {**ADAM, "adamw_mode": False}),
            "AdamW": ("DeepSpeedCPUAdam", {**ADAMW, "adamw_mode": True}),
        },
        ("cpu",),
        ("fp32", "bf16-fp32-state"),
    ),
)


def guests(device: str) -> list[Contender]:
    """Those that run on a device, installed or not."""
    return [
        Contender(
            library.name,
            device,
            partial(_set_up, library),
            absent=partial(absent, library),
            refuses=partial(_refuses, library),
            coarse=library.coarse,
            guest=True,
            temporaries=1.0,
            note=library.note,
        )
        for library in LIBRARIES
        if device in library.devices
    ]


def absent(library: Library) -> str | None:
    """Why it cannot be imported; None when it can."""
    return None if find_spec(library.module.partition(".")[0]) else f"{library.package} is not installed"


def _refuses(library: Library, workload: Workload) -> str | None:
    if workload.front != "torch":
        return "it is for PyTorch's parameters"
    if workload.tail:
        return "the tail is not its own"
    if workload.sharded:
        return "it is not made for DTensors"
    if workload.optimizer.name not in library.classes:
        return f"it has no {workload.optimizer.name}"
    if workload.formats_name not in library.formats:
        return f"it does not store {workload.formats_name}"
    return None


def _set_up(library: Library, problem: Problem) -> Entrant:
    workload = problem.workload
    name, settings = library.classes[workload.optimizer.name]
    params = torch_params(problem)
    optimizer = getattr(import_module(library.module), name)(params, lr=workload.lr, **settings)
    return Entrant(optimizer.step, partial(outcome_of, workload, params), preparation(problem, params))
