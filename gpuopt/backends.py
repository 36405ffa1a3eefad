"""Which driver serves which arrays, and why."""

from __future__ import annotations

from dataclasses import dataclass

from gpuopt.kernels.drivers import DRIVERS, Driver
from gpuopt.kernels.warn import warn

_warned: set[str] = set()


@dataclass(frozen=True)
class Choice:
    """A driver and the reason it was picked.

    Attributes:
        name: The backend's name.
        why: The reason, as a clause.
    """

    name: str
    why: str

    @property
    def driver(self) -> Driver:
        """The driver itself."""
        return DRIVERS[self.name].load()

    def __str__(self) -> str:
        return f"{self.name}: {self.why}"


def available() -> dict[str, str | None]:
    """For each backend None if it can run here, else why it cannot and what to install."""
    return {name: entry.unavailable() for name, entry in DRIVERS.items()}


def check_name(backend: str | None) -> None:
    """Refuses what is no backend's name, nor None.

    Raises:
        ValueError: There is no such backend.
    """
    if backend is not None and not (isinstance(backend, str) and backend in DRIVERS):
        raise ValueError(f"backend must be one of {', '.join(DRIVERS)} or None, but is {backend!r}")


def choose(device: str = "cpu", backend: str | None = None, prefer: str | None = None) -> Choice:
    """The backend for arrays in the memory of ``device``.

    Where the fastest cannot run, the choice of the next is warned of, once.

    Args:
        device: ``"cpu"`` for host memory, ``"cuda"`` for a GPU's.
        backend: Its name; None for the fastest that can run here.
        prefer: The one to take for the fastest, where it serves ``device``; None for the first of the registry.

    Raises:
        ValueError: There is no such backend, or it does not serve ``device``.
        RuntimeError: The backend cannot run here, or none that serves ``device`` can.
    """
    if backend is not None:
        return _requested(device, backend)
    reasons: list[str] = []
    for name, entry in sorted(DRIVERS.items(), key=lambda item: item[0] != prefer):
        if entry.device != device:
            continue
        reason = entry.unavailable()
        if reason is None and device == entry.load().DEVICE:
            if not reasons:
                return Choice(name, f"the fastest for {device} memory")
            why = f"the fastest for {device} memory that can run here: {'; '.join(reasons)}"
            _warn_once(f"gpuopt uses the slower backend {name!r}, {why}")
            return Choice(name, why)
        if reason is not None:
            reasons.append(f"{name} cannot, since {reason}")
    raise RuntimeError(f"no backend can run on {device} memory: {'; '.join(reasons)}")


def _requested(device: str, backend: str) -> Choice:
    check_name(backend)
    reason = DRIVERS[backend].unavailable()
    if reason is not None:
        raise RuntimeError(f"backend {backend!r} cannot run here: {reason}")
    served = DRIVERS[backend].load().DEVICE
    if served != device:
        raise ValueError(f"backend {backend!r} serves {served} memory, but the arrays are in {device} memory")
    return Choice(backend, "asked for")


def _warn_once(message: str) -> None:
    if message not in _warned:
        _warned.add(message)
        warn(message)
