"""A reader with faults, to test what looks for them."""

import os
import time
from collections.abc import Iterator
from pathlib import Path

from pipelines.errors import DataError


def seeds() -> None:
    """Need none."""


def batch(numbers: range) -> Iterator[tuple[int, int]]:
    """Yield the seeds themselves."""
    for seed in numbers:
        yield seed, seed


def work(made: int, folder: Path) -> None:
    """Die, hang, raise, refuse, or do well."""
    if made == 1:
        os.abort()
    if made == 2:
        time.sleep(60)
    if made == 3:
        raise KeyError("x")
    if made == 4:
        raise DataError("source: that was expected")
