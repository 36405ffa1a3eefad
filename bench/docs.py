"""``python -m gpuopt.bench.docs STATE EMBEDDING PAGE``: puts what trainings with state in 8 bits say into a page.

STATE is the ``state.json`` of ``gpuopt bench train --state``, EMBEDDING the ``embedding.json`` of ``gpuopt bench train
--embedding``, PAGE ``docs/formats.md``. What is between ``<!-- NAME -->`` and ``<!-- end -->`` there, for a name of
:func:`blocks`, is made here and not by hand.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gpuopt.bench.readme import put, table


def renewed(page: str, state: Mapping[str, Any], embedding: Mapping[str, Any]) -> str:
    """The page with what the trainings, which ``bench/SCHEMA.md`` describes, say.

    Raises:
        ValueError: It has no place for a block.
    """
    for name, block in blocks(state, embedding).items():
        page = put(page, name, block, "the page")
    return page


def blocks(state: Mapping[str, Any], embedding: Mapping[str, Any]) -> dict[str, str]:
    """In Markdown: what state in 8 bits costs in loss, and how large its steps become."""
    return {"state": losses(state), "embedding": updates(embedding)}


def losses(state: Mapping[str, Any]) -> str:
    """A row per recipe and format: how much higher its loss is than float32's, and what seeds make of float32's."""
    first = state["trials"][0]
    seeds = len(first["seeds"])
    head = [
        f"{first['title']}, {first['numel']:,} parameters, {first['recipe']['steps']:,} steps",
        "kept as",
        f"above float32, {seeds} seeds",
        "in the mean",
        "seeds are apart",
    ]
    rows = [
        [
            f"lr {trial['recipe']['lr']:g}, betas {_listed(trial['recipe']['betas'])}",
            row["title"],
            ", ".join(f"{difference:+z.4f}" for difference in row["differences"]),
            f"{row['difference']:+z.4f}",
            f"{trial['spread']:.4f}",
        ]
        for trial in state["trials"]
        for row in trial["rows"][1:]
    ]
    return table(head, rows)


def updates(embedding: Mapping[str, Any]) -> str:
    """A row per optimizer, with its largest update in each training, as a multiple of the learning rate.

    What did not train has its reason below.
    """
    trials = embedding["trials"]
    head = ["", *(f"rows of {trial['width']}, betas {_listed(trial['betas'])}" for trial in trials)]
    rows, reasons = [], []
    for several in zip(*(trial["rows"] for trial in trials), strict=True):
        rows.append([_called(several[0]), *map(_update, several)])
        why = dict.fromkeys(f"{_called(row)}: `{row['why']}`" for row in several if row["status"] != "trained")
        reasons += list(why)
    return "\n\n".join([table(head, rows), *reasons])


def _listed(betas: Sequence[float]) -> str:
    return ", ".join(f"{beta:g}" for beta in betas)


def _called(row: Mapping[str, Any]) -> str:
    """An optimizer, with the version of its library."""
    name, comma, kept = row["optimizer"].partition(",")
    return f"{name} {row['version']}{comma}{kept}" if row["version"] else f"{name}{comma}{kept}"


def _update(row: Mapping[str, Any]) -> str:
    if row["status"] != "trained":
        return str(row["status"])
    return f"{row['update']:,.0f}" if row["update"] >= 100 else f"{row['update']:.2f}"


def main(arguments: Sequence[str]) -> None:
    """Renews the page in place."""
    *paths, page = map(Path, arguments)
    page.write_text(renewed(page.read_text(), *(json.loads(each.read_text()) for each in paths)))


if __name__ == "__main__":
    main(sys.argv[1:])
