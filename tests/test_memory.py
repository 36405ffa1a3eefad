"""Where the elements of an array are.

1. ``extent``, ``dense``, ``order`` and ``packed_order`` describe any strided array as NumPy itself does.
2. Overlap is exact: interleaved views do not share memory, views with one common element do.
"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from gpuopt.memory import full_like, memory_of, share_memory


@st.composite
def views(draw):
    """A view of a float32 array: sliced, reversed, transposed."""
    shape = draw(hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5))
    base = np.zeros(shape, np.float32)
    view = base[draw(hnp.basic_indices(shape, allow_newaxis=True))] if shape else base
    view = np.asarray(view)
    return base, view.transpose(draw(st.permutations(range(view.ndim))))


@settings(derandomize=True, deadline=None, max_examples=300)
@given(views())
def test_extent_and_density(both):
    _, view = both
    memory = memory_of(view, "view")
    assert memory.numel == view.size
    assert memory.shape == view.shape
    if view.size:
        assert memory.extent == np.lib.array_utils.byte_bounds(view)
    contiguous_in_some_order = any(
        view.transpose(axes).flags.c_contiguous
        for axes in [np.argsort([-abs(s) if n > 1 else 0 for s, n in zip(view.strides, view.shape, strict=True)])]
    )
    if view.size and contiguous_in_some_order:
        assert memory.dense
    if memory.dense and view.size:
        assert memory.extent[1] - memory.extent[0] == view.nbytes


@settings(derandomize=True, deadline=None, max_examples=300)
@given(views())
def test_packed_order_is_that_of_a_new_array(both):
    _, view = both
    like = full_like(view, 0, np.float64)
    assert memory_of(view, "view").packed_order == memory_of(like, "like").order or not view.size
    assert memory_of(like, "like").dense


@settings(derandomize=True, deadline=None, max_examples=300)
@given(st.data())
def test_sharing_is_exact(data):
    base = np.zeros((6, 7), np.float32)
    a, b = (np.asarray(base[data.draw(hnp.basic_indices(base.shape))]) for _ in range(2))
    if a.ndim and b.ndim:
        assert share_memory(memory_of(a, "a"), memory_of(b, "b")) == np.shares_memory(a, b)


@pytest.mark.parametrize(
    ("view", "overlaps"),
    [
        (np.zeros((3, 4)), False),
        (np.broadcast_to(np.zeros(4), (3, 4)), True),
        (np.lib.stride_tricks.sliding_window_view(np.zeros(9), 3), True),
        (np.broadcast_to(np.zeros(1), (1, 1)), False),
        (np.zeros((3, 0)), False),
    ],
)
def test_overlap_within_an_array(view, overlaps):
    assert memory_of(view, "view").overlaps_itself is overlaps
