"""Arrays in files: read side by side, also while Python collects garbage."""

import gc
import io
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from pipelines.storage.arrays import new_array, read_array, read_arrays


class Cycle:
    """Garbage whose end runs Python code, so that another thread may go on there."""

    def __init__(self) -> None:
        self.me = self

    def __del__(self) -> None:
        for _ in range(200):
            pass


@pytest.fixture
def restless() -> Iterator[None]:
    """Collect garbage often, and change threads at every chance."""
    threshold, interval = gc.get_threshold(), sys.getswitchinterval()
    gc.set_threshold(50)
    sys.setswitchinterval(1e-6)
    yield
    gc.set_threshold(*threshold)
    sys.setswitchinterval(interval)


@pytest.mark.usefixtures("restless")
def test_read_array__from_many_threads_while_garbage_is_collected(tmp_path: Path) -> None:
    path, held = str(tmp_path / "a.npy"), io.BytesIO()
    new_array(path, np.int64, (3,))[:] = [1, 2, 3]
    np.savez(held, a=np.arange(3), b=np.ones(2))
    data = held.getvalue()

    def read(turn: int) -> tuple[list[int], list[int], list[str]]:
        Cycle()
        mapped = read_array(path, "r" if turn % 2 else None)
        arrays = read_arrays(data)
        return mapped.tolist(), arrays["a"].tolist(), list(arrays)

    with ThreadPoolExecutor(4) as threads:
        seen = list(threads.map(read, range(2_000)))
    assert seen == [([1, 2, 3], [0, 1, 2], ["a", "b"])] * 2_000
