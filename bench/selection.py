"""Which workloads and contenders are meant."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches
from fnmatch import fnmatchcase

from gpuopt.bench.contenders import Contender
from gpuopt.bench.workloads import Workload


def select(
    patterns: Sequence[str],
    workloads: Sequence[Workload],
    contenders: Sequence[Contender],
    quick: Sequence[Workload] | None = None,
) -> tuple[list[Workload], list[Contender]]:
    """What patterns like ``adam/*`` and ``gpuopt *`` match.

    A pattern is for workloads if it matches the key of one, else for the names of contenders. Where there is none of
    one kind, all are meant; in a quick run the workloads that it is of, and the contenders that are set up fast.

    Args:
        patterns: In the manner of a shell; case counts for nothing.
        workloads: All that there are.
        contenders: All that there are.
        quick: The workloads that a quick run is of; None for a full one.

    Raises:
        ValueError: A pattern matches neither.
    """
    some_workloads: list[Workload] = []
    some_contenders: list[Contender] = []
    for pattern in patterns:
        matching = [workload for workload in workloads if _matches(workload.key, pattern)]
        called = [contender for contender in contenders if _matches(contender.name, pattern)]
        if matching:
            some_workloads += matching
        elif called:
            some_contenders += called
        else:
            every = [each.name for each in contenders] + [workload.key for workload in workloads]
            every += dict.fromkeys(f"{workload.key.partition('/')[0]}/*" for workload in workloads)
            close = ", ".join(map(repr, get_close_matches(pattern, every, cutoff=0.5)))
            said = f"something that gpuopt bench --list --device {contenders[0].device} shows, but is {pattern!r}"
            raise ValueError(f"--only must match {said}{close and f'; close to it: {close}'}.")
    usual_workloads = [workload for workload in workloads if quick is None or workload in quick]
    usual_contenders = [contender for contender in contenders if quick is None or not contender.slow]
    return (
        [workload for workload in workloads if workload in (some_workloads or usual_workloads)],
        [contender for contender in contenders if contender in (some_contenders or usual_contenders)],
    )


def _matches(name: str, pattern: str) -> bool:
    return fnmatchcase(name.lower(), pattern.lower())
