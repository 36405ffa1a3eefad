r"""Values of either sign in 8 bits, in blocks: a sign, and a magnitude that is rounded stochastically.

.. math::

    y = c + |x|\, f, \qquad q = \lfloor (\text{bits}(y) + 2^4 r) / 2^{20} \rfloor - 889, \qquad
    |x| \approx \frac{\text{float}(2^{20} (q + 889)) - c}{1 - c}\, s

with :math:`c = 1.125 \cdot 2^{-16}`, whose bits are :math:`889 \cdot 2^{20}`, 16 random bits :math:`r`, and scale
:math:`s` and factor :math:`f` of :mod:`gpuopt.kernels.blocks`, which scales the largest magnitude to just above
:math:`1 - c`. So :math:`q` goes from 0 to 127, in steps of :math:`1.9 \cdot 10^{-6} s` at zero, and of a sixteenth to
an eighth of large magnitudes. The mean of what is stored is the value: rounded to nearest, an average would
not fall any further where that takes less than half a step, and grow beyond all bounds beside a mean of squares that
does. The largest magnitude of a block comes back exactly: as
:math:`y` exceeds 1 by less than 16 units, it has no other code.

The curve is that of a compander with a linear beginning, as in ITU-T G.711 (1972).
"""

from typing import TYPE_CHECKING, Any

import numpy as np

from gpuopt.kernels.formats.format import CODES, SCALES, Format

if TYPE_CHECKING:
    import triton.language as tl

TOP = 0.9999830722808838
"""Above 1 - c by 2^-22 of it, so that no rounding makes a smaller code of the largest magnitude."""


def load(code: Any, scale: Any) -> Any:
    """The value of a code. The factor after the difference is 1 / (1 - c)."""
    code = np.uint32(code)
    bits = np.uint32(np.uint32((code << np.uint32(20)) & np.uint32(0x07F00000)) + np.uint32(889 << 20))
    share = (bits.view(np.float32) - np.float32(1.71661376953125e-05)) * np.float32(1.0000171661376953)
    magnitude = np.float32(share * scale)
    sign = np.uint32((code << np.uint32(24)) & np.uint32(0x80000000))
    return np.uint32(magnitude.view(np.uint32) | sign).view(np.float32)


def store(value: Any, random: Any, factor: Any) -> Any:
    """The code of ``value`` in float32, rounded by ``random``, uint32 below 2^16."""
    bits = np.float32(value).view(np.uint32)
    magnitude = np.uint32(bits & np.uint32(0x7FFFFFFF)).view(np.float32)
    near = np.float32(magnitude * factor + np.float32(1.71661376953125e-05))
    rounded = np.uint32(near.view(np.uint32) + np.uint32(random << np.uint32(4)) - np.uint32(889 << 20))
    return (np.uint8((rounded >> np.uint32(20)) | ((bits >> np.uint32(24)) & np.uint32(0x80))),)


CUDA_FORM = """
struct signed8 {
    static __device__ inline float load(unsigned char code, float scale) {
        const unsigned int bits = code;
        const ieee_float near = float_of(((bits << 20) & 0x07f00000u) + (889u << 20));
        const ieee_float share = (near - ieee_float(1.71661376953125e-05f)) * ieee_float(1.0000171661376953f);
        return float_of(bits_of(narrow(share * ieee_float(scale))) | ((bits << 24) & 0x80000000u));
    }
    template <class T>
    static __device__ inline void store(T value, unsigned int random, ieee_float factor, unsigned char& code) {
        const unsigned int bits = bits_of(narrow(value));
        const ieee_float magnitude = float_of(bits & 0x7fffffffu);
        const unsigned int near = bits_of(narrow(magnitude * factor + ieee_float(1.71661376953125e-05f)));
        const unsigned int rounded = near + (random << 4) - (889u << 20);
        code = static_cast<unsigned char>((rounded >> 20) | ((bits >> 24) & 0x80u));
    }
};
"""


def triton_load(code, scale, compute):
    """As :func:`load`."""
    code = code.to(tl.uint32)
    share = (((code << 20) & 0x07F00000) + 0x37900000).to(tl.float32, bitcast=True) - 1.71661376953125e-05
    magnitude = share * 1.0000171661376953 * scale
    bits = magnitude.to(tl.uint32, bitcast=True) | ((code << 24) & 0x80000000)
    return bits.to(tl.float32, bitcast=True).to(compute)


def triton_store(value, random, factor):
    """As :func:`store`."""
    bits = value.to(tl.float32).to(tl.uint32, bitcast=True)
    magnitude = (bits & 0x7FFFFFFF).to(tl.float32, bitcast=True)
    near = (magnitude * factor + 1.71661376953125e-05).to(tl.uint32, bitcast=True)
    rounded = near + (random << 4) - 0x37900000
    return (((rounded >> 20) | ((bits >> 24) & 0x80)).to(tl.uint8),)


FORMAT = Format(
    "signed8",
    (CODES, SCALES),
    load,
    store,
    load,
    store,
    CUDA_FORM,
    triton_load,
    triton_store,
    is_random=True,
    top=TOP,
)
