"""Where results are written, and what is said where that, or anything else that was asked for, cannot be done."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NoReturn

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

UNUSABLE = 2
"""Exit code: an option cannot be used."""

WIDE = 120
"""Columns from which tables also have what one can do without."""

ON_PYPI = {"sklearn": "scikit-learn"}
"""What PyPI calls a package that is imported by another name."""

ENDLESS = 10_000
"""Columns of what is no terminal: whatever reads a pipe or a file finds each line whole."""


def terminal(stderr: bool = False) -> Console:
    """Where a command prints: as wide as the terminal, and :data:`ENDLESS` where there is none, in colours or not."""
    console = Console(stderr=stderr)
    if not console.file.isatty():
        console.width = ENDLESS
    return console


def show(table: Table, console: Console) -> None:
    """Prints a table so that no word is cut, nor a column folded that must not wrap.

    Rich gives every column room, but of columns that do not fit it cuts words. Where that cannot be helped, lines are
    longer than the terminal. What is no terminal gets them without the spaces that would fill them up.
    """
    endless = console.options.update(width=ENDLESS)
    least, widths = [], []
    for column in table.columns:
        sizes = [console.measure(each, options=endless) for each in (column.header, *column.cells)]
        widths.append(max(size.maximum for size in sizes))
        least.append(widths[-1] if column.no_wrap else max(size.minimum for size in sizes))
    over = console.measure(table, options=endless).maximum - console.width
    while over > 0 and widths != least:
        _, widest = max((width, index) for index, width in enumerate(widths) if width > least[index])
        widths[widest] -= 1
        over -= 1
    for column, width in zip(table.columns, widths, strict=True):
        column.width = width
    if over > 0:
        table.width = console.width + over
    if console.is_terminal:
        console.print(table, crop=False)
        return
    with console.capture() as printed:
        console.print(table, crop=False)
    for line in printed.get().splitlines():
        console.out(line.rstrip(), highlight=False)


def refuse(problem: str) -> NoReturn:
    """Ends the command with a sentence that says why nothing was done."""
    terminal(stderr=True).print(Text(problem, style="bold red", overflow="ignore"), crop=False)
    raise typer.Exit(UNUSABLE)


def require(*packages: str, extra: str) -> None:
    """Ends the command where a package is not installed, with the extra of gpuopt that has it."""
    for package in packages:
        if find_spec(package) is None:
            refuse(f"{ON_PYPI.get(package, package)} is not installed (pip install 'gpuopt[{extra}]').")


def require_writable(folder: Path, must: str = "--out must be") -> None:
    """Ends the command where nothing can be written to ``folder``, which is made if need be.

    Args:
        folder: Where to.
        must: How the sentence about it begins.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder):
            return
    except OSError as error:
        refuse(f"{must} a folder that can be written, but {folder} is not: {error.strerror}.")


def write_json(results: Mapping[str, Any], path: Path) -> None:
    """As JSON, in one go: an older file stays as it was until this one is whole."""
    part = path.with_name(path.name + ".part")
    part.write_text(json.dumps(results, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    part.replace(path)
