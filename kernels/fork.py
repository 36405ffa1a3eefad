"""Whether this process was forked, so that threads which its parent had are missing.

A pool of OpenMP threads does not come with a fork, but what remembers it does: work that is given to it is never done,
or ends the process. So compiled code of the host runs on the one thread that there is.
"""

from __future__ import annotations

import os

_IMPORTED_BY = os.getpid()


def is_forked() -> bool:
    """Whether this process was forked from one that had imported gpuopt."""
    return os.getpid() != _IMPORTED_BY
