"""The registry of formats. To add one, write its file and name it here."""

from gpuopt.kernels.formats import (
    bf16,
    fp16,
    fp32,
    fp64,
    signed8,
    split24,
    split32,
    square8,
    stochastic_bf16,
)
from gpuopt.kernels.formats.format import BLOCK, Format, Plane

FORMATS: dict[str, Format] = {
    module.FORMAT.name: module.FORMAT
    for module in (fp32, fp64, bf16, fp16, split32, split24, stochastic_bf16, signed8, square8)
}

BY_DTYPE: dict[str, Format] = {
    format.planes[0].dtype: format for format in (fp32.FORMAT, fp64.FORMAT, bf16.FORMAT, fp16.FORMAT)
}
"""What an array is stored in by its dtype alone."""

EIGHT_BIT: dict[str, Format] = {"signed": signed8.FORMAT, "square": square8.FORMAT}
"""By what a state slot holds, :attr:`gpuopt.kernels.rules.Rule.kinds`, its format of 8 bits."""

__all__ = ["BLOCK", "BY_DTYPE", "EIGHT_BIT", "FORMATS", "Format", "Plane"]
