"""The variants that the drivers are compiled for here, from the registries."""

from __future__ import annotations

from gpuopt.kernels.formats import FORMATS
from gpuopt.kernels.rules import RULES
from gpuopt.kernels.variant import Variant

_MIXED = [
    ("bf16", "bf16", "fp32"),
    ("fp32", "bf16", "bf16"),
    ("fp16", "fp32", "bf16"),
    ("fp64", "fp16", "fp32"),
]
_EPILOGUES = [
    ("fp32", "fp32", "fp32", "fp32", None, False),
    ("fp32", "bf16", "fp32", "fp32", "bf16", True),
    ("fp32", "fp16", "bf16", None, "fp16", False),
    ("fp64", "fp64", "fp64", "fp32", None, True),
]


def variants() -> list[Variant]:
    """Every rule with every set of its optional slots in every set of formats, and with what any rule may have."""
    names = [
        (rule, (param, grad, *(state if slot in present else None for slot in rule.slots)), False)
        for rule in RULES.values()
        for present in rule.option_sets()
        for param, grad, state in [*((name, name, name) for name in FORMATS), *_MIXED]
    ]
    names += [
        (rule, (param, grad, *(state,) * len(rule.slots), average, copy), zeroed)
        for rule in RULES.values()
        for param, grad, state, average, copy, zeroed in _EPILOGUES
    ]
    made = (
        Variant(rule, tuple(None if name is None else FORMATS[name] for name in formats), zeroed)
        for rule, formats, zeroed in names
    )
    return list(dict.fromkeys(made))
