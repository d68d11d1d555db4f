"""One task, tried again where the machine is to blame and not the data."""

import errno
import time
from collections.abc import Callable
from typing import TypeVar

from pipelines.errors import LabelopsError

T = TypeVar("T")
R = TypeVar("R")

RETRIES = 2
"""A shard is tried so often again after an error of the machine, not of the data."""


def attempt(function: Callable[[T], R], task: T) -> R:
    """Apply the function; after an error of the machine (I/O, memory), wait and try again."""
    for tried in range(RETRIES + 1):
        try:
            return function(task)
        except LabelopsError:
            raise
        except (OSError, MemoryError) as err:
            if tried == RETRIES or getattr(err, "errno", None) == errno.ENOSPC:
                raise
            time.sleep(0.1 * 4**tried)
    raise AssertionError("unreachable")


def describe(task: object) -> str:
    """Name a task for people: by its shard where it has one."""
    label = getattr(task, "label", None)
    return f"shard {getattr(task, 'shard', '')} ({label})" if label else str(task)
