"""The registry of formats. To add one, write its file and name it here."""

from gpuopt.kernels.formats import bf16, fp16, fp32, fp64
from gpuopt.kernels.formats.format import Format

FORMATS: dict[str, Format] = {module.FORMAT.name: module.FORMAT for module in (fp32, fp64, bf16, fp16)}
BY_DTYPE: dict[str, Format] = {format.dtype: format for format in FORMATS.values()}

__all__ = ["BY_DTYPE", "FORMATS", "Format"]
