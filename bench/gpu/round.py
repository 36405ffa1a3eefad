"""Runs the stages of a round, one after the other."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

import typer

from gpuopt.bench.gpu.stages import Stage, stages
from gpuopt.bench.gpu.summary import failed, summary
from gpuopt.output import refuse, write_json

FAILED, INTERRUPTED = 1, 130
"""Exit codes: a stage failed; Ctrl-C."""

GRACE = 10.0
"""Seconds that a stage has to write down what it has, once it is interrupted."""

SHOWN = 1800
"""Characters of a stage's output that are shown when it is over; all of it is in the log."""

ENVIRONMENT = {
    "TRITON_INTERPRET": "0",
    "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",  # whatever else is installed there, its warnings would be errors
    "PYTHONUNBUFFERED": "1",
    "COLUMNS": "110",
}
"""What is set for all stages."""

LOG, JSON = "log.txt", "round.json"


def on_gpu(
    folder: Annotated[Path, typer.Argument(help="Where all files are written.")],
    names: Annotated[list[str] | None, typer.Argument(metavar="[STAGE]...", help="Stages to run; all if none.")] = None,
) -> None:
    """Runs stages of the round on the GPU that is here, whatever becomes of those before."""
    known = stages(folder)
    unknown = [name for name in names or [] if name not in known]
    if unknown:
        refuse(f"A stage must be one of {', '.join(known)}, but is {', '.join(unknown)}.")
    chosen = [stage for name, stage in known.items() if not names or name in names]
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # whoever ends this ends the stage too
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background ignores it, and so would stages
    raise typer.Exit(run(chosen, folder))


def run(chosen: Iterable[Stage], folder: Path) -> int:
    """Runs stages, and says of each how it ended; returns the exit code."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / LOG).unlink(missing_ok=True)
    done: list[dict[str, Any]] = []
    interrupted = False
    for stage in chosen:
        for name in stage.files:
            (folder / name).unlink(missing_ok=True)  # else those of an earlier round would speak for this one
        print(f"== {stage.name}, at most {stage.limit:g} s", flush=True)
        begun = time.perf_counter()
        code, ended = _run(stage, folder / LOG)
        seconds = time.perf_counter() - begun
        done.append({"stage": stage.name, "limit": stage.limit, "seconds": seconds, "code": code, "ended": ended})
        write_json({"stages": done}, folder / JSON)
        print(_tail(folder / LOG), flush=True)
        print(f"== {stage.name} {ended} after {seconds:.0f} s, exit code {code}", flush=True)
        if ended == "interrupted":
            interrupted = True
            break
    for part in folder.glob("*.part"):
        part.unlink()  # of a file that was being written when its stage was killed
    line = summary(folder, done)
    write_json({"stages": done, "summary": line}, folder / JSON)
    print(line, flush=True)
    if interrupted:
        return INTERRUPTED
    return FAILED if any(map(failed, done)) else 0


def _run(stage: Stage, log: Path) -> tuple[int, str]:
    """Exit code of a stage, and whether it was done, overran or was interrupted."""
    # -P: the root of the repository must not be on the path, where kernels/ would hide another package.
    command = [sys.executable, "-P", *stage.arguments]
    environment = {**os.environ, **ENVIRONMENT}
    with log.open("ab") as output:
        output.write(f"\n== {stage.name}: {' '.join(command)}\n".encode())
        output.flush()
        # A group of its own, so that what a stage starts ends with it.
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, env=environment, process_group=0)
        ended = "done"
        try:
            process.wait(stage.limit)
        except subprocess.TimeoutExpired:
            ended = "overran"
        except KeyboardInterrupt:
            ended = "interrupted"
        if ended != "done":
            _end(process)
    return process.returncode, ended


def _end(process: subprocess.Popen[bytes]) -> None:
    """Interrupts a stage and all that it has started, and kills what is left of it."""
    _signal(process.pid, signal.SIGINT)
    with suppress(subprocess.TimeoutExpired, KeyboardInterrupt):
        process.wait(GRACE)
    _signal(process.pid, signal.SIGKILL)
    process.wait()


def _signal(group: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.killpg(group, number)


def _tail(log: Path) -> str:
    """The end of what the last stage has printed."""
    said = log.read_text(encoding="utf-8", errors="replace").rpartition("\n== ")[2].partition("\n")[2].rstrip()
    return said if len(said) <= SHOWN else "...\n" + said[-SHOWN:].partition("\n")[2]
