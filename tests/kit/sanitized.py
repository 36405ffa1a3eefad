"""Runs one rule's CUDA C++ forms on the host under sanitizers, as a program: ``sanitized.py RULE FORM [COLUMN]``.

Every slot has an allocation of exactly its size, so that one element too many is an error. With the number of a
column of the table, that column is raised by one in each row first, which is the error to be found.
"""

from __future__ import annotations

import sys

from gpuopt.kernels import epilogue
from gpuopt.kernels.drivers import cuda_source
from gpuopt.verify.given import Given
from gpuopt.verify.tensors import Tensors
from gpuopt.verify.variants import hyper_rows, variants
from kit import host_cuda

FORMS = {"table": host_cuda.run_table, "array": host_cuda.run_array}

FORMAT_SETS = [("fp32", "fp32"), ("bf16", "bf16"), ("fp64", "fp16")]
"""Formats of parameter and gradient: 4, 8 and again 8 elements a thread, the last in 64 bytes and in 16."""

TILE = 128
NUMELS = [0, 1, 2, 7, 8, 9, TILE - 1, TILE, TILE + 1, 2 * TILE + 5]


def main(rule: str, form: str, column: str | None = None) -> None:
    """Runs all option sets of ``rule``, aligned and misaligned."""
    chosen = {}
    for variant in variants():
        formats = tuple(format.name for format in variant.formats[:2] if format is not None)
        if variant.rule.name == rule and (formats in FORMAT_SETS or variant.present[-1] in epilogue.SLOTS):
            chosen[variant.present, formats] = variant
    assert chosen
    for variant in chosen.values():
        if form == "array" and not cuda_source.has_array_form(variant):
            continue
        hyper = variant.hyper_array(hyper_rows(variant, 1))
        for misaligned in (False, True, "grad"):
            tensors = Tensors(variant, NUMELS, misaligned=misaligned, guard=0)
            table = tensors.table(TILE, [0, 1] * (len(NUMELS) // 2))
            if column is not None:
                table.rows[:, int(column)] += 1
            FORMS[form](table, hyper, sanitize=True)
            if form == "table":
                given = Given(variant, loss_scale=3.0, clip_factor=0.7, found_inf=0.0)
                host_cuda.run_table(table, hyper, signals=given.signals, sanitize=True)
    print("finished", len(chosen), "variants")


if __name__ == "__main__":
    main(*sys.argv[1:])
