"""Pictures that shards name by path: files beside a shard, or elsewhere in the data's folder.

Whoever wrote the shards could name any file of this machine, so names lead nowhere else. What is
read is part of the data: files are hashed with their shard, and compared whenever they are read.
"""

import posixpath

import numpy as np
import pyarrow as pa
import xxhash

from pipelines.storage.content import ChangedError
from pipelines.storage.store import Store

MAX_BYTES = 256 * 2**20
"""Longer files are not read: no encoded picture has so many bytes."""

MISSING = 0
"""Stands for the hash of a file that is not there."""


def picture_file(store: Store, shard: str, path: str) -> str | None:
    """Return the name within the data of the file that a shard means by a path, or None.

    Paths are relative to the shard's folder or to the data's, or absolute inside the latter.
    """
    if "\0" in path:
        return None
    path = path.removeprefix("file://")
    if posixpath.isabs(path):
        inside = posixpath.relpath(posixpath.normpath(path), store.uri)
        tried = [inside] if store.local_path("") is not None else []
    else:
        tried = [posixpath.join(posixpath.dirname(shard), path), path]
    for name in dict.fromkeys(map(posixpath.normpath, tried)):
        if name != ".." and not name.startswith("../") and _is_file(store, name):
            return name
    return None


def _is_file(store: Store, name: str) -> bool:
    local = store.local_path(name)
    try:
        return store.exists(name) if local is None else local.is_file()
    except (OSError, ValueError):
        return False


def read_picture(store: Store, shard: str, path: str) -> bytes | None:
    """Return the bytes of a picture that a shard names; None where there is no such file."""
    name = picture_file(store, shard, path)
    if name is None or store.size(name) > MAX_BYTES:
        return None
    return store.read_bytes(name)


def hash_of(data: bytes | None) -> int:
    """Return the hash of a picture's bytes, never `MISSING` where there are some."""
    return MISSING if data is None else (xxhash.xxh3_64_intdigest(data) or 1)


def paths_of(pictures: pa.Array) -> list[str | None]:
    """Return the paths of those pictures, structs of `bytes` and `path`, that have no bytes."""
    has_bytes = pictures.field("bytes").is_valid().to_numpy(zero_copy_only=False)
    paths = pictures.field("path").to_pylist()
    return [None if has else path for has, path in zip(has_bytes, paths, strict=True)]


def hash_pictures(store: Store, shard: str, pictures: pa.Array) -> np.ndarray:
    """Return the hash of every picture that is named by its path; `MISSING` for all others."""
    hashes = [
        MISSING if path is None else hash_of(read_picture(store, shard, path))
        for path in paths_of(pictures)
    ]
    return np.array(hashes, np.uint64)


def filled(store: Store, shard: str, pictures: pa.Array, hashes: np.ndarray) -> pa.Array:
    """Return pictures with the bytes of those that are named by their path.

    Raises
    ------
    ChangedError
        If a file is not what it was when it was hashed; names it.
    """
    paths = paths_of(pictures)
    if not any(path is not None for path in paths):
        return pictures
    held = pictures.field("bytes").to_pylist()
    for row, path in enumerate(paths):
        if path is None or hashes[row] == MISSING:
            continue
        data = read_picture(store, shard, path)
        if hash_of(data) != hashes[row]:
            raise ChangedError(f"the picture {path!r} that it names has changed")
        held[row] = data
    return pa.StructArray.from_arrays(
        [pa.array(held, pa.binary()), pictures.field("path")],
        fields=list(pictures.type),
        mask=pictures.is_null(),
    )
