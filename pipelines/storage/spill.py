"""Arrays on disk that are written through memory."""

import os
from typing import Any

import numpy as np


def new_array(path: str, dtype: np.dtype | type, shape: tuple[int, ...]) -> "np.memmap[Any, Any]":
    """Return a new array in an .npy file, whose room on the disk is taken at once.

    What is written through memory finds a full disk only when the system writes the pages, and ends
    the process; so the room is asked for before.

    Raises
    ------
    OSError
        If there is not enough of it.
    """
    array: np.memmap[Any, Any] = np.lib.format.open_memmap(path, "w+", dtype, shape)
    with open(path, "r+b") as file:
        os.posix_fallocate(file.fileno(), 0, max(1, os.fstat(file.fileno()).st_size))
    return array
