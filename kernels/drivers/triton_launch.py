"""Launches of Triton's kernels, without what Triton finds out anew at each.

Which compilation a launch gets depends on the types of its arguments, on what they are specialised on, and on every
compile-time argument: Triton looks at all of them in Python, which takes longer than most steps do on a GPU. Here none
of it changes from launch to launch.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import triton
import triton.language as tl

INTERPRETED = tl.constexpr(triton.knobs.runtime.interpret)
"""Whether kernels run in Triton's interpreter (``TRITON_INTERPRET=1`` at import), on host memory."""


class Launcher:
    """Launches a kernel with compile-time arguments that stay, on the current device and stream.

    The other arguments are to be of the same types in each launch, and the kernel must not be specialised on them.
    """

    def __init__(self, kernel: Any, constants: Mapping[str, Any], options: Mapping[str, Any]) -> None:
        """A launcher.

        Args:
            kernel: Of Triton's; its compile-time arguments come last.
            constants: Those, in the kernel's order.
            options: Of the compilation.
        """
        self._kernel, self._constants, self._options = kernel, constants, options
        self._compiled: dict[int, Any] = {}

    def __call__(self, programs: int, *arguments: Any) -> None:
        """Launches so many programs."""
        if INTERPRETED.value:
            self._kernel[(programs,)](*arguments, **self._constants, **self._options)
            return
        device = triton.runtime.driver.active.get_current_device()
        compiled = self._compiled.get(device)
        if compiled is None:
            self._compiled[device] = self._kernel[(programs,)](*arguments, **self._constants, **self._options)
        else:
            compiled[programs, 1, 1](*arguments, *self._constants.values())
