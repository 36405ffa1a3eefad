"""How a backend is picked.

1. None picks the fastest that can run; what was picked and why can be read.
2. A slower one in place of the fastest is warned of, once. One that is asked for by name is never replaced.
3. A backend that is missing, and PyTorch where an optimizer needs it, say which extra to install. One that cannot be
   imported for another reason says that.
4. Importing gpuopt imports no backend; NumPy users need no other package.
5. Nothing in kernels/ imports from the host side.
"""

from __future__ import annotations

import subprocess
import sys
import warnings
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import gpuopt
from gpuopt import backends
from gpuopt.kernels import drivers

ROOT = Path(gpuopt.__file__).resolve().parents[1]


@pytest.fixture
def without(monkeypatch):
    """Makes packages look as if they were not installed."""

    def hide(*packages):
        find = drivers.find_spec
        monkeypatch.setattr(drivers, "find_spec", lambda name: None if name in packages else find(name))
        monkeypatch.setattr(backends, "_warned", set())

    return hide


def test_the_fastest_is_picked():
    optimizer = gpuopt.arrays.SGD()
    optimizer.update({"w": np.ones(3)}, {"w": np.ones(3)})
    assert optimizer.choice == backends.Choice("numba", "the fastest for cpu memory")
    assert str(optimizer.choice) == "numba: the fastest for cpu memory"


def test_a_name_is_respected():
    optimizer = gpuopt.arrays.SGD(backend="numpy")
    optimizer.update({"w": np.ones(3)}, {"w": np.ones(3)})
    assert optimizer.choice == backends.Choice("numpy", "asked for")


def test_a_slower_one_is_warned_of_once(without):
    without("numba")
    with pytest.warns(
        UserWarning, match=r"slower backend 'numpy', .* numba is not installed \(pip install 'gpuopt\[cpu\]'\)"
    ):
        choice = backends.choose("cpu")
    assert choice.name == "numpy"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        backends.choose("cpu")


def test_the_preferred_comes_first(monkeypatch):
    assert backends.choose("cpu", prefer="numpy").name == "numpy"
    assert backends.choose("cpu", prefer="triton").name == "numba"
    for name in ("cupy", "triton"):
        driver = SimpleNamespace(DEVICE="cuda", unavailable=lambda: None)
        entry = SimpleNamespace(device="cuda", unavailable=lambda: None, load=lambda driver=driver: driver)
        monkeypatch.setitem(backends.DRIVERS, name, entry)
    assert backends.choose("cuda").name == "cupy"
    assert backends.choose("cuda", prefer="triton").name == "triton"


@pytest.mark.parametrize(
    ("backend", "package", "extra"),
    [
        ("numba", "numba", "cpu"),
        ("cupy", "cupy", "cuda13"),
        ("triton", "triton", "torch"),
        ("triton", "torch", "torch"),
    ],
)
def test_what_is_missing_names_its_extra(without, backend, package, extra):
    without(package)
    with pytest.raises(RuntimeError, match=rf"backend '{backend}' cannot run here: {package} is .*gpuopt\[{extra}\]"):
        gpuopt.arrays.SGD(backend=backend).update({"w": np.ones(3)}, {"w": np.ones(3)})
    assert extra in backends.available()[backend]


def test_a_package_that_does_not_import_is_not_fatal(monkeypatch):
    def load(entry):
        if entry.name == "numba":
            raise ImportError("Numba needs NumPy 2.3 or less")
        return real(entry)

    real = drivers.Entry.load
    monkeypatch.setattr(drivers.Entry, "load", load)
    monkeypatch.setattr(backends, "_warned", set())
    assert "Numba needs NumPy 2.3 or less" in backends.available()["numba"]
    with pytest.warns(UserWarning, match="slower backend 'numpy'"):
        assert backends.choose("cpu").name == "numpy"


def test_no_backend_at_all(without):
    without("cupy", "triton")
    with pytest.raises(RuntimeError, match=r"no backend can run on cuda memory: cupy cannot, since .*; triton cannot"):
        backends.choose("cuda")


def test_wrong_memory_is_refused():
    with pytest.raises(ValueError, match="backend 'numpy' serves cpu memory, but the arrays are in cuda memory"):
        backends.choose("cuda", "numpy")


def test_importing_gpuopt_imports_no_backend():
    code = (
        "import gpuopt, sys; gpuopt.arrays; gpuopt.backends;"
        "print([m for m in ('torch', 'triton', 'cupy', 'numba', 'ml_dtypes') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout == "[]\n"


def test_numpy_alone_is_enough():
    code = """
import sys, warnings
for name in ("torch", "triton", "cupy", "numba", "ml_dtypes"):
    sys.modules[name] = None
import numpy as np
import gpuopt
warnings.simplefilter("ignore")
p = {"w": np.ones(3)}
gpuopt.arrays.SGD(lr=0.5).update(p, {"w": np.ones(3)})
print(p["w"])
"""
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout == "[0.5 0.5 0.5]\n"


def test_an_optimizer_for_torch_says_what_to_install():
    code = "import sys; sys.modules['torch'] = None; from gpuopt import AdamW"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    said = "gpuopt.AdamW needs torch, which is not installed (pip install 'gpuopt[torch]'); gpuopt.arrays needs NumPy"
    assert done.stderr.splitlines()[-1] == f"ModuleNotFoundError: {said} alone"


@pytest.mark.parametrize("error", [ImportError("a library is broken"), PermissionError("home cannot be written")])
def test_a_driver_that_cannot_be_imported_says_why(error, monkeypatch):
    def load(entry):
        raise error

    monkeypatch.setattr(drivers.Entry, "load", load)
    assert drivers.Entry("numpy", "cpu").unavailable() == f"numpy cannot be imported ({error})"


def test_imports_run_one_way():
    host = ("arrays", "backends", "checkpoint", "cli", "memory", "optim", "plan", "bench")
    for path in (ROOT / "kernels").rglob("*.py"):
        source = path.read_text()
        for name in host:
            assert f"gpuopt.{name}" not in source.replace("gpuopt.kernels", ""), f"{path} reaches up to gpuopt.{name}"
            assert f"from gpuopt import {name}" not in source, f"{path} reaches up to gpuopt.{name}"
