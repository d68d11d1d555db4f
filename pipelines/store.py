"""Files of a run: local folders and object stores behind the same dozen verbs.

Two things must be atomic for the promises of a run to hold: *publish* (a name shows a whole file or
none) and *create if absent* (of several writers exactly one wins). Locally they are ``rename`` and
``link``; on an object store they are PUT, and PUT with ``If-None-Match: *``.
"""

import contextlib
import hashlib
import io
import os
import shutil
import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any

from typing_extensions import override

from pipelines.errors import RunError

Digest = Callable[[], Any]
"""Makes what hashes bytes, as those of hashlib do."""


SYNCS = 16
"""So many files are forced to the disk at a time."""


class Store(ABC):
    """What a run needs of a place to keep files. Names are relative, '/'-separated."""

    uri: str

    @abstractmethod
    def exists(self, name: str) -> bool:
        """Say whether there is a file of that name."""

    @abstractmethod
    def size(self, name: str) -> int:
        """Return a file's size in bytes."""

    @abstractmethod
    def read_bytes(self, name: str) -> bytes:
        """Return a whole file."""

    @abstractmethod
    def read_range(self, name: str, start: int, n_bytes: int) -> bytes:
        """Return some bytes of a file."""

    @abstractmethod
    def open_read(self, name: str) -> Any:
        """Return what pyarrow opens for reading: a local path, or an open file."""

    @abstractmethod
    def open_temp(self, name: str, digest: "Digest" = hashlib.sha256) -> "TempFile":
        """Open a file that will get that name when it is published; `digest` hashes its bytes."""

    @abstractmethod
    def publish(self, temp: str, name: str) -> None:
        """Give a temporary file its final name, in one step."""

    @abstractmethod
    def create_if_absent(self, name: str, data: bytes) -> bool:
        """Write the file unless it exists; say whether this call made it."""

    @abstractmethod
    def write_atomic(self, name: str, data: bytes) -> None:
        """Write or replace a file, in one step."""

    @abstractmethod
    def list(self, folder: str) -> list[str]:
        """Return the names in a folder, sorted; none if it does not exist."""

    @abstractmethod
    def remove(self, name: str) -> None:
        """Remove a file if it is there."""

    @abstractmethod
    def remove_tree(self, folder: str) -> None:
        """Remove a folder with all in it, if it is there."""

    @abstractmethod
    def sync(self, names: Sequence[str]) -> None:
        """Force files, and their names, to the disk."""

    @abstractmethod
    def modified(self, name: str) -> str:
        """Return what changes when the file is written again: a time, or an entity tag."""

    @abstractmethod
    def local_path(self, name: str) -> Path | None:
        """Return the file's local path, or None if it has none."""


class TempFile:
    """A file being written under a name nobody else uses; hashes what passes through.

    Parameters
    ----------
    raw
        Binary file open for writing.
    name
        Its temporary name in the store.
    digest
        Makes the hash.
    """

    def __init__(self, raw: IO[bytes], name: str, digest: Digest = hashlib.sha256) -> None:
        self.raw = raw
        self.name = name
        self.n_bytes = 0
        self.closed = False
        self._hash = digest()

    def write(self, data: Any) -> int:
        """Write bytes, counting and hashing them."""
        view = memoryview(data).cast("B")
        self._hash.update(view)
        self.n_bytes += view.nbytes
        self.raw.write(view)
        return view.nbytes

    def tell(self) -> int:
        """Return the number of bytes written."""
        return self.n_bytes

    def flush(self) -> None:
        """Hand what is buffered to the system."""
        self.raw.flush()

    def close(self, *, durable: bool = True) -> None:
        """Hand everything to the system; if durable, to the disk, before a rename can overtake."""
        if self.closed:
            return
        self.raw.flush()
        if durable and isinstance(self.raw, io.BufferedWriter):
            os.fsync(self.raw.fileno())
        self.raw.close()
        self.closed = True

    def abandon(self) -> None:
        """Close without handing on what is held back; whatever made that necessary counts.

        Left open, it would be flushed, or uploaded, when it is collected.
        """
        if self.closed:
            return
        self.closed = True
        raw: Any = self.raw
        with contextlib.suppress(Exception):
            if isinstance(raw, io.BufferedWriter):
                raw.raw.close()
            elif hasattr(raw, "discard"):  # files of fsspec
                raw.discard()
                raw.closed = True
            else:
                raw.close()

    def readable(self) -> bool:
        """Say no."""
        return False

    def writable(self) -> bool:
        """Say yes."""
        return True

    def seekable(self) -> bool:
        """Say no: what is written is hashed in order."""
        return False

    @property
    def digest(self) -> str:
        """Hash of all that was written, in hexadecimal."""
        return str(self._hash.hexdigest())


def temp_name(name: str) -> str:
    """Name for a file in the making; starts with '.' so that no reader of folders sees it."""
    folder, _, leaf = name.rpartition("/")
    return f"{folder}/.tmp-{leaf}-{uuid.uuid4().hex[:12]}".lstrip("/")


class LocalStore(Store):
    """A folder of a local (or locally mounted) file system."""

    def __init__(self, root: str | os.PathLike[str]) -> None:
        self.root = Path(root).absolute()
        self.uri = str(self.root)

    def _path(self, name: str) -> str:
        # Names are ours, but a run folder may have been written by somebody else: never follow
        # one out of the folder.
        if name.startswith("/") or ".." in name.split("/"):
            raise RunError(f"store: a name inside {self.uri} was expected, got {name!r}")
        return f"{self.uri}/{name}" if name else self.uri

    @override
    def exists(self, name: str) -> bool:
        return os.path.exists(self._path(name))

    @override
    def size(self, name: str) -> int:
        return os.stat(self._path(name)).st_size

    @override
    def read_bytes(self, name: str) -> bytes:
        with open(self._path(name), "rb") as file:
            return file.read()

    @override
    def read_range(self, name: str, start: int, n_bytes: int) -> bytes:
        with open(self._path(name), "rb") as file:
            file.seek(start)
            return file.read(n_bytes)

    @override
    def open_read(self, name: str) -> Any:
        return self._path(name)

    @override
    def open_temp(self, name: str, digest: Digest = hashlib.sha256) -> TempFile:
        temp = temp_name(name)
        path = self._path(temp)
        try:
            raw = open(path, "wb")  # noqa: SIM115 - whoever gets it closes it
        except FileNotFoundError:
            os.makedirs(os.path.dirname(path), exist_ok=True)
            raw = open(path, "wb")  # noqa: SIM115
        return TempFile(raw, temp, digest)

    @override
    def publish(self, temp: str, name: str) -> None:
        os.replace(self._path(temp), self._path(name))

    @override
    def create_if_absent(self, name: str, data: bytes) -> bool:
        """Write the file unless it exists; say whether this call made it.

        ``link`` of a finished file: whoever sees the name sees all of it, also after a crash of
        the process. It is not forced to the disk: after a loss of power the file may be missing or
        empty, which its readers must take as absent.
        """
        path = self._path(name)
        with self._written(name, data, durable=False) as temp:
            try:
                os.link(temp, path)
            except FileExistsError:
                return False
        return True

    @override
    def write_atomic(self, name: str, data: bytes) -> None:
        path = self._path(name)
        with self._written(name, data, durable=True) as temp:
            os.replace(temp, path)
        _sync_path(os.path.dirname(path))

    @contextlib.contextmanager
    def _written(self, name: str, data: bytes, *, durable: bool) -> Iterator[str]:
        temp = self.open_temp(name)
        try:
            temp.write(data)
            temp.close(durable=durable)
            yield self._path(temp.name)
        finally:
            temp.abandon()
            self.remove(temp.name)

    @override
    def list(self, folder: str) -> list[str]:
        try:
            return sorted(os.listdir(self._path(folder)))
        except (FileNotFoundError, NotADirectoryError):
            return []

    @override
    def remove(self, name: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._path(name))

    @override
    def remove_tree(self, folder: str) -> None:
        shutil.rmtree(self._path(folder), ignore_errors=True)

    @override
    def sync(self, names: Sequence[str]) -> None:
        """Force files, and their names, to the disk; some at a time, which the disk can join."""
        with ThreadPoolExecutor(SYNCS) as pool:
            list(pool.map(_sync_path, map(self._path, names)))
        for folder in sorted({os.path.dirname(self._path(name)) for name in names}):
            _sync_path(folder)

    @override
    def modified(self, name: str) -> str:
        return str(os.stat(self._path(name)).st_mtime_ns)

    @override
    def local_path(self, name: str) -> Path | None:
        return Path(self._path(name))


def _sync_path(path: str) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


class ObjectStore(Store):
    """A prefix of an object store reached through fsspec (s3, gs, az, memory, …)."""

    def __init__(self, uri: str) -> None:
        import fsspec

        self.uri = uri if uri.endswith("://") else uri.rstrip("/")
        self.fs, self.root = fsspec.core.url_to_fs(self.uri)

    def _path(self, name: str) -> str:
        if ".." in name.split("/") or name.startswith("/"):
            raise RunError(f"store: a name inside {self.uri} was expected, got {name!r}")
        return f"{self.root}/{name}" if name else str(self.root)

    @override
    def exists(self, name: str) -> bool:
        return bool(self.fs.exists(self._path(name)))

    @override
    def size(self, name: str) -> int:
        return int(self.fs.size(self._path(name)))

    @override
    def read_bytes(self, name: str) -> bytes:
        return bytes(self.fs.cat_file(self._path(name)))

    @override
    def read_range(self, name: str, start: int, n_bytes: int) -> bytes:
        return bytes(self.fs.cat_file(self._path(name), start=start, end=start + n_bytes))

    @override
    def open_read(self, name: str) -> Any:
        return self.fs.open(self._path(name), "rb")

    @override
    def open_temp(self, name: str, digest: Digest = hashlib.sha256) -> TempFile:
        temp = temp_name(name)
        return TempFile(self.fs.open(self._path(temp), "wb"), temp, digest)

    @override
    def publish(self, temp: str, name: str) -> None:
        self.fs.mv(self._path(temp), self._path(name))

    @override
    def create_if_absent(self, name: str, data: bytes) -> bool:
        # Conditional PUT: of several writers the store lets exactly one through.
        try:
            self.fs.pipe_file(self._path(name), data, mode="create")
        except FileExistsError:
            return False
        return True

    @override
    def write_atomic(self, name: str, data: bytes) -> None:
        self.fs.pipe_file(self._path(name), data)

    @override
    def list(self, folder: str) -> list[str]:
        self.fs.invalidate_cache()
        try:
            found = self.fs.ls(self._path(folder), detail=False)
        except FileNotFoundError:
            return []
        return sorted(path.rstrip("/").rsplit("/", 1)[-1] for path in found)

    @override
    def remove(self, name: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            self.fs.rm_file(self._path(name))

    @override
    def remove_tree(self, folder: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            self.fs.rm(self._path(folder), recursive=True)

    @override
    def sync(self, names: Sequence[str]) -> None:
        """Do nothing: an object that was put is there."""

    @override
    def modified(self, name: str) -> str:
        info = self.fs.info(self._path(name))
        known = (info.get(key) for key in ("ETag", "etag", "LastModified", "mtime", "created"))
        return str(next((value for value in known if value), ""))

    @override
    def local_path(self, name: str) -> Path | None:
        return None


def is_local(uri: str) -> bool:
    """Say whether a URI names a local path."""
    return "://" not in uri or uri.startswith("file://")


def open_store(uri: str) -> Store:
    """Open the place that a URI names.

    Parameters
    ----------
    uri
        Local path, ``file://`` URI, or any URI that fsspec knows.
    """
    if is_local(uri):
        return LocalStore(uri.removeprefix("file://"))
    return ObjectStore(uri)


def open_file(uri: str) -> tuple[Store, str]:
    """Open the folder that a file lies in.

    Parameters
    ----------
    uri
        Local path, ``file://`` URI, or any URI that fsspec knows, of one file.

    Returns
    -------
    The store of its folder, and its name there.

    Examples
    --------
    >>> store, name = open_file("memory://totals/2026/bags.parquet")
    >>> store.uri, name
    ('memory://totals/2026', 'bags.parquet')
    >>> open_file("memory://bags.parquet")[0].uri
    'memory://'
    """
    path = uri.removeprefix("file://")
    folder, slash, name = path.rpartition("/")
    if not folder or folder.endswith(":/"):
        folder = f"{folder}{slash}" or "."
    return open_store(folder), name
