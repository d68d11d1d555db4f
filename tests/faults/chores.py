"""Tasks that misbehave on workers; each leaves a mark for every time it was executed."""

import os
import threading
import time
import uuid
from collections.abc import Callable
from pathlib import Path

import psutil
import pyarrow as pa

from pipelines.errors import CorruptShardError, DataError, RunError


def mark(folder: str, n: int) -> None:
    (Path(folder) / f"{n}-{uuid.uuid4().hex}").touch()


def executions(folder: Path, n: int) -> int:
    return len(list(folder.glob(f"{n}-*")))


def die_once_at_nine(task: tuple[str, int]) -> int:
    folder, n = task
    mark(folder, n)
    if n == 9 and executions(Path(folder), 9) == 1:
        time.sleep(1.0)
        os._exit(1)
    return n


def poison_three(task: tuple[str, int]) -> int:
    folder, n = task
    mark(folder, n)
    if n == 3:
        os._exit(1)
    return n


def flaky_disk(task: tuple[str, int]) -> int:
    folder, n = task
    mark(folder, n)
    if executions(Path(folder), n) < 3:
        raise OSError(5, "Input/output error")
    return n


def wait_long(task: tuple[str, int]) -> int:
    time.sleep(60)
    return task[1]


def broken_disk(task: tuple[str, int]) -> int:
    raise OSError(5, "Input/output error", task[0])


class Stubborn(Exception):
    """Holds what cannot be pickled, wants two arguments, and cannot be printed."""

    def __init__(self, folder: str, n: int) -> None:
        super().__init__(folder, n)
        self.lock = threading.Lock()

    def __reduce__(self) -> str:
        raise TypeError("not to be taken along")


class Silent(Stubborn):
    def __str__(self) -> str:
        raise RuntimeError("says nothing")


def _loop(length: int) -> ValueError:
    """Return an error that is, over some others, its own cause."""
    errors = [ValueError(f"error {i}") for i in range(length)]
    for i, error in enumerate(errors):
        error.__cause__ = errors[(i + 1) % length]
        error.__context__ = errors[(i + 1) % length]
    return errors[0]


def _caused() -> RunError:
    error = RunError("stage 'x': a number was expected, got none. Count again")
    error.__cause__ = KeyError("pillow")
    return error


ERRORS: dict[str, Callable[[], Exception]] = {
    "io": lambda: OSError(5, "Input/output error", "part-00000.parquet"),
    "missing": lambda: FileNotFoundError(2, "No such file or directory", "a", None, "b"),
    "io without a number": lambda: OSError("Couldn't deserialize thrift"),
    "corrupt": lambda: CorruptShardError("shard 3 (b.parquet): damaged. Restore the file"),
    "memory": lambda: MemoryError("Unable to allocate 74.5 GiB"),
    "key": lambda: KeyError("pillow"),
    "number": lambda: KeyError(7),
    "unicode": lambda: UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"),
    "of a library": lambda: pa.ArrowInvalid("not a Parquet file"),
    "ours": lambda: DataError("source: items were expected, got none. Look into the folder"),
    "ours, caused": _caused,
    "its own cause": lambda: _loop(1),
    "its own cause over two": lambda: _loop(3),
    "not to be pickled": lambda: Stubborn("folder", 3),
    "not to be printed": lambda: Silent("folder", 3),
    "long": lambda: ValueError("x" * 30_000_000),
}


def fail(kind: str) -> None:
    raise ERRORS[kind]()


def memory(dask_worker: object = None) -> int:
    """Return how many bytes this process holds."""
    return int(psutil.Process().memory_info().rss)
