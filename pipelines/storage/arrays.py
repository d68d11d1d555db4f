"""Arrays in .npy and .npz files: read by one thread at a time, and written through memory."""

import io
import os
import threading
from typing import Any, Literal

import numpy as np

_READING = threading.Lock()
"""NumPy reads headers by `ast.literal_eval`, whose depth CPython 3.11 counts once for all threads:
where garbage is collected meanwhile, two at once fail with "SystemError: AST constructor recursion
depth mismatch" (cpython#106905)."""


def read_array(path: str, mode: Literal["r"] | None = None) -> np.ndarray:
    """Return the array of an .npy file: read, or with mode "r" mapped into memory.

    Raises
    ------
    OSError, ValueError
        If there is none.
    """
    with _READING:
        array: np.ndarray = np.load(path, mmap_mode=mode, allow_pickle=False)
    return array


def read_arrays(data: bytes) -> dict[str, np.ndarray]:
    """Return all arrays of an .npz file.

    Raises
    ------
    ValueError, zipfile.BadZipFile
        If it is none.
    """
    with _READING, np.load(io.BytesIO(data), allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}


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
