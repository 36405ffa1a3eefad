"""Marks every test in this folder as ``gpu``, and skips it where there is no CUDA device; the backends for one."""

from __future__ import annotations

import ctypes
import os
from functools import cache
from pathlib import Path

import pytest

from gpuopt.kernels.drivers import DRIVERS

HERE = Path(__file__).parent


@cache
def missing() -> str | None:
    """Why nothing here can run; None when it can. Asks the driver alone, which every CUDA program needs."""
    if os.environ.get("TRITON_INTERPRET") == "1":
        return "TRITON_INTERPRET=1: Triton would run on the CPU"
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return "no CUDA driver (libcuda.so.1)"
    count = ctypes.c_int(0)
    if driver.cuInit(0) != 0 or driver.cuDeviceGetCount(ctypes.byref(count)) != 0 or count.value == 0:
        return "no CUDA device"
    return None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    reason = missing()
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker(pytest.mark.gpu)
            if reason is not None:
                item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(params=[name for name, entry in DRIVERS.items() if entry.device == "cuda"])
def backend(request: pytest.FixtureRequest) -> str:
    """Each backend for GPUs in turn, where it can run."""
    reason = DRIVERS[request.param].unavailable()
    if reason:
        pytest.skip(reason)
    return request.param
