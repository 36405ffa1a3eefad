"""What ``pip install gpuopt`` brings.

1. From a copy of the checkout an sdist and a wheel are built without a network. The wheel is for every Python 3 and
   platform. It holds each module below ``gpuopt``, by way of the symlinks too, the templates of the report,
   ``py.typed`` and the licence, and nothing else: no tests, no committed results, no second name to import. A wheel
   that is built of the sdist is the same, file by file; the sdist has no links.
2. Their metadata are those of ``pyproject.toml``, and ``twine check --strict`` finds nothing. ``CITATION.cff`` and
   ``CHANGELOG.md`` tell of the same version.
3. With each extra for users, of those that the wheel itself declares, it is installed into an environment outside of
   the checkout that has nothing, or no more than extras within that one brought, with the versions of
   ``constraints.txt``. There, in an empty folder:

   - the package is imported from the environment and steps arrays, and parameters of PyTorch where that is installed;
   - what an extra for GPUs brings compiles a kernel for one;
   - ``gpuopt`` says in one line what to install, and once that is done, its ``info`` says of each driver that an extra
     promises that it runs, or that it sees no CUDA device, and of each other what to install;
   - with ``bench`` a benchmark writes its report, of which the templates are part.

   Where no package index can be reached, this is skipped.

Nothing is written to the user's home but what pip caches there, and GPUs are hidden.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import tomllib
from collections.abc import Iterator
from importlib.metadata import Distribution, PathDistribution
from pathlib import Path
from typing import Any, NamedTuple
from zipfile import Path as PathInZip
from zipfile import ZipFile

import pytest
import yaml
from kit.building import build, copy_of_checkout
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[1]
CONSTRAINTS = ROOT / "constraints.txt"
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
VERSION = PROJECT["version"]

FOR_DEVELOPERS = {"dev", "test", "trainers"}

DRIVERS = {"cpu": "numba", "cuda12": "cupy", "cuda13": "cupy", "torch": "triton"}
"""The driver that an extra promises."""

FOUND = {
    "numba": "None",
    "numpy": "None",
    "cupy": r"CuPy sees no CUDA device \(.*\)",
    "triton": "PyTorch sees no CUDA device",
}
"""What is said of a driver whose packages are installed, where no GPU is visible."""

ABSENT = {
    "numba": r"numba is not installed \(pip install 'gpuopt\[cpu\]'\)",
    "cupy": r"cupy is not installed \(pip install 'gpuopt\[cuda12\]' or pip install 'gpuopt\[cuda13\]'\)",
    "triton": r"triton is not installed \(pip install 'gpuopt\[torch\]'\)",
}

UNREACHABLE = re.compile(r"connection broken by '(\w+)")
"""What pip says where it reaches no index."""

STEP_ARRAYS = """
import gpuopt, numpy
params = {"w": numpy.ones(1000, "float32")}
optimizer = gpuopt.arrays.SGD(lr=0.5)
optimizer.update(params, {"w": numpy.full(1000, 2, "float32")})
print(gpuopt.__version__, gpuopt.__file__, optimizer.choice.name, abs(params["w"]).max())
"""

STEP_PARAMETERS = """
import gpuopt, torch
weight = torch.nn.Parameter(torch.ones(1000))
weight.grad = torch.full_like(weight, 2)
gpuopt.SGD([weight], lr=0.5).step()
print(weight.abs().max().item())
"""

COMPILE = """
import sys
from gpuopt.bench.code.ahead import compile_cupy, compile_triton
from gpuopt.kernels.formats import FORMATS
from gpuopt.kernels.rules import RULES
from gpuopt.kernels.variant import Variant
variant = Variant(RULES["sgd"], (FORMATS["bf16"],) * 2 + (None,))
if sys.argv[1] == "triton":
    compiled = compile_triton(variant, "sm_90")
else:
    from gpuopt.kernels.drivers.cupy import TILE, table_kernel
    compiled = compile_cupy(table_kernel(variant, TILE), variant, "sm_90")
print(len(compiled.cubin) > 0)
"""


class Built(NamedTuple):
    """Where what was built is."""

    checkout: Path
    sdist: Path
    wheel: Path
    wheel_of_sdist: Path


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    folder = tmp_path_factory.mktemp("built")
    checkout = copy_of_checkout(folder)
    (wheel,) = build(checkout, folder / "direct", "--wheel")
    shutil.rmtree(checkout / "build")
    wheel_of_sdist, sdist = build(checkout, folder / "dist")
    return Built(checkout, sdist, wheel, wheel_of_sdist)


@pytest.fixture(scope="module")
def metadata(built: Built) -> Distribution:
    return PathDistribution(PathInZip(built.wheel, f"gpuopt-{VERSION}.dist-info/"))


def held(wheel: Path) -> dict[str, bytes]:
    with ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist() if not name.endswith("/")}


def package(checkout: Path) -> Iterator[str]:
    """The files that make up the package: modules, and what is no module and belongs to it all the same."""
    for folder, _, names in os.walk(checkout / "gpuopt", followlinks=True):
        within = Path(folder).relative_to(checkout)
        for name in names:
            if name.endswith(".py") or within.name == "templates" or name == "py.typed":
                yield str(within / name)


def test_the_wheel_holds_the_package_and_nothing_else(built: Built) -> None:
    info = f"gpuopt-{VERSION}.dist-info"
    described = {"METADATA", "RECORD", "WHEEL", "entry_points.txt", "licenses/LICENSE", "top_level.txt"}
    files = held(built.wheel)
    assert set(files) == {*package(built.checkout), *(f"{info}/{name}" for name in described)}
    assert files[f"{info}/licenses/LICENSE"] == (ROOT / "LICENSE").read_bytes()
    assert files[f"{info}/top_level.txt"] == b"gpuopt\n"
    assert {
        "gpuopt/py.typed",
        "gpuopt/kernels/rules/adam.py",
        "gpuopt/bench/command.py",
        "gpuopt/bench/html/templates/page.html",
        "gpuopt/bench/html/templates/style.css",
    } <= set(files)


def test_the_wheel_is_for_every_python_3_and_platform(built: Built, metadata: Distribution) -> None:
    assert built.wheel.name == f"gpuopt-{VERSION}-py3-none-any.whl"
    lines = (metadata.read_text("WHEEL") or "").splitlines()
    assert "Root-Is-Purelib: true" in lines
    assert [line for line in lines if line.startswith("Tag: ")] == ["Tag: py3-none-any"]


def test_the_sdist_builds_the_same_wheel(built: Built) -> None:
    assert held(built.wheel_of_sdist) == held(built.wheel)


def test_the_sdist_holds_the_package_without_links_and_without_tests(built: Built) -> None:
    root = f"gpuopt-{VERSION}"
    assert built.sdist.name == f"{root}.tar.gz"
    with tarfile.open(built.sdist) as archive:
        assert all(member.isfile() or member.isdir() for member in archive)
        names = {member.name.removeprefix(f"{root}/") for member in archive if member.isfile()}
    beside = {"CHANGELOG.md", "CITATION.cff", "LICENSE", "MANIFEST.in", "PKG-INFO", "README.md", "pyproject.toml"}
    made = {name for name in names if name == "setup.cfg" or name.startswith("gpuopt.egg-info/")}
    assert names - made == {*package(built.checkout), *beside}


def test_the_metadata_are_those_of_the_project(metadata: Distribution) -> None:
    said = metadata.metadata
    assert (said["Name"], said["Version"], said["Summary"]) == ("gpuopt", VERSION, PROJECT["description"])
    assert (said["Requires-Python"], said["License-Expression"]) == (PROJECT["requires-python"], PROJECT["license"])
    assert (said["Author"], said["Keywords"]) == (PROJECT["authors"][0]["name"], ",".join(PROJECT["keywords"]))
    assert said.get_all("Classifier") == PROJECT["classifiers"]
    assert said["Description-Content-Type"] == "text/markdown"
    assert said.get_payload() == (ROOT / "README.md").read_text()
    assert set(said.get_all("Provides-Extra") or []) == set(PROJECT["optional-dependencies"])
    assert [(each.name, each.value) for each in metadata.entry_points] == [("gpuopt", "gpuopt.cli:main")]


def test_twine_finds_nothing(built: Built) -> None:
    command = [sys.executable, "-P", "-m", "twine", "--no-color", "check", "--strict", built.wheel, built.sdist]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count(": PASSED") == 2


def test_the_citation_and_the_changelog_tell_of_this_version() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert (citation["title"], citation["version"]) == (PROJECT["name"], VERSION)
    assert (citation["abstract"], citation["license"]) == (PROJECT["description"], PROJECT["license"])
    assert citation["authors"] == PROJECT["authors"]
    assert f"\n## {VERSION} ({citation['date-released']})\n" in (ROOT / "CHANGELOG.md").read_text()


def brought(extra: str, metadata: Distribution) -> set[str]:
    """The extra, and those that it has in it."""
    found = {extra}
    for each in map(Requirement, metadata.requires or []):
        if each.name == "gpuopt" and each.marker is not None and each.marker.evaluate({"extra": extra}):
            found |= {more for one in each.extras for more in brought(one, metadata)}
    return found


class Environment:
    """A virtual environment of its own, and the extras that the wheel was installed into it with."""

    def __init__(self, folder: Path, pip: Path, wheel: Path) -> None:
        self.path, self.empty, self._home = (folder / name for name in ("environment", "empty", "home"))
        self.extras: set[str] = set()
        self._pip, self._wheel = pip, wheel
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", self.path], check=True)
        self.empty.mkdir()
        self._home.mkdir()

    def install(self, *extras: str) -> None:
        """Installs the wheel. Modules are compiled when they are imported, since most never are."""
        options = ["--quiet", "--no-compile", "--only-binary", ":all:", "--timeout", "30", "--retries", "2"]
        wanted = f"{self._wheel}[{','.join(extras)}]" if extras else self._wheel
        pip = [self._pip, "-I", "-m", "pip", "--disable-pip-version-check", "--python", self.path / "bin" / "python"]
        command = [*pip, "install", *options, "--constraint", CONSTRAINTS, wanted]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        unreachable = UNREACHABLE.search(done.stderr) if done.returncode else None
        if unreachable:
            pytest.skip(f"no package index can be reached: pip ended with {unreachable[1]}")
        assert done.returncode == 0, done.stderr
        self.extras |= set(extras)

    def run(self, program: str, *words: str) -> subprocess.CompletedProcess[str]:
        """Runs a program of the environment in the empty folder, with nothing set that is for gpuopt or Python."""
        ours = ("GPUOPT_", "NUMBA_", "PYTHON", "TRITON_", "VIRTUAL_ENV")
        environment = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
        environment |= {"HOME": str(self._home), "CUDA_VISIBLE_DEVICES": ""}
        command = [self.path / "bin" / program, *words]
        return subprocess.run(command, cwd=self.empty, env=environment, capture_output=True, text=True, check=False)


def place() -> str | None:
    """Where to install: in memory, if there is much of it; a disk can take a minute to delete what it still writes."""
    memory = Path("/dev/shm")
    if not os.access(memory, os.W_OK) or os.statvfs(memory).f_flag & os.ST_NOEXEC:
        return None
    available = re.search(r"MemAvailable: +(\d+) kB", Path("/proc/meminfo").read_text())
    room = min(shutil.disk_usage(memory).free, int(available[1]) << 10 if available else 0)
    return str(memory) if room > 8 << 30 else None  # the largest takes 2 GB


def test_what_is_installed_with_each_extra_works(
    built: Built, metadata: Distribution, subtests: pytest.Subtests
) -> None:
    extras = [extra for extra in metadata.metadata.get_all("Provides-Extra") or [] if extra not in FOR_DEVELOPERS]
    assert {*DRIVERS, "bench", "cli"} <= set(extras)
    within = {"": set()} | {extra: brought(extra, metadata) for extra in extras}
    with tempfile.TemporaryDirectory(dir=place()) as folder:
        subprocess.run([sys.executable, "-m", "venv", Path(folder, "tools")], check=True)

        def fresh() -> Environment:
            return Environment(Path(tempfile.mkdtemp(dir=folder)), Path(folder, "tools", "bin", "python"), built.wheel)

        environment = fresh()
        environment.install()  # here, so that where no index is reached all is skipped at once
        for extra in sorted(within, key=lambda each: (len(within[each]), each)):
            if not environment.extras <= within[extra]:
                shutil.rmtree(environment.path)
                environment = fresh()
            with subtests.test(extra=extra):
                works(environment, extra, within[extra])


def works(environment: Environment, extra: str, extras: set[str]) -> None:
    """Installs and tries one, in which ``extras`` are."""
    itself = [extra] if extra else []
    environment.install(*itself)
    done = environment.run("python", "-c", STEP_ARRAYS)
    assert done.returncode == 0, done.stderr
    version, path, driver, largest = done.stdout.split()
    assert (version, largest) == (VERSION, "0.0")
    assert Path(path).is_relative_to(environment.path)
    assert driver == ("numba" if "cpu" in extras else "numpy")
    if driver == "numba":
        assert done.stderr == ""
    else:
        assert re.search(f"gpuopt uses the slower backend 'numpy'.*{ABSENT['numba']}", done.stderr)

    if "torch" in extras:
        done = environment.run("python", "-c", STEP_PARAMETERS)
        assert (done.returncode, done.stdout) == (0, "0.0\n"), done.stderr

    for driver in {DRIVERS[each] for each in extras & DRIVERS.keys()} - {"numba"}:
        done = environment.run("python", "-c", COMPILE, driver)
        assert (done.returncode, done.stdout) == (0, "True\n"), done.stderr

    if "cli" not in extras:
        done = environment.run("gpuopt", "info")
        assert (done.returncode, done.stdout) == (1, "")
        assert re.fullmatch(r"(rich|typer) is not installed \(pip install 'gpuopt\[cli\]'\)\n", done.stderr)
        environment.install(*itself, "cli")

    done = environment.run("gpuopt", "info", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    found = json.loads(done.stdout)
    assert found["gpuopt"] == VERSION
    promised = {"numpy", *(DRIVERS[each] for each in extras & DRIVERS.keys())}
    assert set(found["drivers"]) == set(FOUND)
    for name, reason in found["drivers"].items():
        assert re.fullmatch(FOUND[name] if name in promised else ABSENT[name], str(reason)), name

    if "bench" in extras:
        some = ["--only", "arrays/adam/1000x64/fp32", "--only", "gpuopt numba"]
        done = environment.run("gpuopt", "bench", "--quick", *some, "--device", "cpu")
        assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr
        assert json.loads((environment.empty / "out" / "bench.json").read_text())["workloads"]
        assert "</html>" in (environment.empty / "out" / "report.html").read_text()
        shutil.rmtree(environment.empty / "out")
    assert not any(environment.empty.iterdir())
