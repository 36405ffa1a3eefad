"""Where the Numba driver keeps compiled code.

1. A second process reads what the first compiled.
2. Code whose source has changed, in whatever file of kernels/, or in that of a rule from elsewhere, is compiled anew.
3. Each variant has an index of its own: processes that compile different ones at once never write the same file.
4. Where no folder of Numba's is writable it is the temporary one; where that is not either, a warning says so.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile

import numba
import pytest

from gpuopt.kernels.drivers import numba as driver

STEP = """
import numpy as np, gpuopt
from gpuopt.kernels.drivers import numba as driver
{change}
p = np.ones(3)
gpuopt.arrays.step("sgd", [p], [p.copy()], {{}}, (0.5, 0, 0, 0, 0))
(dispatcher,) = found
print(sum(dispatcher.stats.cache_hits.values()), sum(dispatcher.stats.cache_misses.values()))
"""
FIND = """
found = []
enable = driver._enable_caching
driver._enable_caching = lambda dispatcher: (found.append(dispatcher), enable(dispatcher))[1]
"""


def hits_and_misses(folder, change=""):
    code = STEP.format(change=FIND + change)
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(folder)}
    out = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    return tuple(map(int, out.stdout.split()))


def test_a_second_process_reads_what_the_first_compiled(tmp_path):
    assert hits_and_misses(tmp_path) == (0, 1)
    assert hits_and_misses(tmp_path) == (1, 0)
    assert hits_and_misses(tmp_path, "driver.source_fingerprint = lambda: 'another source'") == (0, 1)


def test_each_variant_has_an_index_of_its_own(tmp_path):
    hits_and_misses(tmp_path)
    hits_and_misses(
        tmp_path,
        "gpuopt.arrays.step('sgd', [np.ones(3, 'f')], [np.ones(3, 'f')], {}, (0.5, 0, 0, 0, 0))\nfound.clear()",
    )
    indices = list(tmp_path.rglob("*.nbi"))
    assert len(indices) == 2
    assert len({path.name.split("-")[0] for path in indices}) == 2


def test_the_fingerprint_covers_every_source(tmp_path, monkeypatch):
    (tmp_path / "drivers").mkdir()
    (tmp_path / "rules").mkdir()
    rule = tmp_path / "rules" / "adam.py"
    rule.write_text("a = 1")
    monkeypatch.setattr(driver, "__file__", str(tmp_path / "drivers" / "numba.py"))
    before = driver.source_fingerprint.__wrapped__()
    rule.write_text("a = 2")
    assert driver.source_fingerprint.__wrapped__() != before


def test_the_fingerprint_of_a_form_from_elsewhere(tmp_path):
    def form_in(source, file):
        path = tmp_path / file
        path.write_text(source)
        names = {}
        exec(compile(source, str(path), "exec"), names)
        return names["form"]

    one, other = "def form(p, g):\n    return p - g\n", "def form(p, g):\n    return p + g\n"
    before = driver.form_fingerprint(form_in(one, "rule.py"))
    assert driver.form_fingerprint(form_in(one, "rule.py")) == before
    assert driver.form_fingerprint(form_in(other, "rule.py")) != before
    names = {}
    exec(one, names)
    without_file = driver.form_fingerprint(names["form"])
    exec(other, names)
    assert driver.form_fingerprint(names["form"]) != without_file


class Dispatcher:
    """Stands in for Numba's, which as root would find every folder writable."""

    def __init__(self, writable):
        self.writable = writable
        self.folder = None

    def enable_caching(self):
        if not self.writable(numba.config.CACHE_DIR):
            raise RuntimeError("cannot cache function: no locator available")
        self.folder = numba.config.CACHE_DIR


def test_the_temporary_folder_is_the_fallback():
    before = numba.config.CACHE_DIR
    dispatcher = Dispatcher(lambda folder: folder.startswith(tempfile.gettempdir()))
    driver.cache_on_disk(dispatcher)
    assert dispatcher.folder.startswith(os.path.join(tempfile.gettempdir(), "gpuopt-"))
    assert before == numba.config.CACHE_DIR


def test_a_temporary_folder_that_others_can_write_is_not_trusted(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "gettempdir", lambda: str(tmp_path))
    folder = tmp_path / f"gpuopt-{os.getuid()}"
    assert driver._is_private(folder)
    assert driver._is_private(folder)
    folder.chmod(0o777)
    assert not driver._is_private(folder)


def test_nowhere_to_cache_is_said():
    with pytest.warns(UserWarning, match="set NUMBA_CACHE_DIR to one that is"):
        driver.cache_on_disk(Dispatcher(lambda folder: False))
