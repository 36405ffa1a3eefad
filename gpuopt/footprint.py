"""Bytes per parameter that Adam takes and moves, by how parameters and state are kept."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from gpuopt.eight_bit import BITS, format_called
from gpuopt.kernels.formats import FORMATS
from gpuopt.kernels.rules import RULES
from gpuopt.kernels.variant import Variant


@dataclass(frozen=True)
class Choice:
    """A way to keep parameters and state.

    Attributes:
        dtype: Of the parameters and their gradients.
        options: What the optimizer is given, as one writes it; empty for nothing.
        variant: What is run for it.
    """

    dtype: str
    options: str
    variant: Variant

    @property
    def stored(self) -> float:
        """Bytes per parameter of itself, its original and its state, without its gradient."""
        formats = zip(self.variant.slots, self.variant.formats, strict=True)
        return sum(format.itemsize for slot, format in formats if format is not None and slot != "grad")

    @property
    def moved(self) -> float:
        """Bytes per parameter that a step reads and writes."""
        return self.variant.bytes_per_element


def choices() -> Iterator[Choice]:
    """All ways that have another size, or another loss, for Adam."""
    bits = f'state_dtype="{BITS}"'
    master, rounded, state = "master_weights=True", "stochastic_rounding=True", "state_dtype=torch.bfloat16"
    yield _choice("float32", (), "fp32", "fp32", "fp32")
    yield _choice("float32", (state,), "fp32", "fp32", "stochastic_bf16")
    yield _choice("float32", (bits,), "fp32", "fp32", BITS)
    yield _choice("bfloat16", (master,), "split32", "bf16", "fp32")
    yield _choice("bfloat16", ('master_weights="24bit"',), "split24", "bf16", "fp32")
    yield _choice("bfloat16", ('master_weights="24bit"', state), "split24", "bf16", "stochastic_bf16")
    yield _choice("bfloat16", ('master_weights="24bit"', bits), "split24", "bf16", BITS)
    yield _choice("bfloat16", (rounded, "state_dtype=torch.float32"), "stochastic_bf16", "bf16", "fp32")
    yield _choice("bfloat16", (rounded,), "stochastic_bf16", "bf16", "stochastic_bf16")
    yield _choice("bfloat16", (rounded, bits), "stochastic_bf16", "bf16", BITS)
    yield _choice("bfloat16", (), "bf16", "bf16", "bf16")
    yield _choice("float16", (master,), "fp32", "fp16", "fp32", copy="fp16")


def _choice(dtype: str, options: tuple[str, ...], param: str, grad: str, state: str, copy: str | None = None) -> Choice:
    rule = RULES["adam"]
    slots = [format_called(rule, slot, state) for slot in rule.required]
    formats = FORMATS[param], FORMATS[grad], *slots, None, None, FORMATS[copy] if copy else None
    return Choice(dtype, ", ".join(options), Variant(rule, formats))
