"""What earlier work leaves for a step: loss scale, clip factor, and whether an infinity was found.

1. The oracle's step with signals is its step without them, with the gradient scale multiplied by the clip factor and
   then divided by the loss scale, each rounded to the compute dtype, given or not, whatever their values.
2. One step of SGD with average, copy and gradients to zero is the textbook's, operation by operation.
3. Numba and the CUDA C++ of the CuPy driver's table form, compiled for the host, give the oracle's bits for each of
   the eight ways to give or leave out three signals, and for zeros, infinities, NaN and subnormals in them.
4. Where found_inf is not zero, NaN included, no driver writes a byte of parameters, state, average or copy, nor of
   gradients unless they are to be zeroed, and then they are.
5. Signals and hyper rows are only read, and no value of theirs raises a warning.

``interpreted/test_triton_signals.py`` has 3 and 4 for the Triton driver.
"""

from __future__ import annotations

import numpy as np
import pytest
from kit import host_cuda
from kit.given import assert_same_step, assert_untouched
from kit.same import assert_same_bits

from gpuopt.kernels.drivers import numba as numba_driver
from gpuopt.kernels.drivers import numpy as oracle
from gpuopt.kernels.formats import FORMATS
from gpuopt.kernels.rules import RULES
from gpuopt.kernels.variant import Variant
from gpuopt.verify.drawing import stored
from gpuopt.verify.given import COMBINATIONS, EDGES, FOUND, SIGNALLED, Given
from gpuopt.verify.tensors import Tensors
from gpuopt.verify.variants import edge_hyper_rows, hyper_fields, with_epilogue

FORMS = {"numba": numba_driver.run, "cuda table": host_cuda.run_table}

TILE = 128
NUMELS = [0, 1, 9, TILE - 1, 2 * TILE + 5]

each_variant = pytest.mark.parametrize("variant", SIGNALLED, ids=str)
each_form = pytest.mark.parametrize("form", FORMS)


@each_variant
def test_the_oracle_scales_the_gradient_scale(variant: Variant) -> None:
    for values in COMBINATIONS + EDGES:
        rows = edge_hyper_rows(variant)
        tensors = Tensors(variant, [70] * len(rows), seed=1)
        expected = tensors.copy()
        hyper = variant.hyper_array(rows)
        scaled = hyper.copy()
        compute = variant.compute.type
        with np.errstate(all="ignore"):
            for row in scaled:
                product = row[0] * compute(values.get("clip_factor", 1.0))
                row[0] = product / compute(np.float32(values.get("loss_scale", 1.0)))
        given = Given(variant, **values)
        indices = np.arange(len(rows))
        oracle.run(tensors.table(oracle.TILE, indices), hyper, signals=given.signals)
        oracle.run(expected.table(oracle.TILE, indices), scaled)
        assert_same_bits(tensors, expected, f"{values}:")


@pytest.mark.parametrize("zero_grads", [False, True])
def test_a_step_of_sgd_is_the_textbooks(zero_grads: bool) -> None:
    variant = with_epilogue(RULES["sgd"], "fp32", "fp16", "fp32", "bf16", "bf16", zero_grads)
    variant = Variant(variant.rule, (*variant.formats[:2], None, *variant.formats[3:]), zero_grads)
    tensors = Tensors(variant, [1000], seed=2, ordinary_share=1.0)
    f = np.float32
    p, g, average = (
        FORMATS[name].load(tensors.stored(0, slot)).astype(np.float32)
        for slot, name in (("param", "fp32"), ("grad", "fp16"), ("average", "bf16"))
    )
    gradient = tensors.stored(0, "grad").copy()
    fields = hyper_fields(variant) | {"grad_scale": -1.0, "weight_decay": 0.02, "decoupled_decay": 0.0}
    given = Given(variant, loss_scale=1024.0, clip_factor=0.3, found_inf=0.0)
    oracle.run(tensors.table(oracle.TILE), variant.hyper_array([list(fields.values())]), signals=given.signals)

    p = p - (g * (f(-1) * f(0.3) / f(1024)) + p * f(0.02)) * f(fields["step_size"])
    average = average + (p - average) * f(fields["average_weight"])
    assert tensors.stored(0, "param").tobytes() == p.tobytes()
    assert tensors.stored(0, "average").tobytes() == stored(FORMATS["bf16"], average).tobytes()
    assert tensors.stored(0, "copy").tobytes() == stored(FORMATS["bf16"], p).tobytes()
    left = np.zeros_like(gradient) if zero_grads else gradient
    assert tensors.stored(0, "grad").tobytes() == left.tobytes()


@each_form
@each_variant
def test_same_bits_with_signals(variant: Variant, form: str) -> None:
    for values in COMBINATIONS + EDGES:
        assert_same_step(FORMS[form], variant, TILE, NUMELS, values)


@pytest.mark.parametrize("form", [*FORMS, "numpy"])
@each_variant
def test_where_an_infinity_was_found_nothing_is_written(variant: Variant, form: str) -> None:
    for found in FOUND:
        assert_untouched((FORMS | {"numpy": oracle.run})[form], variant, TILE, NUMELS, found)
