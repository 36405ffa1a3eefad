"""Every variant worth comparing, from the registries: a new rule, option or format is covered by being there."""

from __future__ import annotations

import numpy as np

from gpuopt.eight_bit import BITS, format_called
from gpuopt.kernels.formats import BY_DTYPE, EIGHT_BIT, FORMATS
from gpuopt.kernels.random import Key
from gpuopt.kernels.rules import RULES, Rule
from gpuopt.kernels.variant import Variant

MIXED = [
    ("bf16", "bf16", "fp32"),
    ("fp32", "bf16", "bf16"),
    ("fp16", "fp32", "bf16"),
    ("fp64", "fp16", "fp32"),
]
"""Formats of parameter, gradient and state that differ."""

UNIFORM = [name for name, format in FORMATS.items() if format in BY_DTYPE.values()]
"""Formats that any slot may have."""

RICH = [(name, "bf16", name) for name, format in FORMATS.items() if name not in UNIFORM and not format.in_blocks]
"""Those that a gradient cannot have."""

NARROW = [("fp32", "fp32", BITS), ("split24", "bf16", BITS)]

FORMAT_SETS = [(name, name, name) for name in UNIFORM] + MIXED + RICH + NARROW

EPILOGUES = [
    ("fp32", "fp32", "fp32", "fp32", None, False),
    ("fp32", "bf16", "fp32", "fp32", "bf16", True),
    ("fp32", "fp16", "bf16", None, "fp16", False),
    ("fp64", "fp64", "fp64", "fp32", None, True),
    ("split32", "bf16", "fp32", None, None, False),
    ("split24", "bf16", "stochastic_bf16", "fp32", None, True),
    ("split32", "fp16", "fp64", "split24", "stochastic_bf16", False),
    ("stochastic_bf16", "fp16", BITS, "fp64", "split32", True),
]
"""Formats of parameter, gradient, state, average and copy, and whether gradients are zeroed."""


def variants() -> list[Variant]:
    """Every rule with every set of its optional slots in every set of formats, and with what any rule may have."""
    made = (
        Variant(
            rule,
            (
                FORMATS[param],
                FORMATS[grad],
                *(format_called(rule, slot, state) if slot in present else None for slot in rule.slots),
            ),
        )
        for rule in RULES.values()
        for present in rule.option_sets()
        for param, grad, state in FORMAT_SETS
        if can_store(rule, state)
    )
    plain = list(dict.fromkeys(made))  # without state, two sets of formats can be one
    return plain + epilogue_variants()


def epilogue_variants() -> list[Variant]:
    """Every rule with all of its slots in :data:`EPILOGUES`."""
    return [
        with_epilogue(rule, *formats) for rule in RULES.values() for formats in EPILOGUES if can_store(rule, formats[2])
    ]


def can_store(rule: Rule, state: str) -> bool:
    """Whether the state slots of a rule can have a format, or :data:`~gpuopt.eight_bit.BITS`."""
    return state != BITS or set(rule.kinds.values()) <= set(EIGHT_BIT)


def with_epilogue(
    rule: Rule, param: str, grad: str, state: str, average: str | None, copy: str | None, zero_grads: bool
) -> Variant:
    """A rule with every slot of its own, and of the epilogue those that have a format."""
    own = [format_called(rule, slot, state) for slot in rule.slots]
    after = [None if name is None else FORMATS[name] for name in (average, copy)]
    return Variant(rule, (FORMATS[param], FORMATS[grad], *own, *after), zero_grads)


def hyper_fields(variant: Variant) -> dict[str, float]:
    """Plausible hyper of any rule by field name, none of them a power of two."""
    known = {
        "grad_scale": -0.7,
        "weight_decay": 0.03,
        "decoupled_decay": 0.03,
        "step_size": 0.011,
        "one_minus_beta1": 0.1,
        "one_minus_beta2": 0.003,
        "root_bias2": 0.77,
        "eps": 1e-7,
        "least_ratio": 0.9,
        "one_minus_alpha": 0.01,
        "momentum": 0.9,
        "grad_weight": 0.6,
        "buffer_coefficient": 0.9,
        "grad_coefficient": 1.1,
        "average_weight": 0.02,
        "key_low": 0xBEEF,
        "key_high": 0xDEAD,
    }
    return {field: known[field] for field in variant.hyper_fields}


def hyper_rows(variant: Variant, step: int) -> list[list[float]]:
    """Two rows that differ from step to step: one with every term of every rule, one without those that can go."""
    fields = hyper_fields(variant)
    keys = {field: fields[field] + step for field in Key._fields}
    full = {field: value * (1 + step / 64) for field, value in fields.items()} | keys
    bare = {field: value * 1.3 for field, value in full.items()} | keys
    without = {
        "grad_scale": 1.0,
        "weight_decay": 0.0,
        "decoupled_decay": 0.0,
        "grad_coefficient": 0.0,
        "least_ratio": 0.0,
    }
    bare.update((field, value) for field, value in without.items() if field in bare)
    return [list(full.values()), list(bare.values())]


def edge_hyper_rows(variant: Variant) -> list[list[float]]:
    """Rows in which one scalar or all of them are at an edge."""
    plain = hyper_fields(variant)
    changes = [
        {"grad_scale": np.inf},
        {"grad_scale": np.nan},
        {"grad_scale": 0.0},
        {"grad_scale": 1.0, "weight_decay": 0.0, "decoupled_decay": 0.0},
        {"weight_decay": -0.0},
        {"weight_decay": 1e-40},
        {"weight_decay": np.inf, "decoupled_decay": 1.0},
        {"weight_decay": np.nan, "decoupled_decay": np.nan},
        {"step_size": 0.0, "eps": 0.0},
        dict.fromkeys(plain, 0.0),
        dict.fromkeys(plain, 1.0),
    ]
    known = [{field: value for field, value in change.items() if field in plain} for change in changes]
    return [list((plain | change).values()) for change in known]
