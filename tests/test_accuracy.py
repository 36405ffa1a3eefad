"""After 1,000 steps in float32 every rule is close to the same steps in float64.

The NumPy form runs in both from the same parameters and gradients and a state of zeros. The float64 run takes the
scalars unrounded, those of decay included. An error is relative to the root mean square of its slot.
"""

from __future__ import annotations

import numpy as np
import pytest
from kit.tolerances import ACCURACY

from gpuopt.kernels.drivers import numpy as driver
from gpuopt.kernels.formats import FORMATS
from gpuopt.kernels.rules import RULES
from gpuopt.kernels.variant import Variant
from gpuopt.verify.tensors import Tensors
from gpuopt.verify.variants import hyper_fields

STEPS = 1000
NUMEL = 2000

OPTIONS = [(rule, present) for rule in RULES.values() for present in rule.option_sets()]


def of(rule, present: tuple[str, ...], name: str) -> Variant:
    """The variant with all slots in one format."""
    format = FORMATS[name]
    return Variant(rule, (format, format, *(format if slot in present else None for slot in rule.slots)))


@pytest.mark.parametrize(("rule", "present"), OPTIONS, ids=[str(of(*options, "fp32")) for options in OPTIONS])
def test_float32_stays_close_to_float64(rule, present: tuple[str, ...]) -> None:
    narrow = Tensors(of(rule, present, "fp32"), [NUMEL], seed=5, ordinary_share=1.0)
    wide = Tensors(of(rule, present, "fp64"), [NUMEL], ordinary_share=1.0)
    for slot in present:
        narrow.stored(0, slot)[:] = 0
    for slot in narrow.formats:
        wide.stored(0, slot)[:] = narrow.stored(0, slot)
    fields = hyper_fields(narrow.variant) | {"grad_scale": 1.0, "weight_decay": 0.01, "decoupled_decay": 1e-4}
    rows = [list(fields.values())]
    tables = [tensors.table(driver.TILE) for tensors in (narrow, wide)]
    for step in range(STEPS):
        narrow.draw(seed=step)
        wide.stored(0, "grad")[:] = narrow.stored(0, "grad")
        for table in tables:
            driver.run(table, table.variant.hyper_array(rows))
    for slot in ("param", *present):
        exact, rounded = wide.stored(0, slot), narrow.stored(0, slot)
        assert np.isfinite(exact).all()
        error = np.abs(rounded - exact).max() / np.sqrt(np.mean(exact**2))
        print(f"{narrow.variant}: largest error of {slot} {error:.1e}")
        assert error <= ACCURACY["fp32"]["param" if slot == "param" else "state"]
