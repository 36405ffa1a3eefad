"""Every variant worth testing, from the registries: a new rule, option or format is covered by being there."""

from __future__ import annotations

from gpuopt.kernels.formats import FORMATS
from gpuopt.kernels.rules import RULES
from gpuopt.kernels.variant import Variant

MIXED = [
    ("bf16", "bf16", "fp32"),
    ("fp32", "bf16", "bf16"),
    ("fp16", "fp32", "bf16"),
    ("fp64", "fp16", "fp32"),
]
"""Formats of parameter, gradient and state that differ."""

FORMAT_SETS = [(name, name, name) for name in FORMATS] + MIXED


def variants() -> list[Variant]:
    """Every rule with every set of its optional slots in every set of formats."""
    return [
        Variant(
            rule,
            (
                FORMATS[param],
                FORMATS[grad],
                *(FORMATS[state] if slot in present else None for slot in rule.slots),
            ),
        )
        for rule in RULES.values()
        for present in rule.option_sets()
        for param, grad, state in FORMAT_SETS
    ]


def hyper_fields(variant: Variant) -> dict[str, float]:
    """Plausible hyper of any rule by field name, none of them a power of two."""
    known = {
        "grad_scale": -0.7,
        "weight_decay": 0.03,
        "keep": 0.97,
        "step_size": 0.011,
        "one_minus_beta1": 0.1,
        "one_minus_beta2": 0.003,
        "root_bias2": 0.77,
        "eps": 1e-7,
        "one_minus_alpha": 0.01,
        "momentum": 0.9,
        "grad_weight": 0.6,
        "buffer_coefficient": 0.9,
        "grad_coefficient": 1.1,
    }
    return {field: known[field] for field in variant.hyper_fields}
