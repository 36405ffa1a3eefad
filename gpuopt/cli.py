"""The command line: ``gpuopt info``, ``gpuopt verify``, ``gpuopt bench``. It needs the extra ``gpuopt[cli]``."""

from __future__ import annotations

from typing import Annotated

try:
    import rich  # noqa: F401 (missing rich is to be told of here, too)
    import typer
except ModuleNotFoundError as error:
    raise SystemExit(f"{error.name} is not installed (pip install 'gpuopt[cli]')") from None

import gpuopt
import gpuopt.bench.command
import gpuopt.info
import gpuopt.verify.command

app = typer.Typer(name="gpuopt", add_completion=False, rich_markup_mode=None, no_args_is_help=True)
app.command("info", short_help="Shows what can run here, and how fast this machine copies.")(gpuopt.info.info)
app.command("verify", short_help="Proves that drivers give the oracle's bits.")(gpuopt.verify.command.verify)
app.add_typer(gpuopt.bench.command.app, name="bench", short_help="Times optimizer steps against those of others.")


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"gpuopt {gpuopt.__version__}")
        raise typer.Exit


@app.callback()
def gpuopt_command(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Optimizer steps as one launch and one pass over memory for a whole model."""


def main() -> None:
    """Runs the command line."""
    app(prog_name="gpuopt")
