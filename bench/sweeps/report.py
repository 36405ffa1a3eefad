"""What came of the sweeps, as a table on the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from gpuopt.bench.sweeps.alternative import PRODUCT

HEAD = f"  {'':<32} {'ms':>8} {'share':>6} {'ratio':>14} {'registers':>9} {'stack':>5}"


def lines(group: Mapping[str, Any]) -> Iterator[str]:
    """A group of ``sweeps.json``, the fastest first: time on the GPU, share of the copy's bandwidth, times as fast."""
    yield f"{group['driver']}, {group['subject']}"
    yield HEAD
    for row in sorted(group["rows"], key=lambda row: row["device"]["median"] if row["device"] else float("inf")):
        if row["device"] is None:
            yield f"  {row['name']:<32} {row['why'] or 'not timed on the GPU'}"
            continue
        ratio = "" if row["name"] == PRODUCT or row["ratio"] is None else f"{row['ratio']:.3f}"
        off = "" if not ratio or row["off"] is None else f" ± {row['off']:.3f}"
        yield (
            f"  {row['name']:<32} {1e3 * row['device']['median']:>8.3f} {row['share']:>6.1%} {ratio + off:>14} "
            f"{_known(row['registers']):>9} {_known(row['stack']):>5}"
        )


def _known(number: int | None) -> str:
    return "" if number is None else str(number)
