"""One shard as a stage sees it: the live items' columns, wherever they are kept.

Columns of the source and of all earlier sidecars lie in files of their own, row beside row. Rows
that an earlier step sent to quarantine are left out of every later file, so older files are
filtered while they are read.
"""

import contextlib
import functools
import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet as pq

from pipelines.errors import (
    CorruptShardError,
    DataError,
    LabelopsError,
    SourceChangedError,
    StorageTrouble,
    remake,
)
from pipelines.storage.attached import filled
from pipelines.storage.content import (
    READ_BYTES,
    ChangedError,
    Content,
    VerifiedFile,
    fingerprint_of,
    n_blocks,
    n_hashes,
    open_binary,
    open_tagged,
)
from pipelines.storage.forms import PICTURES, convert, positions
from pipelines.storage.recent import SMALL_BYTES, Recent
from pipelines.storage.store import open_store


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
    stage : which stage wrote it, if one did.
    rejects : for every later step that rejected rows: their positions among the rows it saw.
    ipc : whether it is Arrow IPC instead of Parquet.
    foreign : of a source's file, how its content is verified, and what its place says.
    """

    uri: str
    name: str
    rows: int
    bytes: int = 0
    footer: str = ""
    digest: str = ""
    is_ours: bool = True
    stage: str = ""
    rejects: tuple[tuple[int, ...], ...] = ()
    ipc: bool = False
    foreign: "Foreign | None" = None

    @property
    def is_small(self) -> bool:
        """Whether its content is worth remembering: opening it costs more than what is in it."""
        return 0 < self.bytes <= SMALL_BYTES

    def live(self) -> np.ndarray | None:
        """Return the positions of the rows still alive, or None when all are."""
        if not any(self.rejects):
            return None
        rows = np.arange(self.rows)
        for rejected in self.rejects:
            rows = np.delete(rows, np.asarray(rejected, np.int64))
        return rows


@dataclass(frozen=True, slots=True)
class Foreign:
    """What is known of a file that we did not write.

    Attributes
    ----------
    fingerprint : hash of the content.
    run : URI of the run, in whose file `BLOCKS_FILE` the hashes of its blocks are.
    first_block : where they begin there.
    tag : what an object store says that changes with the content, instead of hashes.
    constants : columns that its place gives: name → value for all its rows.
    names_pictures : whether its pictures are files of their own, whose hashes, one a row, follow
        those of its blocks.
    """

    fingerprint: str
    run: str
    first_block: int
    tag: str = ""
    constants: Mapping[str, str | int | None] = field(default_factory=dict)
    names_pictures: bool = False


@dataclass(frozen=True, slots=True)
class ColumnRef:
    """Where a column lies: which file of the shard, and under which name there.

    Attributes
    ----------
    file, name : the folder that the file belongs to, and the column's name in the file.
    kind : type to bring its values to; None takes them as they are.
    ours : its name in the data contract, which says what its values mean.
    is_indicator : whether lists are 0/1 vectors over the classes.
    """

    file: str
    name: str
    kind: pa.DataType | None = None
    ours: str = ""
    is_indicator: bool = False


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
        self.reads = frozenset(reads)
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
            raise KeyError(f"column {column!r} was not declared; declared: {sorted(self.reads)}")
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
            for position, name in enumerate(names):
                column = in_form(table.column(position), self._columns[name], ref)
                self._cache[name] = column if live is None else column.take(pa.array(live))
        return pa.table([self._cache[name] for name in columns], names=list(columns))

    def _read(self, ref: FileRef, columns: Sequence[str] | None = None) -> pa.Table:
        """Return all rows of some columns of one file; narrow ones, and small files, are kept.

        Without columns, of all that it has.
        """
        names = None if columns is None else [self._columns[column].name for column in columns]
        is_narrow = columns is not None and self._narrow.issuperset(columns)
        recent = self._recent
        if recent is None or not ref.digest or not (ref.is_small or is_narrow):
            return read_columns(ref, names)
        table = recent.get(ref.digest, names)
        if table is None:
            table = read_columns(ref, None if ref.is_small and ref.is_ours else names)
            recent.put(ref.digest, table)
        return table if names is None else table.select(names)

    def file(self, folder: str) -> pa.Table:
        """Return a whole scratch file of this shard, whose rows are not one an item."""
        if folder not in self.reads:
            raise KeyError(f"file {folder!r} was not declared; declared: {sorted(self.reads)}")
        return self._read(self._files[folder])

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
            batches = iter(self._read(ref, columns).combine_chunks().to_batches(rows))
        else:
            batches = iterate_columns(ref, names, rows)
        for batch in batches:
            read = pa.Table.from_batches([batch])
            table = pa.table(
                [
                    in_form(read[name], self._columns[ours], ref, source_row)
                    for name, ours in zip(names, columns, strict=True)
                ],
                names=list(columns),
            )
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


def open_parquet(ref: FileRef, *, buffer_size: int = 0) -> pq.ParquetFile:
    """Open a file of a shard for reading, with everything about it that can be verified."""
    options = {"page_checksum_verification": True, "buffer_size": buffer_size}
    if ref.foreign is not None:
        return pq.ParquetFile(open_foreign(ref, size=ref.bytes), pre_buffer=False, **options)
    source = open_store(ref.uri, follow=not ref.is_ours).open_read(ref.name, ref.bytes)
    if ref.footer and _footer_hash(source) != ref.footer:
        raise ValueError("its footer differs from the committed one")
    return pq.ParquetFile(source, **options)


def _footer_hash(source: Any) -> str:
    """Hash the footer of a local path or an open file; checksums in pages do not cover it."""
    with open(source, "rb") if isinstance(source, str) else contextlib.nullcontext(source) as file:
        file.seek(-8, os.SEEK_END)
        file.seek(-footer_bytes(file.read(8)), os.SEEK_END)
        footer = file.read()
        file.seek(0)
    return hashlib.sha256(footer).hexdigest()


BLOCKS_FILE = "_manifests/blocks.bin"
"""Hashes of the blocks of all source files, in the order of the shards; uint64 each."""


def in_form(
    values: pa.ChunkedArray, where: ColumnRef, ref: FileRef, first_row: int = 0
) -> pa.ChunkedArray:
    """Bring a column of the source, from `first_row` of a file on, into the form stages read."""
    kind, known = where.kind, ref.foreign
    if where.is_indicator:
        return pa.chunked_array([positions(chunk) for chunk in values.chunks], kind)
    if kind is None or (values.type == kind and where.ours != "image"):
        return values
    try:
        chunks = [convert(chunk, kind, where.ours or where.name) for chunk in values.chunks]
    except DataError as err:
        raise DataError(f"{err}; in shard {ref.name}") from err
    if kind == PICTURES and known is not None and known.names_pictures:
        hashes = _hashes(ref)[0 if known.tag else n_blocks(ref.bytes) :]
        for i, chunk in enumerate(chunks):
            rows = slice(first_row, first_row + len(chunk))
            try:
                chunks[i] = filled(open_store(ref.uri, follow=True), ref.name, chunk, hashes[rows])
            except ChangedError as err:
                raise _corrupt(ref, err) from err
            first_row += len(chunk)
    return pa.chunked_array(chunks, kind)


@functools.lru_cache(maxsize=64)
def _blocks(run: str, first: int, n: int, fingerprint: str, size: int) -> np.ndarray:
    data = open_store(run).read_range(BLOCKS_FILE, 8 * first, 8 * n)
    blocks = np.frombuffer(data[: len(data) // 8 * 8], "<u8")
    if fingerprint_of(size, blocks) != fingerprint:
        raise CorruptShardError(
            f"run: hashes of the source's content were expected in {BLOCKS_FILE}, got damaged "
            f"ones; in {run}. Give the command of the run again to make them anew"
        )
    return blocks


def _hashes(ref: FileRef) -> np.ndarray:
    """Return the hashes of a source file's blocks, then of the pictures that its rows name."""
    known = ref.foreign
    assert known is not None
    n = n_hashes(ref.bytes, ref.rows, is_tagged=bool(known.tag), with_rows=known.names_pictures)
    # With a tag, size and blocks are not part of what was hashed.
    size = 0 if known.tag else ref.bytes
    return _blocks(known.run, known.first_block, n, known.fingerprint, size)


def open_foreign(ref: FileRef, *, size: int = 0) -> Any:
    """Open a file of the source; whatever is read of it is compared with its fingerprint.

    With its size it may be read at once.
    """
    assert ref.foreign is not None
    store, tag = open_store(ref.uri, follow=True), ref.foreign.tag
    if tag:
        return pa.PythonFile(open_tagged(store, ref.name, tag, size), "r")
    blocks = _hashes(ref)[: n_blocks(ref.bytes)]
    file = VerifiedFile(open_binary(store, ref.name), Content(ref.bytes, blocks))
    return pa.PythonFile(file, "r")


def verify_foreign(ref: FileRef) -> None:
    """Compare a whole file of the source with its fingerprint.

    Raises
    ------
    SourceChangedError
        If it is not what it was when the run began.
    """
    with _explained(ref), contextlib.closing(open_foreign(ref)) as file:
        if not (ref.foreign and ref.foreign.tag):
            while file.read_buffer(READ_BYTES).size:
                pass


@contextlib.contextmanager
def _explained(ref: FileRef) -> Iterator[None]:
    """Say which file it is that cannot be read; a storage that fails may not in a moment."""
    try:
        yield
    except StorageTrouble:
        raise
    except (OSError, ValueError, KeyError) as err:
        raise _corrupt(ref, err) from err


def _corrupt(ref: FileRef, why: object) -> LabelopsError:
    if ref.foreign is not None and isinstance(why, ChangedError | FileNotFoundError):
        return SourceChangedError(
            f"source: {ref.name} was expected to be as it was when the run began, but {why}; in "
            f"{ref.uri}. It was written again, moved or damaged meanwhile: restore it and give the "
            "same command again, or start a new run in another folder"
        )
    if ref.foreign is not None:
        return CorruptShardError(
            f"source: {ref.name} was expected to be a whole Parquet file, but the source is "
            f"damaged ({why}); in {ref.uri}. Write that shard again and start a new run"
        )
    stage = ref.stage or ref.name.split("/")[0]
    return CorruptShardError(
        f"stage {stage!r}, shard file {ref.name}: the bytes that were committed were expected, but "
        f"it cannot be read as such ({why}); in {ref.uri}. {remake(ref.uri, stage)}"
    )


def read_columns(ref: FileRef, names: Sequence[str] | None) -> pa.Table:
    """Read columns of a committed file (all of them if none are named), verifying its checksums.

    Raises
    ------
    CorruptShardError
        If the file is missing, or is not what was committed; names the shard.
    """
    with _explained(ref):
        table = _read_ipc(ref) if ref.ipc else _read_parquet(ref, names)
        if names is not None:
            table = table.select(list(names))
    if table.num_rows != ref.rows:
        raise _corrupt(ref, f"{table.num_rows} rows instead of {ref.rows}")
    return table


def _read_parquet(ref: FileRef, names: Sequence[str] | None) -> pa.Table:
    constants = ref.foreign.constants if ref.foreign else {}
    stored = None if names is None else [name for name in names if name not in constants]
    with open_parquet(ref) as file:
        # One thread: shards are read side by side already.
        table = file.read(columns=stored, use_threads=False)
    for name, value in constants.items():
        if names is None or name in names:
            table = table.append_column(name, _constant(value, ref.rows))
    return table


def _constant(value: str | int | None, n: int) -> pa.Array:
    """Return a column that is the same in all rows of a shard."""
    kind = pa.int64() if isinstance(value, int) else pa.string()
    return pa.nulls(n, kind) if value is None else pa.repeat(pa.scalar(value, kind), n)


def _read_ipc(ref: FileRef) -> pa.Table:
    store = open_store(ref.uri, follow=not ref.is_ours)
    path = store.local_path(ref.name)
    if path is not None:
        return pa.ipc.open_file(pa.memory_map(str(path))).read_all()
    return pa.ipc.open_file(pa.py_buffer(store.read_bytes(ref.name))).read_all()


def iterate_columns(ref: FileRef, names: Sequence[str], rows: int) -> Iterator[pa.RecordBatch]:
    """Yield record batches of a file, row group by row group, verifying checksums."""
    with _explained(ref):
        if ref.ipc:
            yield from _read_ipc(ref).select(list(names)).to_batches(rows)
            return
        constants = ref.foreign.constants if ref.foreign else {}
        stored = [name for name in names if name not in constants]
        with open_parquet(ref) as file:
            for batch in file.iter_batches(batch_size=rows, columns=stored, use_threads=False):
                for name in names:
                    if name in constants:
                        column = _constant(constants[name], batch.num_rows)
                        batch = batch.append_column(name, column)
                yield batch
