"""The condition of the GPU just now, by NVIDIA's management library, which comes with the driver."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any, NamedTuple

from gpuopt.machine.nvidia_smi import THROTTLED

LIBRARY = "libnvidia-ml.so.1"

HELD_BACK = sum(THROTTLED)

SM, MEMORY = 1, 2
"""What ``nvmlDeviceGetClockInfo`` is asked for: ``nvmlClockType_t``."""


class Condition(NamedTuple):
    """What a GPU is doing. None is what the library does not tell.

    Attributes:
        throttled: Whether it is held back.
        sm_mhz: Clock of its multiprocessors.
        memory_mhz: Clock of its memory.
        power_w: What it draws, in watts; on most GPUs the mean of the last second.
    """

    throttled: bool | None = None
    sm_mhz: float | None = None
    memory_mhz: float | None = None
    power_w: float | None = None


def watch() -> Callable[[], Condition]:
    """A function that tells the condition of PyTorch's first GPU."""
    import torch

    uuid = str(torch.cuda.get_device_properties(0).uuid)
    return watch_of(_library(), uuid if uuid.startswith("GPU-") else f"GPU-{uuid}")


def watch_of(library: Any, uuid: str) -> Callable[[], Condition]:
    """As :func:`watch`, of the GPU with this identifier.

    Args:
        library: The management library; None where there is none.
        uuid: As ``nvidia-smi -L`` gives it.
    """
    device = ctypes.c_void_p()
    if (
        library is None
        or library.nvmlInit_v2() != 0
        or library.nvmlDeviceGetHandleByUUID(uuid.encode(), ctypes.byref(device)) != 0
    ):
        return Condition

    def told(name: str, number: Any, *which: int) -> int | None:
        function = getattr(library, name, None)  # a driver may be too old for it, or too new
        known = function is not None and function(device, *which, ctypes.byref(number)) == 0
        return number.value if known else None

    def condition() -> Condition:
        reasons = told("nvmlDeviceGetCurrentClocksThrottleReasons", ctypes.c_ulonglong())
        milliwatts = told("nvmlDeviceGetPowerUsage", ctypes.c_uint())
        return Condition(
            None if reasons is None else bool(reasons & HELD_BACK),
            told("nvmlDeviceGetClockInfo", ctypes.c_uint(), SM),
            told("nvmlDeviceGetClockInfo", ctypes.c_uint(), MEMORY),
            None if milliwatts is None else milliwatts / 1e3,
        )

    return condition


def _library() -> Any:
    try:
        return ctypes.CDLL(LIBRARY)
    except OSError:
        return None
