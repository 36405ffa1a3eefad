"""Whether the GPU is held back just now, by NVIDIA's management library, which comes with the driver."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

from gpuopt.machine.nvidia_smi import THROTTLED

LIBRARY = "libnvidia-ml.so.1"

HELD_BACK = sum(THROTTLED)


def throttle_watch() -> Callable[[], bool | None]:
    """A function that says whether PyTorch's first GPU is held back; it says None where that cannot be known."""
    import torch

    uuid = str(torch.cuda.get_device_properties(0).uuid)
    return watch(_library(), uuid if uuid.startswith("GPU-") else f"GPU-{uuid}")


def watch(library: Any, uuid: str) -> Callable[[], bool | None]:
    """As :func:`throttle_watch`, of the GPU with this identifier.

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
        return lambda: None

    def is_throttled() -> bool | None:
        reasons = ctypes.c_ulonglong()
        if library.nvmlDeviceGetCurrentClocksThrottleReasons(device, ctypes.byref(reasons)) != 0:
            return None
        return bool(reasons.value & HELD_BACK)

    return is_throttled


def _library() -> Any:
    try:
        return ctypes.CDLL(LIBRARY)
    except OSError:
        return None
