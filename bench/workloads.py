"""The registry of workloads: what steps are timed on, as data."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import NamedTuple

from gpuopt.bench.optimizers import OPTIMIZERS, Optimizer
from gpuopt.bench.shapes import MODELS, ONES, SCALED, SHAPES, Shapes
from gpuopt.eight_bit import BITS, format_called
from gpuopt.kernels.epilogue import AVERAGE
from gpuopt.kernels.variant import Variant, slots_of

CLIP, AVERAGED, ZERO = "clip", "ema", "zero"
"""What a tail may do besides the step: unscale gradients and clip them, average the weights, zero the gradients."""


class Stored(NamedTuple):
    """How the slots are stored, by names of :data:`gpuopt.kernels.formats.FORMATS`; state also as ``"8bit"``."""

    param: str
    grad: str
    state: str


FORMAT_SETS = {
    "fp32": Stored("fp32", "fp32", "fp32"),
    "bf16-fp32-state": Stored("bf16", "bf16", "fp32"),
    "bf16": Stored("bf16", "bf16", "bf16"),
    "split32": Stored("split32", "bf16", "fp32"),
    "split24": Stored("split24", "bf16", "fp32"),
    "split24-stochastic-state": Stored("split24", "bf16", "stochastic_bf16"),
    "stochastic-fp32-state": Stored("stochastic_bf16", "bf16", "fp32"),
    "stochastic": Stored("stochastic_bf16", "bf16", "stochastic_bf16"),
}

EIGHT_BIT_SETS = {
    "8bit": Stored("fp32", "fp32", BITS),
    "split24-8bit": Stored("split24", "bf16", BITS),
    "stochastic-8bit": Stored("stochastic_bf16", "bf16", BITS),
}
"""Those whose state is in 8 bits, each slot in the format that is for it."""

FORMAT_TITLES = {
    "fp32": "fp32",
    "bf16-fp32-state": "bf16, state fp32",
    "bf16": "all bf16",
    "split32": "bf16 + 16 bits, state fp32",
    "split24": "bf16 + 8 bits, state fp32",
    "split24-stochastic-state": "bf16 + 8 bits, state stochastic bf16",
    "stochastic-fp32-state": "stochastic bf16, state fp32",
    "stochastic": "all stochastic bf16",
    "8bit": "fp32, state 8 bits",
    "split24-8bit": "bf16 + 8 bits, state 8 bits",
    "stochastic-8bit": "stochastic bf16, state 8 bits",
}
"""What tables call them."""


@dataclass(frozen=True)
class Workload:
    """One optimizer on one list of tensors.

    Attributes:
        group: The table that it is shown in, key of :data:`GROUPS`.
        optimizer_name: Key of :data:`gpuopt.bench.optimizers.OPTIMIZERS`.
        shapes_name: Key of :data:`gpuopt.bench.shapes.SHAPES`.
        formats_name: Key of :data:`FORMAT_SETS` or :data:`EIGHT_BIT_SETS`.
        front: ``"torch"``: ``step()`` of optimizers for PyTorch; ``"arrays"``: ``update()`` of :mod:`gpuopt.arrays`.
        tail: Which of ``CLIP``, ``AVERAGED`` and ``ZERO`` belong to the step. Each of the first two takes the
            loss scale off the gradients before.
        new_grads: Whether each step finds new gradients, as after ``zero_grad()``; else the same tensors in all steps.
        parts: As many parts, one after the other in the list, take turns: in each step the tensors of one have
            gradients and those of the others have none, as the experts of a mixture that no token is sent to. The
            gradients are put in and taken away, and stay the same ones, so that only which there are changes.
        misaligned_grads: Whether gradients are aligned to their elements only, one element off 16 bytes, as a sharded
            model's are that lie in one buffer.
        sharded: Whether parameters are DTensors, of which this process has all.
        turns: Most turns of each contender.
        steps_per_turn: Timed steps in a turn.
    """

    group: str
    optimizer_name: str
    shapes_name: str
    formats_name: str = "fp32"
    front: str = "torch"
    tail: tuple[str, ...] = ()
    new_grads: bool = False
    parts: int = 1
    misaligned_grads: bool = False
    sharded: bool = False
    turns: int = 30
    steps_per_turn: int = 2

    def __post_init__(self) -> None:
        if (self.new_grads or self.parts > 1) and (self.front != "torch" or self.tail):
            raise ValueError("new_grads and parts are for the front end for torch without a tail")
        if self.misaligned_grads and (self.new_grads or self.front != "torch"):
            raise ValueError("misaligned_grads are for the front end for torch without new_grads, which are aligned")
        if self.sharded and self.front != "torch":
            raise ValueError("sharded is for the front end for torch")

    @property
    def optimizer(self) -> Optimizer:
        """What is stepped."""
        return OPTIMIZERS[self.optimizer_name]

    @property
    def shapes(self) -> Shapes:
        """What on."""
        return SHAPES[self.shapes_name]

    @property
    def formats(self) -> Stored:
        """How it is stored."""
        return (FORMAT_SETS | EIGHT_BIT_SETS)[self.formats_name]

    @property
    def key(self) -> str:
        """What goals, patterns and comparisons call it."""
        parts = [self.optimizer_name.lower(), self.shapes_name, self.formats_name]
        parts = ["arrays", *parts] if self.front == "arrays" else parts
        more = [*self.tail]
        if self.new_grads:
            more.append("new-grads")
        if self.parts > 1:
            more.append(f"1-of-{self.parts}")
        if self.misaligned_grads:
            more.append("misaligned-grads")
        if self.sharded:
            more.append("sharded")
        return "/".join([*parts, "-".join(more)] if more else parts)

    @property
    def title(self) -> str:
        """What tables call it."""
        parts = [self.optimizer.title, self.shapes.title]
        if self.formats_name != "fp32":
            parts.append(FORMAT_TITLES[self.formats_name])
        if self.tail:
            parts.append("with " + ", ".join(self.tail))
        if self.new_grads:
            parts.append("new gradients each step")
        if self.parts > 1:
            parts.append(f"1/{self.parts} of them each step")
        if self.misaligned_grads:
            parts.append("misaligned gradients")
        if self.sharded:
            parts.append("as DTensors")
        if self.front == "arrays":
            parts.append("as arrays")
        return ", ".join(parts)

    @property
    def lr(self) -> float:
        """The learning rate: such that a few steps move every parameter by many units in its last place."""
        return 1e-3 if self.formats.param == "fp32" else 0.25

    @property
    def variant(self) -> Variant:
        """What a driver compiles for it."""
        stored = dict.fromkeys(self.optimizer.state, self.formats.state)
        stored |= {"param": self.formats.param, "grad": self.formats.grad}
        if AVERAGED in self.tail:
            stored[AVERAGE] = "fp32"
        rule = self.optimizer.rule
        formats = tuple(format_called(rule, slot, stored[slot]) if slot in stored else None for slot in slots_of(rule))
        return Variant(rule, formats, zero_grads=ZERO in self.tail)

    @property
    def stored(self) -> int:
        """Bytes that parameters, with what is beside them, and the rule's state take."""
        variant, slots = self.variant, ("param", *self.optimizer.state)
        formats = [variant.formats[variant.slots.index(slot)] for slot in slots]
        return sum(format.nbytes(prod(shape)) for format in formats if format for shape in self.shapes.shapes)

    @property
    def bytes(self) -> int:
        """Bytes that any code must move in a step: it reads every slot once, and writes what changes.

        Of tensors in parts, it is the mean over the steps.
        """
        return sum(self.variant.bytes_moved(prod(shape)) for shape in self.shapes.shapes) // self.parts


GROUPS = {
    "arrays": "The front end for arrays",
    "many": "Many tensors",
    "tail": "The tail of a training step: unscale, clip, step, average, zero",
    "rules": "Every rule",
    "sizes": "One tensor, by its elements",
    "models": "Models",
    "formats": "Formats",
}

TAILS = ((CLIP, AVERAGED), (CLIP, AVERAGED, ZERO))

SIZES = tuple(
    Workload("sizes", "Adam", shapes.name, steps_per_turn=10 if shapes.numel < 1 << 16 else 2) for shapes in ONES
)
"""One tensor each; a step on a small one takes so little of a turn that more of them fit into it."""

DECISIVE = (
    Workload("models", "Adam", "llama-3.2-1b"),
    Workload("models", "RMSprop", "llama-3.2-1b"),
    Workload("models", "Adam", "llama-3.2-1b", "bf16"),
    Workload("tail", "AdamW", "gpt2-124m", tail=TAILS[0]),
    Workload("many", "Adam", "10000x1000"),
    Workload("many", "Adam", "300x64"),
    Workload("models", "Adam", "llama-3.2-1b", misaligned_grads=True),
    Workload("models", "SGD", "llama-3.2-1b"),
    Workload("models", "Adagrad", "llama-3.2-1b"),
)
"""What decides on a GPU: the step at the size of a model, its tail on a smaller one, so that four contenders fit into
80 GB, many small tensors, and gradients as a sharded model has them."""

JUDGED = (
    Workload("arrays", "Adam", "one-20m", front="arrays"),
    Workload("arrays", "RMSprop", "one-20m", front="arrays"),
    Workload("arrays", "Adam", "1000x64", front="arrays"),
    Workload("rules", "Adam", "200x100000"),
    Workload("rules", "RMSprop", "200x100000"),
    Workload("many", "Adam", "1000x64"),
    Workload("many", "Adam", "1000x64", new_grads=True, steps_per_turn=4),
    Workload("many", "Adam", "experts-64x4x256", parts=8, steps_per_turn=16),
    Workload("many", "RMSprop", "1000x64"),
    Workload("many", "AdamW", "300x64", sharded=True, steps_per_turn=4),
    SIZES[0],
    Workload("tail", "AdamW", "200x100000", tail=TAILS[0]),
)
"""Those that :data:`gpuopt.bench.goals.GOALS` judges."""


def decides(device: str) -> tuple[Workload, ...]:
    """What a quick run is of: on a CPU what has goals, on a GPU :data:`DECISIVE`."""
    return JUDGED if device == "cpu" else DECISIVE


def workloads(device: str) -> tuple[Workload, ...]:
    """All workloads of a device, those that decide first. Models are scaled down for a CPU.

    Args:
        device: ``"cpu"`` or ``"cuda"``.
    """
    on_cpu = device == "cpu"
    models = [MODELS[0], *SCALED] if on_cpu else MODELS
    mixed = "gpt2-124m-width-192" if on_cpu else "llama-3.2-1b"
    every = (
        *decides(device),
        *JUDGED,
        *(Workload("models", "AdamW", shapes.name) for shapes in models),
        *(Workload("models", "AdamW", shapes.name, "bf16") for shapes in models if shapes.numel > 1 << 32),
        *reversed(SIZES),
        *(Workload("formats", "AdamW", "one-24", formats) for formats in FORMAT_SETS | EIGHT_BIT_SETS),
        *(Workload("formats", "AdamW", mixed, formats) for formats in ("bf16-fp32-state", "bf16")),
        *(Workload("rules", name, "200x100000") for name in ("AdamW", "SGD", "Adagrad")),
        Workload("many", "Adam", "10000x1000"),
        Workload("tail", "AdamW", "200x100000", tail=TAILS[1]),
        Workload("tail", "AdamW", mixed, tail=TAILS[1]),
        Workload("arrays", "Adam", "one-20", front="arrays"),
        Workload("arrays", "RMSprop", "one-20", front="arrays"),
    )
    return tuple(dict.fromkeys(every))
