"""What the alternatives are timed on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from gpuopt.kernels.epilogue import SLOTS as EPILOGUE_SLOTS
from gpuopt.kernels.formats import FORMATS
from gpuopt.kernels.rules import RULES
from gpuopt.kernels.table import Table
from gpuopt.kernels.variant import Variant

LARGE = (1 << 27,)
MANY = 10_000 * (1000,)


def variant_of(rule: str, state: tuple[str, ...], format: str) -> Variant:
    """A rule with some of its slots, all stored in one format, and nothing besides."""
    present = ("param", "grad", *state)
    slots = ("param", "grad", *RULES[rule].slots)
    formats = tuple(FORMATS[format] if slot in present else None for slot in slots)
    return Variant(RULES[rule], (*formats, *(None for _ in EPILOGUE_SLOTS)))


ADAM = variant_of("adam", ("exp_avg", "exp_avg_sq"), "fp32")
ADAM_BF16 = variant_of("adam", ("exp_avg", "exp_avg_sq"), "bf16")
RMSPROP = variant_of("rmsprop", ("square_avg",), "fp32")
SGD = variant_of("sgd", ("momentum_buffer",), "fp32")


@dataclass(frozen=True)
class Subject:
    """One optimizer's step on tensors of some sizes.

    Attributes:
        name: What tables call it.
        variant: The rule and its formats.
        numels: Elements of each tensor.
        misaligned: Whether gradients are one element off 16 bytes.
    """

    name: str
    variant: Variant
    numels: tuple[int, ...]
    misaligned: bool = False

    @property
    def bytes(self) -> int:
        """Bytes that a step must move."""
        return sum(map(self.variant.bytes_moved, self.numels))


class Memory:
    """The tensors of a subject on a device, of PyTorch; all alternatives step the same."""

    def __init__(self, subject: Subject, device: str) -> None:
        import torch

        self._subject, self._device = subject, device
        generator = torch.Generator(device).manual_seed(0)
        self._tensors: list[list[Any]] = []
        for numel in subject.numels:
            slots: list[Any] = []
            for slot, format in zip(subject.variant.slots, subject.variant.formats, strict=True):
                if format is None:
                    slots.append(None)
                    continue
                skipped = int(subject.misaligned and slot == "grad")
                made = torch.zeros(skipped + numel, dtype=getattr(torch, format.planes[0].dtype), device=device)[
                    skipped:
                ]
                slots.append(made.normal_(generator=generator) if slot in ("param", "grad") else made)
            self._tensors.append(slots)

    def table(self, tile: int) -> Table:
        """All tensors in one table, with one hyper row."""
        addresses = [[0 if each is None else each.data_ptr() for each in slots] for slots in self._tensors]
        index = 0 if self._device == "cuda" else None
        return Table(self._subject.variant, tile, self._subject.numels, addresses, device=index)
