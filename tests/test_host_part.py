"""What a step on a GPU costs the host is counted without one.

1. A step is one launch, and calls as many functions of Python for 2,000 tensors as for 200, but for a few that NumPy or
   PyTorch may add: what grows with the number of tensors is asked of them by C code in one list each.
2. Another set of tensors than last time, of those that were seen before, costs no more calls than the same set.
3. The stand-in leaves the driver as it was.
"""

from __future__ import annotations

import pytest
from kit import host_part

from gpuopt.kernels.drivers import triton as driver

MOST_CALLS, A_FEW = 200, 5


@pytest.mark.parametrize("way", host_part.WAYS)
def test_calls_do_not_grow_with_the_number_of_tensors(way: str) -> None:
    few, many = (host_part.cost(tensors, host_part.WAYS[way], steps=4) for tensors in (200, 2000))
    assert few.launches == many.launches == 1
    assert max(few.calls, many.calls) <= min(few.calls, many.calls) + A_FEW
    assert many.calls <= MOST_CALLS


def test_another_set_costs_no_more_calls() -> None:
    same, others = (host_part.cost(200, way, steps=8) for way in (host_part.same, host_part.taking_turns))
    assert others.calls <= same.calls + A_FEW


def test_the_driver_is_as_it_was() -> None:
    before = dict(vars(driver))
    with host_part.stand_in():
        assert driver.launcher is not before["launcher"]
    assert dict(vars(driver)) == before
