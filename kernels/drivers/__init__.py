"""The registry of drivers, each imported only when it is asked for."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import cast

from gpuopt.kernels.drivers.driver import Driver


@dataclass(frozen=True)
class Entry:
    """A driver that may or may not be able to run here.

    Attributes:
        name: What a user calls it; also its module's name.
        device: The memory that it is for, ``"cpu"`` or ``"cuda"``.
        packages: What it imports beyond NumPy.
        extras: The extras of gpuopt of which one installs these, as in ``pip install 'gpuopt[cpu]'``.
    """

    name: str
    device: str
    packages: tuple[str, ...] = ()
    extras: tuple[str, ...] = ()

    def load(self) -> Driver:
        """The driver's module."""
        return cast(Driver, import_module(f"gpuopt.kernels.drivers.{self.name}"))

    def is_interpreted(self) -> bool:
        """Whether it runs in other memory than it is for, as Triton's interpreter does."""
        return self.load().DEVICE != self.device

    def unavailable(self) -> str | None:
        """Why it cannot run here and what to install, as a clause; None when it can."""
        for package in self.packages:
            if find_spec(package) is None:
                install = " or ".join(f"pip install 'gpuopt[{extra}]'" for extra in self.extras)
                return f"{package} is not installed ({install})"
        try:
            return self.load().unavailable()
        except (ImportError, OSError) as error:  # CuPy makes a folder in one's home
            return f"{self.name} cannot be imported ({error})"


DRIVERS: dict[str, Entry] = {
    entry.name: entry
    for entry in (
        Entry("numba", "cpu", ("numba",), ("cpu",)),
        Entry("numpy", "cpu"),
        Entry("cupy", "cuda", ("cupy",), ("cuda12", "cuda13")),
        Entry("triton", "cuda", ("triton", "torch"), ("torch",)),
    )
}
"""In order of preference among those for the same memory."""

__all__ = ["DRIVERS", "Driver", "Entry"]
