"""Files that settings name: regular ones, not empty, of a bounded size."""

import os
import stat

from pipelines.storage.store import LocalStore, Store, open_file

KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
)

RECIPE_BYTES = 2**20
TABLE_BYTES = 2 * 2**30
MODEL_BYTES = 64 * 2**30


class UnusableFileError(OSError):
    """A file that is none to read; its text says what it is instead."""


def open_named(uri: str, *, most: int) -> tuple[Store, str]:
    """Return the store and the name there of a file that a setting names.

    What is no regular file (a device, a pipe) may never end; what the system says to be empty may
    be so, or be made as it is read, as in /proc.

    Raises
    ------
    UnusableFileError
        If it is no regular file, empty, or larger than `most` bytes.
    OSError
        If there is no such file, or it may not be read; file systems have further errors of theirs.
    """
    store, name = open_file(uri)
    if not name:
        raise UnusableFileError("a folder")
    if isinstance(store, LocalStore):
        status = os.stat(store.local_path(name) or name)
        for is_kind, word in KINDS:
            if is_kind(status.st_mode):
                raise UnusableFileError(word)
        size = status.st_size
    else:
        size = store.size(name)
    if size == 0:
        raise UnusableFileError("an empty file")
    if size > most:
        raise UnusableFileError(f"{size / 2**20:,.1f} MiB, more than {most / 2**20:,.0f} MiB")
    return store, name
