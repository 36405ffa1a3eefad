"""How busy the machine was with other things."""

from __future__ import annotations

import os
from pathlib import Path


class OthersLoad:
    """How much of the CPU other processes take, from when it is made."""

    def __init__(self) -> None:
        self._before = self._ticks()

    def share(self) -> float | None:
        """Share of all cores' time that was neither idle nor this process's; None where it cannot be known."""
        now = self._ticks()
        if self._before is None or now is None:
            return None
        busy, total, own = (after - before for after, before in zip(now, self._before, strict=True))
        return min(max((busy - own) / total, 0.0), 1.0) if total else None

    @staticmethod
    def _ticks() -> tuple[float, float, float] | None:
        """Ticks that all cores were busy, that passed on them, and that this process and its children took."""
        try:
            line = Path("/proc/stat").read_text().splitlines()[0]
        except OSError:
            return None
        user, nice, system, idle, waiting, *others = (int(word) for word in line.split()[1:9])
        busy = user + nice + system + sum(others)
        own = sum(os.times()[:4]) * os.sysconf("SC_CLK_TCK")
        return busy, busy + idle + waiting, own
