"""Files of a run: local folders and object stores behind the same dozen verbs.

Two things must be atomic for the promises of a run to hold: *publish* (a name shows a whole file or
none) and *create if absent* (of several writers exactly one wins). Locally they are ``rename`` and
``link``; on an object store they are PUT, and PUT with ``If-None-Match: *``.
"""

import builtins
import contextlib
import hashlib
import io
import os
import shutil
import stat
import tempfile
import threading
import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any, TypeVar

from typing_extensions import override

from pipelines.errors import LinkError, RunError, StorageError, StorageTrouble
from pipelines.storage.address import BUCKETS, SAME, join, normalize, scheme_of, split
from pipelines.storage.trouble import explain, is_conflict

T = TypeVar("T")

Digest = Callable[[], Any]
"""Makes what hashes bytes, as those of hashlib do."""


SYNCS = 16
"""So many files are forced to the disk at a time."""

HELD_BYTES = 1 << 23
"""Objects up to this size are sent, and read, in one request; of longer ones parts."""

PATIENCE_S = 8.0
"""A storage that fails is asked again for so long, besides what its own library tries."""

CONNECT_TIMEOUT_S, READ_TIMEOUT_S = 5, 20
"""Longest waits for one answer of S3, which is asked up to three times."""

TEMPS = ".tmp-objects"
"""Where objects in the making lie, if they cannot be put in their place at once."""

MEMORY = threading.RLock()
"""Of fsspec's storage in memory, which is not made for threads."""

Guard = Callable[[], None]
"""Raises if whoever calls may not write any more."""

GUARDS: dict[str, Guard] = {}
"""Of the folders on object stores that this process holds; see `pipelines.core.lock`."""


class Store(ABC):
    """What a run needs of a place to keep files. Names are relative, '/'-separated."""

    uri: str
    guard: Guard | None = None
    """Asked before every write; None asks the guard of this process, if the folder has one."""

    @abstractmethod
    def exists(self, name: str) -> bool:
        """Say whether there is a file of that name."""

    @abstractmethod
    def size(self, name: str) -> int:
        """Return a file's size in bytes."""

    @abstractmethod
    def read_bytes(self, name: str) -> bytes:
        """Return a whole file."""

    def read_if_there(self, name: str) -> bytes | None:
        """Return a whole file, or None where there is none; asking first takes two requests."""
        try:
            return self.read_bytes(name)
        except (FileNotFoundError, NotADirectoryError):
            return None

    @abstractmethod
    def read_range(self, name: str, start: int, n_bytes: int) -> bytes:
        """Return some bytes of a file."""

    @abstractmethod
    def open_read(self, name: str, size: int = 0) -> Any:
        """Return what pyarrow opens for reading: a local path, or an open file.

        Of `size` bytes, if that is known.
        """

    @abstractmethod
    def open_temp(self, name: str, digest: "Digest" = hashlib.sha256) -> "TempFile":
        """Open a file that will get that name when it is published; `digest` hashes its bytes."""

    def settle(self, temp: str, name: str) -> str:
        """Put a closed temporary file where a commit record can name it; says where that is.

        Nobody sees it under its final name before the record counts, unless nothing is there.
        """
        return temp

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
    def walk(self) -> Sequence[str]:
        """Return the names of all files, in all folders, sorted; links are named, not followed."""

    @abstractmethod
    def temporaries(self, folders: Iterable[str]) -> builtins.list[str]:
        """Return files in the making, of whoever was killed, in some folders."""

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

    def temp_folder(self, folder: str) -> contextlib.AbstractContextManager[str]:
        """Give a local folder to work in, for its owner alone, near `folder` if that is local."""
        return tempfile.TemporaryDirectory(prefix="labelops-fit-")


class TempFile:
    """A file being written under a name nobody else uses; hashes what passes through."""

    def __init__(
        self, raw: "IO[bytes] | _Upload", name: str, digest: Digest = hashlib.sha256
    ) -> None:
        self.raw = raw
        self.name = name
        self.n_bytes = 0
        self.closed = self.is_abandoned = False
        self._hash = digest()

    def write(self, data: Any) -> int:
        """Write bytes, counting and hashing them."""
        view = memoryview(data).cast("B")
        if not self.is_abandoned:
            self._hash.update(view)
            self.n_bytes += view.nbytes
            self.raw.write(view)
        return view.nbytes

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
        """Close without handing on what is held back, or is written later.

        Left open, it would be flushed, or uploaded, when it is collected.
        """
        if self.closed:
            return
        self.closed = self.is_abandoned = True
        raw: Any = self.raw
        with contextlib.suppress(Exception):
            if isinstance(raw, io.BufferedWriter):
                raw.raw.close()
            else:
                raw.close()

    @property
    def digest(self) -> str:
        """Hash of all that was written, in hexadecimal."""
        return str(self._hash.hexdigest())


def temp_name(name: str) -> str:
    """Name for a file in the making; starts with '.' so that no reader of folders sees it."""
    folder, _, leaf = name.rpartition("/")
    return f"{folder}/.tmp-{leaf}-{uuid.uuid4().hex[:12]}".lstrip("/")


READS = stat.S_IRGRP | stat.S_IROTH
"""What a folder that was there before may give to others: to read."""


class LocalStore(Store):
    """A folder of a local (or locally mounted) file system.

    A run folder may have been touched by somebody else, so nothing in it is read, listed, written
    or removed through a symbolic link: only the root itself may be one. What is written is for its
    owner alone, unless the root was there before and lets others read. With `follow`, what is read
    may lie behind links, as the user's own data may.
    """

    def __init__(self, root: str | os.PathLike[str], *, follow: bool = False) -> None:
        self.root = Path(root).absolute()
        self.uri = str(self.root)
        self.follow = follow

    def _path(self, name: str) -> str:
        # Names are ours, but a run folder may have been written by somebody else: never follow
        # one out of the folder.
        if name.startswith("/") or ".." in name.split("/"):
            raise RunError(f"store: a name inside {self.uri} was expected, got {name!r}")
        return f"{self.uri}/{name}" if name else self.uri

    # -- ways to a name, step by step, through folders that are held open ------------------------

    @contextlib.contextmanager
    def _folder(self, folder: str, *, make: bool = False) -> Iterator[int]:
        """Open a folder, none of whose parts below the root may be a link; gives its handle."""
        self._path(folder)
        handle = self._open_root(make=make)
        try:
            for position, part in enumerate(folder.split("/") if folder else ()):
                inner = self._step(handle, part, folder, position, make=make)
                os.close(handle)
                handle = inner
            yield handle
        finally:
            os.close(handle)

    def _open_root(self, *, make: bool) -> int:
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
        try:
            return os.open(self.uri, flags)
        except FileNotFoundError:
            if not make:
                raise
        self.root.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileExistsError):
            os.mkdir(self.uri, stat.S_IRWXU)
            os.chmod(self.uri, stat.S_IRWXU)  # whatever the umask
        return os.open(self.uri, flags)

    def _step(self, handle: int, part: str, folder: str, position: int, *, make: bool) -> int:
        """Open a folder in an open folder; make it if it is wanted and not there."""
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            return os.open(part, flags, dir_fd=handle)
        except FileNotFoundError:
            if not make:
                raise
        except OSError:
            self._check_kind(handle, part, "/".join(folder.split("/")[: position + 1]))
            raise
        made = True
        try:
            os.mkdir(part, stat.S_IRWXU, dir_fd=handle)
        except FileExistsError:
            made = False
        inner = os.open(part, flags, dir_fd=handle)
        if made:
            # What a folder hands down (its group) stays.
            inherited = os.fstat(inner).st_mode & stat.S_ISGID
            shared = self._shared()
            _set_rights(inner, stat.S_IRWXU | shared | shared >> 2 | inherited)
        return inner

    @contextlib.contextmanager
    def _parent(self, name: str, *, make: bool = False) -> Iterator[tuple[int, str]]:
        """Open the folder that a name lies in; gives its handle, and the name in it."""
        folder, _, leaf = name.rpartition("/")
        with self._folder(folder, make=make) as handle:
            yield handle, leaf

    def _check_kind(self, handle: int, leaf: str, name: str) -> None:
        """Refuse what is neither a file nor a folder; what is not there passes."""
        try:
            kind = os.stat(leaf, dir_fd=handle, follow_symlinks=False).st_mode
        except FileNotFoundError:
            return
        if stat.S_ISLNK(kind):
            raise LinkError(
                f"run folder: files and folders were expected in {self.uri}, got a symbolic link "
                f"at {name} (to {os.readlink(leaf, dir_fd=handle)}). Nothing is read, written or "
                f"removed through links: remove {self.uri}/{name}, or put in its place what it "
                "leads to, and give the same command again",
                name,
            )
        if not (stat.S_ISREG(kind) or stat.S_ISDIR(kind)):
            raise LinkError(
                f"run folder: files and folders were expected in {self.uri}, got something else "
                f"(a pipe, a socket or a device) at {name}. Remove it and give the same command "
                "again",
                name,
            )

    def _checked(self, name: str) -> str:
        """Return the path of something that is to be read."""
        path = self._path(name)
        if not self.follow and name:
            with (
                contextlib.suppress(FileNotFoundError, NotADirectoryError),
                self._parent(name) as (folder, leaf),
            ):
                self._check_kind(folder, leaf, name)
        return path

    def _shared(self) -> int:
        """Return the rights to read that the root gives to others than its owner."""
        return os.stat(self.uri).st_mode & READS

    # -- the verbs -------------------------------------------------------------------------------

    @override
    def exists(self, name: str) -> bool:
        return os.path.exists(self._checked(name))

    @override
    def size(self, name: str) -> int:
        return os.stat(self._checked(name)).st_size

    @override
    def read_bytes(self, name: str) -> bytes:
        with open(self._checked(name), "rb") as file:
            return file.read()

    @override
    def read_range(self, name: str, start: int, n_bytes: int) -> bytes:
        with open(self._checked(name), "rb") as file:
            file.seek(start)
            return file.read(n_bytes)

    @override
    def open_read(self, name: str, size: int = 0) -> Any:
        return self._checked(name)

    @override
    def open_temp(self, name: str, digest: Digest = hashlib.sha256) -> TempFile:
        temp = temp_name(name)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with self._parent(temp, make=True) as (folder, leaf):
            handle = os.open(leaf, flags, stat.S_IRUSR | stat.S_IWUSR, dir_fd=folder)
        _set_rights(handle, stat.S_IRUSR | stat.S_IWUSR | self._shared())
        return TempFile(os.fdopen(handle, "wb"), temp, digest)

    @override
    def publish(self, temp: str, name: str) -> None:
        with self._parent(temp) as (here, old), self._parent(name, make=True) as (there, new):
            self._check_kind(here, old, temp)
            self._check_kind(there, new, name)
            os.replace(old, new, src_dir_fd=here, dst_dir_fd=there)

    @override
    def create_if_absent(self, name: str, data: bytes) -> bool:
        # `link` of a finished file: whoever sees the name sees all of it, also after a crash of the
        # process. It is not forced to the disk: after a loss of power the file may be missing or
        # empty, which its readers must take as absent.
        with self._written(name, data, durable=False) as (folder, temp, leaf):
            try:
                os.link(temp, leaf, src_dir_fd=folder, dst_dir_fd=folder, follow_symlinks=False)
            except FileExistsError:
                self._check_kind(folder, leaf, name)
                return False
        return True

    @override
    def write_atomic(self, name: str, data: bytes) -> None:
        with self._written(name, data, durable=True) as (folder, temp, leaf):
            self._check_kind(folder, leaf, name)
            os.replace(temp, leaf, src_dir_fd=folder, dst_dir_fd=folder)
            os.fsync(folder)

    @contextlib.contextmanager
    def _written(self, name: str, data: bytes, *, durable: bool) -> Iterator[tuple[int, str, str]]:
        """Write a temporary file; gives its folder, its name there, and the name it is for."""
        temp = self.open_temp(name)
        try:
            temp.write(data)
            temp.close(durable=durable)
            with self._parent(name) as (folder, leaf):
                yield folder, temp.name.rpartition("/")[2], leaf
        finally:
            temp.abandon()
            self.remove(temp.name)

    def open_lock(self, name: str) -> int:
        """Open the file to lock, made if it is not there; returns its handle.

        It is written in place, so no other name may lead to it.
        """
        flags = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC
        rights = stat.S_IRUSR | stat.S_IWUSR
        with self._parent(name, make=True) as (folder, leaf):
            self._check_kind(folder, leaf, name)
            handle = os.open(leaf, flags | os.O_CREAT, rights, dir_fd=folder)
        status = os.fstat(handle)
        if not stat.S_ISREG(status.st_mode) or status.st_nlink != 1:
            os.close(handle)
            raise LinkError(
                f"run folder: a file of its own was expected at {self.uri}/{name}, got one that "
                "has other names, too, or is no file. Remove it and give the same command again",
                name,
            )
        _set_rights(handle, rights | self._shared())
        return handle

    @override
    def list(self, folder: str) -> list[str]:
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            if self.follow:
                return sorted(os.listdir(self._path(folder)))
            with self._folder(folder) as handle:
                return sorted(os.listdir(handle))
        return []

    @override
    def walk(self) -> Sequence[str]:
        names: list[str] = []

        def add(folder: str) -> None:
            with os.scandir(self._path(folder)) as entries:
                for entry in entries:
                    name = f"{folder}/{entry.name}".lstrip("/")
                    if entry.is_dir(follow_symlinks=False):
                        add(name)
                    else:
                        names.append(name)

        with contextlib.suppress(FileNotFoundError):
            add("")
        return sorted(names)

    @override
    def temporaries(self, folders: Iterable[str]) -> builtins.list[str]:
        return [
            f"{folder}/{leaf}".lstrip("/")
            for folder in folders
            for leaf in self.list(folder)
            if leaf.startswith(".tmp-")
        ]

    @override
    def remove(self, name: str) -> None:
        with (
            contextlib.suppress(FileNotFoundError),
            self._parent(name) as (folder, leaf),
        ):
            self._check_kind(folder, leaf, name)
            os.unlink(leaf, dir_fd=folder)

    @override
    def remove_tree(self, folder: str) -> None:
        with (
            contextlib.suppress(FileNotFoundError, NotADirectoryError),
            self._parent(folder) as (above, leaf),
        ):
            self._check_kind(above, leaf, folder)
            # Links deeper down are removed themselves; nothing behind them is.
            shutil.rmtree(leaf, ignore_errors=True, dir_fd=above)

    @override
    def sync(self, names: Sequence[str]) -> None:
        # Some at a time, which the disk can join.
        with ThreadPoolExecutor(SYNCS) as pool:
            list(pool.map(self._sync_file, names))
        for folder in sorted({name.rpartition("/")[0] for name in names}):
            with self._folder(folder) as handle:
                os.fsync(handle)

    def _sync_file(self, name: str) -> None:
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
        with self._parent(name) as (folder, leaf):
            self._check_kind(folder, leaf, name)
            handle = os.open(leaf, flags, dir_fd=folder)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)

    @override
    def modified(self, name: str) -> str:
        return str(os.stat(self._checked(name)).st_mtime_ns)

    @override
    def local_path(self, name: str) -> Path | None:
        return Path(self._checked(name))

    @override
    @contextlib.contextmanager
    def temp_folder(self, folder: str) -> Iterator[str]:
        name = f"{folder}/.fit-{uuid.uuid4().hex[:12]}"
        with self._parent(name, make=True) as (above, leaf):
            os.mkdir(leaf, stat.S_IRWXU, dir_fd=above)
            try:
                yield self._path(name)
            finally:
                shutil.rmtree(leaf, ignore_errors=True, dir_fd=above)


def _set_rights(handle: int, rights: int) -> None:
    """Give an open file or folder its rights, whatever the umask took away."""
    if stat.S_IMODE(os.fstat(handle).st_mode) != rights:
        # Some file systems (of memory sticks, say) know no rights.
        with contextlib.suppress(PermissionError):
            os.fchmod(handle, rights)


class _Upload(io.RawIOBase):
    """What is written to an object: held in memory while it is small, or else sent on at once."""

    def __init__(self, begin: Callable[[], IO[bytes]]) -> None:
        self._begin = begin
        self._held = io.BytesIO()
        self._sent: IO[bytes] | None = None

    @override
    def write(self, data: Any) -> int:
        n = memoryview(data).nbytes
        if self._sent is None and self._held.tell() + n > HELD_BYTES:
            self._sent = self._begin()
            self._sent.write(self._held.getbuffer())
            self._held = io.BytesIO()
        (self._sent or self._held).write(data)
        return n

    @override
    def close(self) -> None:
        if self._sent is not None:
            self._sent.close()
        super().close()

    def held(self) -> bytes | None:
        """Return all that was written, if nothing was sent."""
        return self._held.getvalue() if self._sent is None else None


class ObjectStore(Store):
    """A prefix of an object store reached through fsspec (s3, gs, az, memory, …).

    An object appears whole or not at all, so what fits into memory is put under its final name at
    once, on the condition that nothing is there; see `settle`.
    """

    def __init__(self, uri: str) -> None:
        self.uri = uri if uri.endswith("://") else normalize(uri)
        self.fs, self.root = _file_system(self.uri)
        self._uploads: dict[str, _Upload] = {}
        self._listed: dict[str, Mapping[str, Any]] = {}
        # fsspec's storage in memory looks before it creates, and its readers share a position.
        self._one = MEMORY if self.is_of("memory") else contextlib.nullcontext()

    def _path(self, name: str) -> str:
        if ".." in name.split("/") or name.startswith("/"):
            raise RunError(f"store: a name inside {self.uri} was expected, got {name!r}")
        return f"{self.root}/{name}" if name else str(self.root)

    def _ask(self, name: str, call: Callable[[], T]) -> T:
        """Ask the storage, some times if need be; its errors are put into our words."""
        began, pause = time.monotonic(), 0.1
        while True:
            try:
                with self._one:
                    return call()
            except Exception as err:
                said = explain(err, join(self.uri, name) if name else self.uri)
                if said is err:
                    raise
                if (
                    not isinstance(said, StorageTrouble)
                    or time.monotonic() - began + pause > PATIENCE_S
                ):
                    # A missing package is no fault of ours.
                    raise said from (None if isinstance(err, ImportError) else err)
            time.sleep(pause)
            pause *= 2

    def _guard(self) -> None:
        """Stop whoever has lost the folder to another run, before anything is written."""
        guard = GUARDS.get(self.uri) if self.guard is None else self.guard
        if guard is not None:
            guard()

    @override
    def exists(self, name: str) -> bool:
        return self._ask(name, lambda: self._has(name))

    def _has(self, name: str) -> bool:
        if not self.is_of("s3"):
            return bool(self.fs.exists(self._path(name)))
        # s3fs asks whether there is a folder, too.
        bucket, key, _ = self.fs.split_path(self._path(name))
        try:
            self.fs.call_s3("head_object", Bucket=bucket, Key=key)
        except FileNotFoundError:
            return False
        return True

    @override
    def size(self, name: str) -> int:
        return int(self._info(name)["size"])

    @override
    def read_bytes(self, name: str) -> bytes:
        return self._ask(name, lambda: self._get(name))

    def _get(self, name: str) -> bytes:
        # s3fs asks for the size first, to read long objects in parts, unless it is told not to.
        alone = {"max_concurrency": 1} if self.is_of("s3") else {}
        return bytes(self.fs.cat_file(self._path(name), **alone))

    @override
    def read_range(self, name: str, start: int, n_bytes: int) -> bytes:
        end = start + n_bytes
        return self._ask(
            name, lambda: bytes(self.fs.cat_file(self._path(name), start=start, end=end))
        )

    @override
    def open_read(self, name: str, size: int = 0) -> Any:
        if 0 < size <= HELD_BYTES or self.is_of("memory"):
            return io.BytesIO(self.read_bytes(name))
        known = {"size": size} if size and self.is_of("s3") else {}
        return self._ask(name, lambda: self.fs.open(self._path(name), "rb", **known))

    def read_version(self, name: str, tag: str) -> bytes | None:
        """Return an object of S3 if it still has an entity tag, which is asked with it."""
        from fsspec.asyn import sync

        bucket, key, _ = self.fs.split_path(self._path(name))

        async def get() -> bytes:
            answer = await self.fs._call_s3("get_object", Bucket=bucket, Key=key, IfMatch=tag)
            async with answer["Body"] as body:
                return bytes(await body.read())

        def ask() -> bytes | None:
            try:
                return bytes(sync(self.fs.loop, get))
            except OSError as err:
                if is_conflict(err):
                    return None
                raise

        return self._ask(name, ask)

    @override
    def open_temp(self, name: str, digest: Digest = hashlib.sha256) -> TempFile:
        # All in one folder, which is listed at once when leftovers are looked for.
        temp = f"{TEMPS}/{temp_name(name).rpartition('/')[2]}"
        raw = _Upload(lambda: self._ask(temp, lambda: self.fs.open(self._path(temp), "wb")))
        self._uploads[temp] = raw
        return TempFile(raw, temp, digest)

    @override
    def settle(self, temp: str, name: str) -> str:
        """Put it under its final name, if nothing is there; says where it is.

        What another writer of the same shard, which may
        still win or may be dead, left there is not touched before a record says whose counts:
        then, as with a file too long for memory, it lies under its temporary name.
        """
        raw = self._uploads.pop(temp)
        data = raw.held()
        if data is None:
            return temp
        if self.create_if_absent(name, data):
            return name
        self.write_atomic(temp, data)
        return temp

    @override
    def publish(self, temp: str, name: str) -> None:
        self._guard()
        raw = self._uploads.pop(temp, None)
        data = None if raw is None else raw.held()
        if data is not None:
            self.write_atomic(name, data)
        else:
            self._ask(name, lambda: self.fs.mv(self._path(temp), self._path(name)))

    @override
    def create_if_absent(self, name: str, data: bytes) -> bool:
        # Conditional PUT: of several writers the store lets exactly one through.
        self._guard()
        return self._ask(name, lambda: self._create(name, data))

    def _create(self, name: str, data: bytes) -> bool:
        try:
            self.fs.pipe_file(self._path(name), data, mode="create")
        except Exception as err:
            if not is_conflict(err):
                raise
            # An answer may get lost: what is there then is what this call put there.
            return self._get(name) == data
        return True

    @override
    def write_atomic(self, name: str, data: bytes) -> None:
        self._guard()
        self._ask(name, lambda: self.fs.pipe_file(self._path(name), data))

    @override
    def list(self, folder: str) -> list[str]:
        def names() -> builtins.list[str]:
            self.fs.invalidate_cache()
            paths = self.fs.ls(self._path(folder), detail=False)
            return sorted(path.rstrip("/").rsplit("/", 1)[-1] for path in paths)

        try:
            return self._ask(folder, names)
        except FileNotFoundError:
            return []

    def is_file(self) -> bool:
        """Say whether there is an object where a folder was meant."""
        return self._ask("", lambda: bool(self.fs.isfile(str(self.root))))

    @override
    def walk(self) -> Sequence[str]:
        # What the listing says of each is remembered for the next question about it.
        prefix = str(self.root).rstrip("/") + "/"
        self.fs.invalidate_cache()
        files = self._ask("", lambda: self.fs.find(self.root, detail=True))
        self._listed = {str(path).removeprefix(prefix): info for path, info in files.items()}
        return sorted(self._listed)

    def _info(self, name: str) -> Mapping[str, Any]:
        info = self._listed.get(name)
        return self._ask(name, lambda: self.fs.info(self._path(name))) if info is None else info

    @override
    def temporaries(self, folders: Iterable[str]) -> builtins.list[str]:
        return [f"{TEMPS}/{leaf}" for leaf in self.list(TEMPS)]

    @override
    def remove(self, name: str) -> None:
        raw = self._uploads.pop(name, None)
        if raw is not None and raw.held() is not None:
            return
        self._guard()
        with contextlib.suppress(FileNotFoundError):
            self._ask(name, lambda: self.fs.rm_file(self._path(name)))

    @override
    def remove_tree(self, folder: str) -> None:
        self._guard()
        with contextlib.suppress(FileNotFoundError):
            self._ask(folder, lambda: self.fs.rm(self._path(folder), recursive=True))

    @override
    def sync(self, names: Sequence[str]) -> None:
        """Do nothing: an object that was put is there."""

    @override
    def modified(self, name: str) -> str:
        info = self._info(name)
        self._listed.pop(name, None)
        known = (info.get(key) for key in ("ETag", "etag", "LastModified", "mtime", "created"))
        return str(next((value for value in known if value), ""))

    def written_s(self, name: str) -> float | None:
        """Return when an object was written, by the storage's own clock; None if it has none."""
        try:
            return float(self._ask(name, lambda: self.fs.modified(self._path(name))).timestamp())
        except (NotImplementedError, StorageError, AttributeError):
            return None

    @override
    def local_path(self, name: str) -> Path | None:
        return None

    def is_of(self, scheme: str) -> bool:
        """Say whether it is a storage of a scheme, by whichever name."""
        return SAME.get(scheme_of(self.uri), scheme_of(self.uri)) == scheme


def _file_system(uri: str) -> tuple[Any, str]:
    """Return fsspec's file system for an address, and its path there."""
    import fsspec

    scheme = SAME.get(scheme_of(uri), scheme_of(uri))
    options: dict[str, Any] = {}
    if scheme in BUCKETS:
        # What others write meanwhile must be seen.
        options["use_listings_cache"] = False
    if scheme == "s3" and "config_kwargs" not in fsspec.config.conf.get("s3", {}):
        options["config_kwargs"] = {
            "connect_timeout": CONNECT_TIMEOUT_S,
            "read_timeout": READ_TIMEOUT_S,
            "retries": {"mode": "standard", "max_attempts": 3},
        }
    try:
        fs, root = fsspec.core.url_to_fs(uri, **options)
    except Exception as err:
        raise explain(err, uri) from (None if isinstance(err, ImportError | ValueError) else err)
    if scheme == "s3":
        # Ours are enough: both multiply, to minutes where nobody answers.
        fs.retries = 1
    return fs, str(root)


def open_store(uri: str, *, follow: bool = False) -> Store:
    """Open the place that an address names: a local path, or any URI that fsspec knows.

    Symbolic links in the user's own data are followed, those in a run folder are not.
    """
    address = normalize(uri)
    return ObjectStore(address) if scheme_of(address) else LocalStore(address, follow=follow)


def open_file(uri: str) -> tuple[Store, str]:
    """Return the store of the folder that a file lies in, and its name there.

    Examples
    --------
    >>> store, name = open_file("memory://tables/2026/people.parquet")
    >>> store.uri, name
    ('memory://tables/2026', 'people.parquet')
    >>> open_file("memory://people.parquet")[0].uri
    'memory://'
    """
    folder, name = split(normalize(uri))
    return ObjectStore(folder) if scheme_of(folder) else LocalStore(folder, follow=True), name
