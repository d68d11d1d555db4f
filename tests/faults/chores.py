"""Tasks that misbehave on workers; each leaves a mark for every time it was executed."""

import os
import time
import uuid
from pathlib import Path


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
