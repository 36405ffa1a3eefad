"""Where results are written, and what is said where that, or anything else that was asked for, cannot be done."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

import typer
from rich.console import Console
from rich.text import Text

UNUSABLE = 2
"""Exit code: an option cannot be used."""


def refuse(problem: str) -> NoReturn:
    """Ends the command with a sentence that says why nothing was done."""
    Console(stderr=True).print(Text(problem, style="bold red"), soft_wrap=True)
    raise typer.Exit(UNUSABLE)


def unwritable(folder: Path, must: str = "--out must be") -> str | None:
    """Why nothing can be written to ``folder``, as a sentence that begins with ``must``; None when it can.

    It is made if need be.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder):
            return None
    except OSError as error:
        return f"{must} a folder that can be written, but {folder} is not: {error.strerror}."


def write_json(results: Mapping[str, Any], path: Path) -> None:
    """As JSON, in one go: an older file stays as it was until this one is whole."""
    part = path.with_name(path.name + ".part")
    part.write_text(json.dumps(results, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    part.replace(path)
