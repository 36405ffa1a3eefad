"""What the CUDA driver says of itself, without any package for CUDA."""

from __future__ import annotations

import ctypes
from typing import Any

LIBRARY = "libcuda.so.1"
BUS_WIDTH = 37
"""``CU_DEVICE_ATTRIBUTE_GLOBAL_MEMORY_BUS_WIDTH``, in bits."""


def library() -> Any:
    """The CUDA driver's library; None where there is none."""
    try:
        return ctypes.CDLL(LIBRARY)
    except OSError:
        return None


def version(cuda: Any) -> str | None:
    """The newest version of CUDA that the driver supports, ``"13.0"``."""
    number = ctypes.c_int(0)
    if cuda is None or cuda.cuDriverGetVersion(ctypes.byref(number)) != 0 or not number.value:
        return None
    return f"{number.value // 1000}.{number.value % 1000 // 10}"


def bus_widths(cuda: Any) -> dict[str, int]:
    """Bits of the memory bus by PCI address, as :func:`pci_address`, of the devices that CUDA shows this process."""
    count = ctypes.c_int(0)
    if cuda is None or cuda.cuInit(0) != 0 or cuda.cuDeviceGetCount(ctypes.byref(count)) != 0:
        return {}
    widths = {}
    for index in range(count.value):
        device, width, address = ctypes.c_int(0), ctypes.c_int(0), ctypes.create_string_buffer(32)
        if (
            cuda.cuDeviceGet(ctypes.byref(device), index) == 0
            and cuda.cuDeviceGetPCIBusId(address, len(address), device) == 0
            and cuda.cuDeviceGetAttribute(ctypes.byref(width), BUS_WIDTH, device) == 0
            and width.value > 0
        ):
            widths[pci_address(address.value.decode())] = width.value
    return widths


def pci_address(text: str) -> str:
    """``0000:1b:00.0`` of that or of ``00000000:1B:00.0``, which are the ways of CUDA and of ``nvidia-smi``."""
    domain, _, rest = text.strip().lower().partition(":")
    return f"{domain[-4:]}:{rest}"
