"""Content of foreign files: fingerprinted once, and compared with it whenever some is read.

Files that we did not write carry no checksum, and a time of change tells nothing: it moves when a
file is copied and stands still when someone sets it back. So each file is read once in blocks, the
hash of every block is kept, and a later read verifies the blocks that it touches before it hands
anything out. Hashing 64 KiB takes some 3 µs, a tenth of what reading it from memory costs.
"""

import io
import os
from collections.abc import Mapping
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import pyarrow as pa
import xxhash
from typing_extensions import override

from pipelines.storage.store import HELD_BYTES, ObjectStore, Store

BLOCK_BYTES = 1 << 16
"""Columns are read in pieces of their own size; whole blocks around them cost little more."""

READ_BYTES = 1 << 22

PIECE_BYTES = 1 << 20
"""So much is read, and hashed while it is still in the processor's cache."""


class Content(NamedTuple):
    """What a file held when it was fingerprinted.

    Attributes
    ----------
    size : in bytes.
    blocks : uint64, the hash of every block.
    """

    size: int
    blocks: np.ndarray


class ChangedError(ValueError):
    """A file does not hold what it held when it was fingerprinted."""


def fingerprint_of(size: int, blocks: np.ndarray) -> str:
    """Return the hash of a size and of block hashes, in hexadecimal: equal for equal content."""
    digest = xxhash.xxh3_128(size.to_bytes(8, "little"))
    digest.update(blocks.astype("<u8").tobytes())
    return str(digest.hexdigest())


def n_blocks(size: int) -> int:
    """Return the number of blocks of a file of some size."""
    return -(-size // BLOCK_BYTES)


def n_hashes(size: int, rows: int, *, is_tagged: bool, with_rows: bool) -> int:
    """Return how many hashes are kept of a shard: of its blocks, and of its rows' pictures."""
    return (0 if is_tagged else n_blocks(size)) + (rows if with_rows else 0)


def hash_blocks(data: Any) -> np.ndarray:
    """Return the hash of every block of some bytes, of which the first begins a block.

    Examples
    --------
    >>> hash_blocks(b"x" * (BLOCK_BYTES + 1)).shape
    (2,)
    """
    view = memoryview(data)
    starts = range(0, len(view), BLOCK_BYTES)
    hashes = [xxhash.xxh3_64_intdigest(view[start : start + BLOCK_BYTES]) for start in starts]
    return np.array(hashes, np.uint64)


def read_content(file: BinaryIO) -> Content:
    """Read a whole file and return what identifies its content."""
    view, parts, size = memoryview(bytearray(READ_BYTES)), [], 0
    while True:
        n = _read_into(file, view)
        size += n
        parts.append(hash_blocks(view[:n]))
        if n < READ_BYTES:
            return Content(size, np.concatenate(parts))


def _read_into(file: Any, view: memoryview) -> int:
    """Fill a view, of which streams may give less at a time; returns how many bytes there were."""
    n = 0
    while n < len(view):
        more = file.readinto(view[n:])
        if not more:
            break
        n += more
    return n


_TAGS = ("ETag", "etag", "md5Hash", "content_md5", "generation")
"""What object stores call that which changes with the content of an object."""


def open_binary(store: Store, name: str) -> BinaryIO:
    """Open a file of a store for reading."""
    path = store.local_path(name)
    if path is None:
        file: BinaryIO = store.open_read(name)
        return file
    return path.open("rb", buffering=0)


def tag_of(info: Mapping[str, Any]) -> str:
    """Return what an object store says of an object that changes with its content, or ""."""
    return str(next((info[key] for key in _TAGS if info.get(key)), ""))


def open_tagged(store: Store, name: str, tag: str, size: int = 0) -> BinaryIO:
    """Open an object that has not changed since it had a tag.

    S3 is asked for that version in every request, so a change while it is read is seen, too. If it
    is known to be short, one request brings all of it.

    Raises
    ------
    ChangedError
        If it has another tag now.
    """
    if isinstance(store, ObjectStore) and store.is_of("s3") and 0 < size <= HELD_BYTES:
        data = store.read_version(name, tag)
        if data is None:
            raise ChangedError(f"its tag was {tag} and is another one")
        return io.BytesIO(data)
    file: BinaryIO = store.open_read(name)
    now = tag_of(getattr(file, "details", None) or {})
    if now != tag:
        file.close()
        raise ChangedError(f"its tag was {tag} and is {now or 'gone'}")
    return file


class VerifiedFile(io.RawIOBase):
    """A file for reading, of which every byte handed out was compared with its fingerprint.

    The file below must be able to seek, and is closed with this one.
    """

    def __init__(self, file: BinaryIO, content: Content) -> None:
        self._file = file
        self._content = content
        self._at = 0

    @override
    def readable(self) -> bool:
        return True

    @override
    def seekable(self) -> bool:
        return True

    @override
    def tell(self) -> int:
        return self._at

    @override
    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._content.size}[whence]
        self._at = max(0, base + offset)
        return self._at

    def size(self) -> int:
        """Return the size in bytes."""
        return self._content.size

    @override
    def read(self, size: int | None = -1) -> Any:
        """Return bytes from the current position, as a view.

        Raises
        ------
        ChangedError
            If a block that holds some of them is not what it was.
        """
        end = self._content.size if size is None or size < 0 else self._at + size
        data = self._verified(self._at, min(end, self._content.size))
        self._at += len(data)
        return data

    def _verified(self, start: int, end: int) -> memoryview:
        if start >= end:
            return memoryview(b"")
        first, last = start // BLOCK_BYTES, n_blocks(end)
        from_, to = first * BLOCK_BYTES, min(last * BLOCK_BYTES, self._content.size)
        # From Arrow's pool: fresh memory of the system costs more than reading and hashing.
        view = memoryview(pa.allocate_buffer(to - from_)).cast("B")
        self._file.seek(from_)
        for at in range(0, len(view), PIECE_BYTES):
            piece = view[at : at + PIECE_BYTES]
            n = _read_into(self._file, piece)
            if n < len(piece):
                raise ChangedError(f"it ends after {from_ + at + n} bytes of {self._content.size}")
            block = first + at // BLOCK_BYTES
            hashes = hash_blocks(piece)
            same = hashes == self._content.blocks[block : block + len(hashes)]
            if not same.all():
                block += int(np.flatnonzero(~same)[0])
                raise ChangedError(
                    f"its bytes {block * BLOCK_BYTES} to "
                    f"{min((block + 1) * BLOCK_BYTES, self._content.size)} are not those that it "
                    "had"
                )
        return view[start - from_ : end - from_]

    @override
    def close(self) -> None:
        if not self.closed:
            self._file.close()
        super().close()
