"""One shard as a stage sees it: the live items' columns, wherever they are kept.

Columns of the source and of all earlier sidecars lie in files of their own, row beside row. Rows
that an earlier step sent to quarantine are left out of every later file, so older files are
filtered while they are read.
"""

import contextlib
import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet as pq

from pipelines.errors import CorruptShardError
from pipelines.recent import SMALL_BYTES, Recent
from pipelines.store import open_store


@dataclass(frozen=True, slots=True)
class FileRef:
    """A committed (or source) file of one shard.

    Attributes
    ----------
    uri, name : store and name within it.
    rows : rows it must have.
    bytes : its size, as far as known.
    footer : hash of its Parquet footer, or "" where none was taken.
    digest : hash of all of it, or what else tells its content from any other; "" if unknown.
    is_ours : whether a stage wrote it, so that reading all of it is known to be harmless.
    rejects : for every later step that rejected rows: their positions among the rows it saw.
    ipc : whether it is Arrow IPC instead of Parquet.
    """

    uri: str
    name: str
    rows: int
    bytes: int = 0
    footer: str = ""
    digest: str = ""
    is_ours: bool = True
    rejects: tuple[tuple[int, ...], ...] = ()
    ipc: bool = False

    @property
    def is_small(self) -> bool:
        """Whether its content is worth remembering: opening it costs more than what is in it."""
        return 0 < self.bytes <= SMALL_BYTES

    def live(self) -> np.ndarray | None:
        """Return the positions of the rows still alive, or None when all are."""
        if not any(self.rejects):
            return None
        rows = np.arange(self.rows)
        for positions in self.rejects:
            rows = np.delete(rows, np.asarray(positions, np.int64))
        return rows


@dataclass(frozen=True, slots=True)
class ColumnRef:
    """Where a column lies: which file of the shard, and under which name there."""

    file: str
    name: str


def narrow_columns(types: Mapping[str, pa.DataType]) -> frozenset[str]:
    """Return the columns that hold one number, flag or short text an item."""
    return frozenset(
        name
        for name, kind in types.items()
        if pa.types.is_primitive(kind) or pa.types.is_string(kind)
    )


class Frame:
    """Live rows of one shard.

    Parameters
    ----------
    index
        Number of the shard.
    label
        The source file's name, for messages.
    n
        Number of live items.
    files
        The shard's files by the name of the folder they belong to.
    columns
        Where each readable column lies.
    reads
        Columns that the step declared; reading another is an error.
    narrow
        Those of them that are cheap: when one is wanted, all that lie in its file are read with it,
        because opening a file costs more than they do.
    recent
        Where they are remembered; None reads, and so verifies, them every time.
    """

    def __init__(
        self,
        *,
        index: int,
        label: str,
        n: int,
        files: Mapping[str, FileRef],
        columns: Mapping[str, ColumnRef],
        reads: Sequence[str],
        narrow: frozenset[str] = frozenset(),
        recent: Recent | None = None,
    ) -> None:
        self.index = index
        self.label = label
        self.n = n
        self.reads = tuple(reads)
        self._files = files
        self._columns = columns
        self._narrow = narrow
        self._recent = recent
        self._cache: dict[str, pa.ChunkedArray] = {}
        self.rejected: dict[int, str] = {}

    def __contains__(self, column: str) -> bool:
        return column in self._columns

    def _where(self, column: str) -> ColumnRef:
        if column not in self.reads:
            raise KeyError(f"column {column!r} was not declared; declared: {list(self.reads)}")
        return self._columns[column]

    def __getitem__(self, column: str) -> pa.Array:
        """Return a column's live values as one Arrow array."""
        chunks = self._cache.get(column)
        if chunks is None or column not in self.reads:
            chunks = self.table([column]).column(0)
        return chunks.chunk(0) if chunks.num_chunks == 1 else chunks.combine_chunks()

    def array(self, column: str) -> np.ndarray:
        """Return a column as a read-only array, (n, D) for vectors; without copying if it can be.

        Raises
        ------
        TypeError
            If the column has nulls or no fixed-width numbers; take it as Arrow array then.
        """
        return numpy_of(self[column], column)

    def table(self, columns: Sequence[str]) -> pa.Table:
        """Return live rows of some columns, in the order asked for."""
        missing = [name for name in columns if name not in self._cache]
        by_file: dict[str, list[str]] = {}
        for name in missing:
            by_file.setdefault(self._where(name).file, []).append(name)
        for file, names in by_file.items():
            names += [
                name
                for name in self._narrow
                if self._columns[name].file == file and name not in {*names, *self._cache}
            ]
            ref = self._files[file]
            table = self._read(ref, names)
            live = ref.live()
            if live is not None:
                table = table.take(pa.array(live))
            for position, name in enumerate(names):
                self._cache[name] = table.column(position)
        return pa.table([self._cache[name] for name in columns], names=list(columns))

    def _read(self, ref: FileRef, columns: Sequence[str]) -> pa.Table:
        """Return all rows of some columns of one file; narrow ones, and small files, are kept."""
        names = [self._columns[column].name for column in columns]
        recent = self._recent
        if recent is None or not ref.digest:
            return read_columns(ref, names)
        if not ref.is_small and not self._narrow.issuperset(columns):
            return read_columns(ref, names)
        table = recent.get(ref.digest, names)
        if table is None:
            table = read_columns(ref, None if ref.is_small and ref.is_ours else names)
            recent.put(ref.digest, table)
        return table.select(names)

    def file(self, folder: str) -> pa.Table:
        """Return a whole scratch file of this shard, whose rows are not one an item."""
        if folder not in self.reads:
            raise KeyError(f"file {folder!r} was not declared; declared: {list(self.reads)}")
        ref = self._files[folder]
        recent = self._recent if ref.is_small and ref.digest else None
        table = recent.get(ref.digest) if recent else None
        if table is None:
            table = read_columns(ref, None)
            if recent:
                recent.put(ref.digest, table)
        return table

    def batches(self, columns: Sequence[str], rows: int) -> Iterator[tuple[int, pa.Table]]:
        """Yield (first row, rows) in order, holding at most about `rows` rows of heavy columns.

        All columns read this way must lie in one file (the source's images, say).
        """
        refs = {self._where(name).file for name in columns}
        if len(refs) != 1:
            raise ValueError(f"columns {list(columns)} lie in several files: {sorted(refs)}")
        ref = self._files[refs.pop()]
        names = [self._columns[name].name for name in columns]
        live = ref.live()
        mask = None
        if live is not None:
            mask = np.zeros(ref.rows, bool)
            mask[live] = True
        start = source_row = 0
        if self._recent is not None and ref.digest and ref.is_small:
            found = iter(self._read(ref, columns).combine_chunks().to_batches(rows))
        else:
            found = iterate_columns(ref, names, rows)
        for batch in found:
            table = pa.Table.from_batches([batch]).select(names).rename_columns(list(columns))
            if mask is not None:
                table = table.filter(pa.array(mask[source_row : source_row + batch.num_rows]))
            source_row += batch.num_rows
            if table.num_rows:
                yield start, table
            start += table.num_rows

    def reject(self, rows: Sequence[int] | np.ndarray, reason: str) -> None:
        """Send rows (positions in this frame) to quarantine; the first reason given counts.

        The step must leave the same rows out of what it returns.
        """
        for row in rows:
            self.rejected.setdefault(int(row), reason)

    def kept(self) -> np.ndarray:
        """Return the positions that were not rejected so far."""
        return np.delete(np.arange(self.n), sorted(self.rejected))


def numpy_of(values: pa.Array, column: str) -> np.ndarray:
    """Return an Arrow array of numbers or of fixed-size vectors as a read-only NumPy array."""
    if values.null_count:
        raise TypeError(f"column {column!r} has {values.null_count} nulls")
    if pa.types.is_fixed_size_list(values.type):
        width = values.type.list_size
        flat = values.flatten()
        if flat.null_count:
            raise TypeError(f"column {column!r} has nulls inside its vectors")
        array: np.ndarray = flat.to_numpy(zero_copy_only=False).reshape(len(values), width)
    else:
        array = values.to_numpy(zero_copy_only=False)
    array.flags.writeable = False
    return array


def footer_bytes(tail: bytes) -> int:
    """Return the length of the Parquet footer whose last eight bytes are `tail`."""
    return int.from_bytes(tail[-8:-4], "little") + 8


def _open_parquet(ref: FileRef) -> pq.ParquetFile:
    source = open_store(ref.uri).open_read(ref.name, ref.bytes)
    if ref.footer and _footer_hash(source) != ref.footer:
        raise ValueError("its footer differs from the committed one")
    return pq.ParquetFile(source, page_checksum_verification=True)


def _footer_hash(source: Any) -> str:
    """Hash the footer of a local path or an open file; checksums in pages do not cover it."""
    with open(source, "rb") if isinstance(source, str) else contextlib.nullcontext(source) as file:
        file.seek(-8, os.SEEK_END)
        file.seek(-footer_bytes(file.read(8)), os.SEEK_END)
        footer = file.read()
        file.seek(0)
    return hashlib.sha256(footer).hexdigest()


def _corrupt(ref: FileRef, why: object) -> CorruptShardError:
    return CorruptShardError(
        f"shard file {ref.name}: the bytes that were committed were expected, but it cannot be "
        f"read as such ({why}); in {ref.uri}. Restore the file, or delete its stage's folder and "
        "run again to recompute it"
    )


def read_columns(ref: FileRef, names: Sequence[str] | None) -> pa.Table:
    """Read columns of a committed file (all of them if none are named), verifying its checksums.

    Raises
    ------
    CorruptShardError
        If the file is missing, or is not what was committed; names the shard.
    """
    try:
        if ref.ipc:
            table = _read_ipc(ref)
        else:
            with _open_parquet(ref) as file:
                # One thread: shards are read side by side already.
                columns = None if names is None else list(names)
                table = file.read(columns=columns, use_threads=False)
        if names is not None:
            table = table.select(list(names))
    except (OSError, ValueError, KeyError) as err:
        raise _corrupt(ref, err) from err
    if table.num_rows != ref.rows:
        raise _corrupt(ref, f"{table.num_rows} rows instead of {ref.rows}")
    return table


def _read_ipc(ref: FileRef) -> pa.Table:
    store = open_store(ref.uri)
    path = store.local_path(ref.name)
    if path is not None:
        return pa.ipc.open_file(pa.memory_map(str(path))).read_all()
    return pa.ipc.open_file(pa.py_buffer(store.read_bytes(ref.name))).read_all()


def iterate_columns(ref: FileRef, names: Sequence[str], rows: int) -> Iterator[pa.RecordBatch]:
    """Yield record batches of a file, row group by row group, verifying checksums."""
    try:
        if ref.ipc:
            yield from _read_ipc(ref).select(list(names)).to_batches(rows)
            return
        with _open_parquet(ref) as file:
            yield from file.iter_batches(batch_size=rows, columns=list(names), use_threads=False)
    except (OSError, ValueError, KeyError) as err:
        raise _corrupt(ref, err) from err
