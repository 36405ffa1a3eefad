r"""Blocks: elements that follow each other in memory and are stored as codes that share a scale.

.. math::

    s = \begin{cases}
        0 & \text{if } l = 0 \\
        \max(l, 2^{-126}) & \text{if } l \text{ is finite} \\
        \text{NaN} & \text{else}
    \end{cases}
    \qquad f = \begin{cases} t / s & \text{if } 0 < s < \infty \\ 0 & \text{else} \end{cases}

for the largest magnitude :math:`l` of the block, NaN being above infinity, and the ``top`` :math:`t` of the format:
the factor :math:`f` scales magnitudes to codes, of which the scale :math:`s` makes values again. So what is not finite
makes NaN of its block, which is seen, and zeros stay zeros. Magnitudes are compared as integers, in any order.

Sources: Dettmers et al., "8-bit Optimizers via Block-wise Quantization" (ICLR 2022), section 2.1, for blocks that have
the largest magnitude for a scale.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from gpuopt.kernels.formats.format import BLOCK, Format
from gpuopt.kernels.select import select

if TYPE_CHECKING:
    import triton.language as tl

    from gpuopt.kernels.triton_math import div_rn

Array = np.ndarray[Any, Any]


def magnitude_of(value: Any) -> Any:
    """The bits of the magnitude of ``value`` in float32, as uint32."""
    return np.uint32(np.float32(value).view(np.uint32) & np.uint32(0x7FFFFFFF))


def scale_of(largest: Any) -> Any:
    """The scale of a block, float32, from the bits of its largest magnitude."""
    bits = select(largest < np.uint32(0x00800000), np.uint32(0x00800000), largest)
    bits = select(largest > np.uint32(0x7F7FFFFF), np.uint32(0x7FC00000), bits)
    return np.uint32(select(largest == np.uint32(0), np.uint32(0), bits)).view(np.float32)


def factor_of(scale: Any, top: Any) -> Any:
    """The factor of a block, float32, from its scale."""
    is_live = scale > np.float32(0)
    return select(is_live, np.float32(top) / select(is_live, scale, np.float32(1)), np.float32(0))


def spread(entries: Array, numel: int) -> Array:
    """The entry of its block for each of ``numel`` elements, the first of which begins a block."""
    return np.repeat(entries, BLOCK)[:numel]


def load(format: Format, planes: Sequence[Array]) -> Array:
    """The values of elements, of any format; in one of blocks, the first of them begins a block."""
    if format.in_blocks:
        codes, scales = planes
        planes = codes, spread(scales, codes.size)
    values: Array = format.load(*planes)
    return values


def store(format: Format, values: Array, random: Array | None) -> tuple[Array, ...]:
    """The entries of each plane for elements, as :func:`load`; ``random`` as for the format's own ``store``."""
    if not format.in_blocks:
        entries: tuple[Array, ...] = format.store(values, random)
        return entries
    magnitudes = magnitude_of(values)
    largest = np.maximum.reduceat(magnitudes, np.arange(0, values.size, BLOCK)) if values.size else magnitudes
    scales: Array = scale_of(largest)
    (codes,) = format.store(values, random, spread(factor_of(scales, format.top), values.size))
    return codes, scales


CUDA_FORM = """
static __device__ inline unsigned int magnitude_of(float value) { return bits_of(value) & 0x7fffffffu; }

static __device__ inline float scale_of(unsigned int largest) {
    if (largest == 0u) return 0.0f;
    if (largest > 0x7f7fffffu) return float_of(0x7fc00000u);
    return float_of(largest < 0x00800000u ? 0x00800000u : largest);
}

static __device__ inline ieee_float factor_of(float scale, float top) {
    const ieee_float divisor = scale;
    return divisor > ieee_float(0.0f) ? ieee_float(top) / divisor : ieee_float(0.0f);
}
"""


def triton_magnitude(value):
    """As :func:`magnitude_of`."""
    return value.to(tl.float32).to(tl.uint32, bitcast=True) & 0x7FFFFFFF


def triton_scale(largest):
    """As :func:`scale_of`."""
    bits = tl.where(largest > 0x7F7FFFFF, 0x7FC00000, tl.maximum(largest, 0x00800000))
    return tl.where(largest == 0, 0, bits).to(tl.uint32).to(tl.float32, bitcast=True)


def triton_factor(scale, top):
    """As :func:`factor_of`."""
    is_live = scale > 0
    return tl.where(is_live, div_rn(tl.full(scale.shape, top, tl.float32), tl.where(is_live, scale, 1.0)), 0.0)
