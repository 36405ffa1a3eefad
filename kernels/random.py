r"""Random bits of an element in a step, the same on every driver, for formats that round stochastically.

.. math::

    r &= \lfloor h / 2^{16} \rfloor \text{ of an even slot } s, \quad h \bmod 2^{16} \text{ of an odd one} \\
    h &= \text{mix}((i \bmod 2^{32}) \oplus (k_s + \lfloor i / 2^{32} \rfloor \varphi)) \\
    k_s &= \text{mix}(k \oplus \lfloor s / 2 \rfloor), \qquad k = \text{mix}(t \varphi + \text{seed})

for the element :math:`i` of the whole model, slot :math:`s` and step :math:`t`, all modulo :math:`2^{32}`, with
:math:`\varphi = \text{0x9E3779B9}`. So two slots share a hash, of which each has its half: 16 bits. They depend on
nothing else: copies of a model stay equal, a run that goes on is as one that was not interrupted, and into how many
shards a model is cut does not matter.

Source of :func:`mix`: Wellons, "Prospecting for Hash Functions" (2018), lowbias32, whose inputs and outputs are one to
one. Triton's forms are in :mod:`gpuopt.kernels.triton_math`.
"""

from __future__ import annotations

from collections.abc import Callable
from numbers import Integral
from typing import Any, NamedTuple

import numpy as np

PHI = 0x9E3779B9
"""The golden ratio's fraction, in 32 bits."""


class Key(NamedTuple):
    """The halves of a step's key, whole numbers below 2^16, which every compute dtype holds exactly."""

    key_low: float = 0.0
    key_high: float = 0.0


def check_seed(seed: Any) -> None:
    """Refuses what is no seed.

    Raises:
        TypeError: It is no whole number.
        ValueError: It takes more than 32 bits, or is negative.
    """
    if isinstance(seed, bool) or not isinstance(seed, Integral):
        raise TypeError(f"seed must be a whole number, but is {seed!r}")
    if not 0 <= int(seed) < 1 << 32:
        raise ValueError(f"seed must be at least 0 and below 2^32, but is {seed}")


def key_at(step: int, seed: float) -> Key:
    """The key of a step (the first is 1); none is needed where ``seed`` is negative."""
    if seed < 0:
        return Key()
    key = int(mix(np.array([(step * PHI + int(seed)) & 0xFFFFFFFF], dtype=np.uint32))[0])
    return Key(float(key & 0xFFFF), float(key >> 16))


def mix(x: Any) -> Any:
    """The hash of 32 bits, of an array or a compiled scalar of uint32."""
    x = np.uint32(x ^ (x >> np.uint32(16)))
    x = np.uint32(x * np.uint32(0x7FEB352D))
    x = np.uint32(x ^ (x >> np.uint32(15)))
    x = np.uint32(x * np.uint32(0x846CA68B))
    return np.uint32(x ^ (x >> np.uint32(16)))


def slot_key(key_low: Any, key_high: Any, slot: Any) -> Any:
    """The key of a slot, from the halves of the step's and the index of the slot, as an array or scalar of uint32."""
    return mix(np.uint32(np.uint32(key_low) | (np.uint32(key_high) << np.uint32(16))) ^ np.uint32(slot // 2))


def hash_of(low: Any, high: Any, key: Any) -> Any:
    """The hash of elements, from the halves of their indices in the whole model, all of uint32."""
    return mix(np.uint32(low ^ np.uint32(key + np.uint32(high * np.uint32(PHI)))))


def bits_of_even(low: Any, high: Any, key: Any) -> Any:
    """The 16 random bits of elements in a slot of even index, as uint32."""
    return np.uint32(hash_of(low, high, key) >> np.uint32(16))


def bits_of_odd(low: Any, high: Any, key: Any) -> Any:
    """The 16 random bits of elements in a slot of odd index, as uint32."""
    return np.uint32(hash_of(low, high, key) & np.uint32(0xFFFF))


def random_bits(slot: int) -> Callable[[Any, Any, Any], Any]:
    """What gives the random bits of elements in a slot, by its index, from the halves of theirs and its key."""
    return bits_of_odd if slot % 2 else bits_of_even


CUDA_FORM = """
static __device__ inline unsigned int mix(unsigned int x) {
    x ^= x >> 16;
    x *= 0x7feb352du;
    x ^= x >> 15;
    x *= 0x846ca68bu;
    return x ^ (x >> 16);
}

template <class T>
static __device__ inline unsigned int slot_key(T key_low, T key_high, unsigned int slot) {
    return mix((whole(key_low) | (whole(key_high) << 16)) ^ (slot / 2));
}

static __device__ inline unsigned int random_bits(unsigned long long index, unsigned int key, unsigned int slot) {
    const unsigned int hash =
        mix(static_cast<unsigned int>(index) ^ (key + static_cast<unsigned int>(index >> 32) * 0x9e3779b9u));
    return slot % 2 ? hash & 0xffffu : hash >> 16;
}
"""
"""``whole`` makes an unsigned integer of a value of the compute type."""
