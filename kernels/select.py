"""An element-wise choice that arrays and compiled scalars share."""

from typing import Any

import numpy as np


def select(condition: Any, a: Any, b: Any) -> Any:
    """``a`` where ``condition`` holds, else ``b``. The Numba driver compiles it as a plain choice."""
    return np.where(condition, a, b)
