"""How far a rule in float32 is from the same rule in float64 after many steps."""

from __future__ import annotations

import numpy as np

from gpuopt.kernels.drivers import numpy as driver
from gpuopt.kernels.formats import FORMATS
from gpuopt.kernels.rules import Rule
from gpuopt.kernels.variant import Variant
from gpuopt.verify.drawing import Array
from gpuopt.verify.tensors import Tensors
from gpuopt.verify.variants import hyper_fields
from kit.tolerances import ACCURACY

STEPS = 1000
NUMEL = 2000

MOST = ACCURACY["fp32"]


def of(rule: Rule, present: tuple[str, ...], name: str) -> Variant:
    """The variant with all slots in one format."""
    format = FORMATS[name]
    return Variant(rule, (format, format, *(format if slot in present else None for slot in rule.slots)))


def assert_close_to_float64(rule: Rule, present: tuple[str, ...]) -> None:
    """Demands that the NumPy form in float32 comes as close to itself in float64 as ``ACCURACY`` says.

    Of a rule that is not continuous each step in float64 starts from the parameters of float32, since they part for
    good where a rounding decides; few steps may take a parameter elsewhere, and none by more than there and back.
    """
    narrow = Tensors(of(rule, present, "fp32"), [NUMEL], seed=5, ordinary_share=1.0)
    wide = Tensors(of(rule, present, "fp64"), [NUMEL], ordinary_share=1.0)
    for slot in present:
        narrow.stored(0, slot)[:] = 0
    for slot in narrow.formats:
        wide.stored(0, slot)[:] = narrow.stored(0, slot)
    fields = hyper_fields(narrow.variant) | {"grad_scale": 1.0, "weight_decay": 0.01, "decoupled_decay": 1e-4}
    rows = [list(fields.values())]
    tables = [tensors.table(driver.TILE) for tensors in (narrow, wide)]
    elsewhere = 0
    for step in range(STEPS):
        narrow.draw(seed=step)
        wide.stored(0, "grad")[:] = narrow.stored(0, "grad")
        if not rule.continuous:
            wide.stored(0, "param")[:] = narrow.stored(0, "param")
        before = wide.stored(0, "param").copy()
        for table in tables:
            driver.run(table, table.variant.hyper_array(rows))
        if not rule.continuous:
            off = errors(narrow, wide, "param")
            elsewhere += int((off > MOST["param"]).sum())
            farthest = np.abs(wide.stored(0, "param") - before).max() / scale(wide, "param")
            assert off.max() <= 2 * farthest + MOST["param"]
    if not rule.continuous:
        print(f"{narrow.variant}: of {STEPS * NUMEL:,} steps {elsewhere} went elsewhere")
        assert elsewhere <= MOST["elsewhere"] * STEPS * NUMEL
    for slot in ("param", *present):
        assert np.isfinite(wide.stored(0, slot)).all()
        if slot != "param" or rule.continuous:
            error = errors(narrow, wide, slot).max()
            print(f"{narrow.variant}: largest error of {slot} {error:.1e}")
            assert error <= MOST["param" if slot == "param" else "state"]


def errors(narrow: Tensors, wide: Tensors, slot: str) -> Array:
    """Of each element, relative to the root mean square of its slot."""
    off: Array = np.abs(narrow.stored(0, slot) - wide.stored(0, slot)) / scale(wide, slot)
    return off


def scale(wide: Tensors, slot: str) -> float:
    """The root mean square of a slot."""
    return float(np.sqrt(np.mean(wide.stored(0, slot) ** 2)))
