"""The registry of formats. To add one, write its file and name it here."""

from gpuopt.kernels.formats import bf16, fp16, fp32, fp64, split24, split32, stochastic_bf16
from gpuopt.kernels.formats.format import Format, Plane

FORMATS: dict[str, Format] = {
    module.FORMAT.name: module.FORMAT for module in (fp32, fp64, bf16, fp16, split32, split24, stochastic_bf16)
}

BY_DTYPE: dict[str, Format] = {
    format.planes[0].dtype: format for format in (fp32.FORMAT, fp64.FORMAT, bf16.FORMAT, fp16.FORMAT)
}
"""What an array is stored in by its dtype alone."""

__all__ = ["BY_DTYPE", "FORMATS", "Format", "Plane"]
