"""What is compiled is remembered for as long as no source has changed."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import labelops

PROGRAM = """
from labelops.fast.outer import doubled
print(doubled(3), len(doubled.stats.cache_hits), sum(doubled.stats.cache_hits.values()))
"""

OUTER = """
from labelops.fast.inner import factor
from labelops.fast.jit import compiled

@compiled()
def doubled(x):
    return factor(x)
"""

WITH_A_TUPLE = """
from typing import NamedTuple
from labelops.fast.jit import compiled

class PAIR(NamedTuple):
    factor: int

@compiled()
def product(pair, x):
    return pair.factor * x

def doubled(x):
    return product(PAIR(2), x)

doubled.stats = product.stats
"""

INNER = """
from labelops.fast.jit import compiled

@compiled()
def factor(x):
    return {} * x
"""


def run(folder: Path, **more: str) -> list[int]:
    env = {**os.environ, "PYTHONPATH": str(folder), "NUMBA_CACHE_DIR": str(folder / "cache")} | more
    # Python takes a source of the same second and size for the same.
    env["PYTHONDONTWRITEBYTECODE"] = "1"
    command = [sys.executable, "-c", PROGRAM]
    done = subprocess.run(command, env=env, cwd=folder, capture_output=True, text=True, check=True)
    return [int(word) for word in done.stdout.split()]


@pytest.fixture
def package(tmp_path: Path) -> Path:
    package = tmp_path / "labelops"
    (package / "fast").mkdir(parents=True)
    for name in ("__init__.py", "fast/__init__.py"):
        (package / name).touch()
    shutil.copy(Path(labelops.__file__).parent / "fast" / "jit.py", package / "fast")
    (package / "fast" / "outer.py").write_text(OUTER)
    (package / "fast" / "inner.py").write_text(INNER.format(2))
    return package


def test_compiled__is_remembered_until_a_function_it_calls_changes_in_another_file(package: Path):
    assert run(package.parent) == [6, 0, 0]
    assert run(package.parent) == [6, 1, 1]
    (package / "fast" / "inner.py").write_text(INNER.format(5))
    assert run(package.parent) == [15, 0, 0]


def test_compiled__runs_where_nothing_can_be_remembered(package: Path) -> None:
    # A file stands where numba would keep it beside the source; no folder can be made in /proc.
    (package / "fast" / "__pycache__").touch()
    nowhere = dict.fromkeys(("HOME", "XDG_CACHE_HOME", "NUMBA_CACHE_DIR"), "/proc/nowhere")
    for _ in range(2):
        assert run(package.parent, **nowhere) == [6, 0, 0]


def test_compiled__is_made_anew_where_what_is_remembered_names_a_class_that_is_gone(package: Path):
    outer = package / "fast" / "outer.py"
    for name, hits in (("Old", 0), ("Old", 1), ("New", 0), ("New", 1)):
        outer.write_text(WITH_A_TUPLE.replace("PAIR", name))
        assert run(package.parent) == [6, hits, hits]
