"""What is compiled is remembered for as long as no source has changed."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

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

INNER = """
from labelops.fast.jit import compiled

@compiled()
def factor(x):
    return {} * x
"""


def run(folder: Path) -> list[int]:
    env = {**os.environ, "PYTHONPATH": str(folder), "NUMBA_CACHE_DIR": str(folder / "cache")}
    command = [sys.executable, "-c", PROGRAM]
    done = subprocess.run(command, env=env, cwd=folder, capture_output=True, text=True, check=True)
    return [int(word) for word in done.stdout.split()]


def test_compiled__is_remembered_until_a_function_it_calls_changes_in_another_file(tmp_path: Path):
    package = tmp_path / "labelops"
    (package / "fast").mkdir(parents=True)
    for name in ("__init__.py", "fast/__init__.py"):
        (package / name).touch()
    shutil.copy(Path(labelops.__file__).parent / "fast" / "jit.py", package / "fast")
    (package / "fast" / "outer.py").write_text(OUTER)
    (package / "fast" / "inner.py").write_text(INNER.format(2))
    assert run(tmp_path) == [6, 0, 0]
    assert run(tmp_path) == [6, 1, 1]
    (package / "fast" / "inner.py").write_text(INNER.format(5))
    assert run(tmp_path) == [15, 0, 0]
