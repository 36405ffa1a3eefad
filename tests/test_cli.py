"""The command ``gpuopt``.

1. It is installed, and ``python -m gpuopt`` is the same: version, help without arguments, the commands info, verify and
   bench, and their exit codes.
2. A command that does not exist is refused with exit code 2.
3. Where a package that it needs is not installed, one line says which, and what to install.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

import gpuopt
from gpuopt.cli import app

SCRIPT = [str(Path(sys.executable).with_name("gpuopt"))]
MODULE = [sys.executable, "-P", "-m", "gpuopt"]


def ran(command: list[str], *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*command, *words], capture_output=True, text=True, check=False)


@pytest.mark.parametrize("command", [SCRIPT, MODULE], ids=["script", "module"])
def test_version(command: list[str]) -> None:
    done = ran(command, "--version")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"gpuopt {gpuopt.__version__}\n", "")


def test_the_installed_script_gives_info_as_json() -> None:
    done = ran(SCRIPT, "info", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["gpuopt"] == gpuopt.__version__


def test_the_installed_script_refuses_the_oracle() -> None:
    done = ran(SCRIPT, "verify", "--driver", "numpy")
    assert (done.returncode, done.stdout) == (2, "")
    assert "numpy is the oracle" in done.stderr


def test_help_names_the_commands() -> None:
    for words in ([], ["--help"]):
        result = CliRunner().invoke(app, words)
        assert all(f"\n  {name} " in result.output for name in ("info", "verify", "bench"))
    assert CliRunner().invoke(app, ["--help"]).exit_code == 0


def test_a_command_that_does_not_exist_is_refused() -> None:
    result = CliRunner().invoke(app, ["prove"])
    assert result.exit_code == 2
    assert "No such command 'prove'" in result.output


@pytest.mark.parametrize("missing", ["typer", "rich"])
def test_what_is_not_installed_is_named(missing: str) -> None:
    code = f"import sys; sys.modules[{missing!r}] = None; import gpuopt.cli"
    done = ran([sys.executable, "-P", "-c", code])
    assert done.returncode == 1
    assert done.stderr == f"{missing} is not installed (pip install 'gpuopt[cli]')\n"
