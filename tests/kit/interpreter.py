"""Whether Triton's interpreter can be used with the versions that are installed."""

from __future__ import annotations

import numpy as np
import triton


def unusable() -> str | None:
    """Why it cannot; None when it can. The compiler is not concerned."""
    if triton.__version__.startswith("3.6.") and np.lib.NumpyVersion(np.__version__) >= "2.5.0":
        return f"the interpreter of Triton {triton.__version__} fails with NumPy {np.__version__}"
    return None
