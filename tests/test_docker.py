"""What goes into the Docker image, and what its entry point refuses.

The image itself is built and run by ``make docker-check``. What can be known without it:

- The entry point becomes the command it is given. Before ``gpuopt bench`` and ``gpuopt verify`` in an image for CUDA it
  looks for a GPU; before ``gpuopt bench`` it looks whether ``out`` can be written. Where it refuses, it says why and
  what to do about it in one line, and exits with 2.
- The services of ``compose.yaml`` run commands that exist, in targets of the Dockerfile, as the caller.
- ``.dockerignore`` keeps away everything but what the Dockerfile copies and the tests read.
- The version in the Dockerfile is the package's, its choices of CUDA are extras.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
import tomllib
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
DOCKER = ROOT / "docker"
DOCKERFILE = (DOCKER / "Dockerfile").read_text()
NOBODY = 65534

REFUSED = 2


@pytest.fixture
def container() -> Iterator[Path]:
    """A folder that plays the container: ``bin`` is its PATH, whose gpuopt tells its arguments, ``work`` its folder.

    Not below ``tmp_path``, which nobody but its owner may enter.
    """
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        root.chmod(0o755)
        (root / "bin").mkdir()
        (root / "work" / "out").mkdir(parents=True)
        (root / "work" / "out").chmod(0o777)
        shutil.copy(DOCKER / "entrypoint.sh", root / "entrypoint.sh")
        for program in ("sh", "head", "id"):
            (root / "bin" / program).symlink_to(shutil.which(program) or program)
        program_in(root, "gpuopt", 'echo "gpuopt with $*"')
        yield root


def program_in(container: Path, name: str, body: str) -> None:
    path = container / "bin" / name
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)


def enter(container: Path, *command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs the entry point as a user who may write only what all may."""
    return subprocess.run(
        [container / "entrypoint.sh", *command],
        cwd=container / "work",
        env={"PATH": str(container / "bin"), **environment},
        user=NOBODY if os.geteuid() == 0 else None,
        capture_output=True,
        text=True,
        check=False,
    )


def refusal(answer: subprocess.CompletedProcess[str]) -> str:
    """The one line of a refusal."""
    assert answer.returncode == REFUSED
    assert answer.stdout == ""
    (line,) = answer.stderr.splitlines()
    assert line.startswith("gpuopt: ")
    return line


@pytest.mark.parametrize("cuda", ["12", "13"])
@pytest.mark.parametrize("command", ["bench", "verify"])
def test_without_a_gpu_the_fix_is_named(container: Path, command: str, cuda: str) -> None:
    line = refusal(enter(container, "gpuopt", command, GPUOPT_CUDA=cuda))
    assert "no GPU is visible" in line
    assert "--gpus all" in line
    assert "NVIDIA container toolkit" in line
    assert "-e GPUOPT_CUDA=cpu" in line


def test_what_nvidia_smi_says_is_passed_on(container: Path) -> None:
    program_in(container, "nvidia-smi", "echo 'Failed to initialize NVML: Unknown Error'; echo more; exit 255")
    line = refusal(enter(container, "gpuopt", "bench", GPUOPT_CUDA="13"))
    assert "'Failed to initialize NVML: Unknown Error'" in line


@pytest.mark.parametrize("devices", ["", "-1"])
def test_gpus_that_are_hidden_are_not_taken_for_visible(container: Path, devices: str) -> None:
    program_in(container, "nvidia-smi", "echo 'GPU 0: NVIDIA H100 (UUID: GPU-0)'")
    line = refusal(enter(container, "gpuopt", "bench", GPUOPT_CUDA="13", CUDA_VISIBLE_DEVICES=devices))
    assert f"CUDA_VISIBLE_DEVICES='{devices}'" in line


def test_with_a_gpu_the_command_runs(container: Path) -> None:
    program_in(container, "nvidia-smi", "echo 'GPU 0: NVIDIA H100 (UUID: GPU-0)'")
    answer = enter(container, "gpuopt", "bench", "--only", "a b", GPUOPT_CUDA="13", CUDA_VISIBLE_DEVICES="0")
    assert (answer.returncode, answer.stdout, answer.stderr) == (0, "gpuopt with bench --only a b\n", "")


@pytest.mark.parametrize(
    ("command", "cuda"),
    [
        (("gpuopt",), "13"),
        (("gpuopt", "info"), "13"),
        (("gpuopt", "bench"), "cpu"),
        (("gpuopt", "verify"), "cpu"),
        (("gpuopt", "verify", "--help"), "13"),
        (("gpuopt", "bench", "--quick", "--list"), "13"),
    ],
)
def test_without_a_gpu_the_command_runs_where_none_is_asked_for(
    container: Path, command: tuple[str, ...], cuda: str
) -> None:
    answer = enter(container, *command, GPUOPT_CUDA=cuda)
    assert answer.returncode == 0
    assert answer.stdout == f"gpuopt with {' '.join(command[1:])}\n"


def test_the_command_takes_the_place_of_the_entry_point_and_so_gets_its_signals(container: Path) -> None:
    with subprocess.Popen(
        [container / "entrypoint.sh", "sh", "-c", "echo $$"],
        env={"PATH": str(container / "bin")},
        stdout=subprocess.PIPE,
    ) as process:
        told, _ = process.communicate()
    assert int(told) == process.pid


def test_the_exit_status_is_the_command_s(container: Path) -> None:
    assert enter(container, "sh", "-c", "exit 7").returncode == 7


def test_results_that_cannot_be_written_are_refused_before_anything_is_run(container: Path) -> None:
    out = container / "work" / "out"
    out.chmod(0o555)
    line = refusal(enter(container, "gpuopt", "bench"))
    assert f"{out} cannot be written by uid" in line
    assert '--user "$(id -u):$(id -g)"' in line
    assert enter(container, "gpuopt", "verify").returncode == 0


def test_results_may_be_made_by_the_command(container: Path) -> None:
    (container / "work" / "out").rmdir()
    assert enter(container, "gpuopt", "bench").returncode == 0


def services() -> dict[str, Any]:
    compose: dict[str, Any] = yaml.safe_load((DOCKER / "compose.yaml").read_text())["services"]
    return compose


def test_there_is_a_service_for_each_use() -> None:
    assert set(services()) == {"bench", "bench-cpu", "verify", "test"}


@pytest.mark.parametrize("name", services())
def test_a_service_runs_as_its_caller_a_command_that_exists_in_a_target_that_exists(name: str) -> None:
    service = services()[name]
    assert service["user"] == "${UID:-1000}:${GID:-1000}"
    assert (DOCKER / service["build"]["context"]).resolve() == ROOT
    assert (ROOT / service["build"]["dockerfile"]).samefile(DOCKER / "Dockerfile")
    assert f" AS {service['build']['target']}\n" in DOCKERFILE
    program, argument, *_ = service["command"]
    if program == "make":
        assert re.search(rf"^{argument}:", (ROOT / "Makefile").read_text(), re.MULTILINE)
    else:
        assert program in pyproject()["scripts"]
        assert argument in {"bench", "verify"}


@pytest.mark.parametrize("name", services())
def test_a_service_that_needs_a_gpu_reserves_it_in_an_image_for_cuda(name: str) -> None:
    service = services()[name]
    reserves = "deploy" in service
    assert reserves == (name in {"bench", "verify"})
    assert service["build"]["args"]["CUDA"] == ("${CUDA:-13}" if reserves else "cpu")


@pytest.mark.parametrize("name", ["bench", "bench-cpu"])
def test_results_are_mounted_where_a_benchmark_writes_them(name: str) -> None:
    (results,) = [volume for volume in services()[name]["volumes"] if volume["type"] == "bind"]
    assert (DOCKER / results["source"]).resolve() == ROOT / "out"
    assert results["target"] == "/work/out"
    assert not results["bind"]["create_host_path"]
    assert "\nWORKDIR /work\n" in DOCKERFILE


def kept(path: str) -> bool:
    """Whether ``path`` reaches the build, by the patterns of ``.dockerignore``: the last that matches decides."""
    keeps = True
    for line in (ROOT / ".dockerignore").read_text().splitlines():
        pattern = line.removeprefix("!")
        if not pattern or pattern.startswith("#"):
            continue
        parts = path.split("/")
        if pattern.startswith("**/"):
            matches = any(fnmatch(part, pattern.removeprefix("**/")) for part in parts)
        else:
            matches = fnmatch(parts[0], pattern)
        if matches:
            keeps = line.startswith("!")
    return keeps


@pytest.mark.parametrize(
    "path",
    [
        ".git/config",
        ".venv/bin/python",
        "out/bench.json",
        "build/lib/gpuopt/plan.py",
        "kernels/rules/__pycache__/adam.cpython-311.pyc",
        "docker/.env",
        "anything else",
    ],
)
def test_the_build_does_not_see(path: str) -> None:
    assert not kept(path)


def test_the_build_sees_all_that_is_committed() -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("not in a git checkout")
    listed = subprocess.run(["git", "-C", ROOT, "ls-files"], capture_output=True, text=True, check=True)
    assert [path for path in listed.stdout.splitlines() if not kept(path)] == [".gitignore"]


def test_what_the_dockerfile_copies_is_there() -> None:
    copied = [words[1:-1] for line in DOCKERFILE.splitlines() if (words := line.split())[:1] == ["COPY"]]
    sources = [source for words in copied if not words[0].startswith("--") for source in words]
    assert "gpuopt" in sources
    for source in sources:
        assert (ROOT / source).exists()
        assert source == "." or kept(source)


def pyproject() -> dict[str, Any]:
    project: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return project


def test_the_version_is_the_package_s() -> None:
    assert f"ARG VERSION={pyproject()['version']}\n" in DOCKERFILE


def test_each_choice_of_cuda_is_made_of_extras_with_pinned_versions() -> None:
    extras = pyproject()["optional-dependencies"]
    choices = dict(re.findall(r"^ +(12|13|cpu)\) build=\w+ extras=(\S+) ;;", DOCKERFILE, re.MULTILINE))
    assert set(choices) == {"12", "13", "cpu"}
    pinned = re.findall(r"^(\S+?)==", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    for choice, names in choices.items():
        assert set(names.split(",")) <= set(extras)
        if choice != "cpu":
            assert f"cupy-cuda{choice}x" in pinned


def test_the_base_is_pinned_by_version() -> None:
    (base,) = re.findall(r"^ARG BASE=(\S+)$", DOCKERFILE, re.MULTILINE)
    assert re.fullmatch(r"docker\.io/library/python:3\.\d+\.\d+-slim-\w+", base)
