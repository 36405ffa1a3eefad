"""Few variants that stand for all."""

from __future__ import annotations

from collections.abc import Sequence

from gpuopt.kernels.variant import Variant


def features(variant: Variant) -> set[tuple[str, ...]]:
    """What a comparison of ``variant`` covers: its rule's set of state slots, and each kind of slot's format."""
    covered: set[tuple[str, ...]] = {
        ("state" if slot in variant.state else slot, format.name)
        for slot, format in zip(variant.slots, variant.formats, strict=True)
        if format is not None
    }
    covered.add(("options", variant.rule.name, *variant.state))
    covered.add(("gradients", "zeroed" if variant.zero_grads else "kept"))
    return covered


def fewest(variants: Sequence[Variant]) -> list[int]:
    """Indices of variants that together cover the features of all, in their order.

    The next is always the one that adds most; of equals, the first.
    """
    wanted = [features(variant) for variant in variants]
    missing = set().union(*wanted)
    chosen = []
    while missing:
        best = max(range(len(variants)), key=lambda index: len(wanted[index] & missing))
        chosen.append(best)
        missing -= wanted[best]
    return sorted(chosen)
