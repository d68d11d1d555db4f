"""Commit: a shard's output is there whole, or not at all, whoever dies when.

Order of a commit: write every file under a temporary name (page checksums on), hashing it; create
the commit record if absent (it names temporary files, final names and hashes); rename to the final
names. The record decides: of two workers with the same shard the second finds the record and
discards its files. A crash before the record leaves only temporaries; a crash after it is rolled
forward by whoever looks next. Files and names are forced to the disk together, before the manifest
is written: until then a loss of power costs the work of those shards whose files or records it
tore, which their hashes tell.
"""

import contextlib
import functools
import hashlib
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet as pq
import xxhash

from pipelines.core.stage import Map, Output, Tables
from pipelines.errors import CorruptShardError, RunError, remake
from pipelines.storage.frame import Frame, footer_bytes
from pipelines.storage.recent import SMALL_BYTES, Recent
from pipelines.storage.seal import SealError, dump_sealed, load_sealed
from pipelines.storage.store import Digest, Store

Record = dict[str, Any]
"""A commit record: plain JSON."""

QUARANTINE_SCHEMA = pa.schema(
    [
        ("item_id", pa.string()),
        ("shard", pa.string()),
        ("row", pa.int64()),
        ("stage", pa.string()),
        ("reason", pa.string()),
    ]
)

Crash = Callable[[str], None]
"""Called with the name of each point of a commit; tests die there."""


def no_crash(point: str) -> None:
    """Do nothing: what a real run does at every point of a commit."""


@functools.cache
def is_scratch(folder: str) -> bool:
    """Say whether a folder is removed when its stage is finished."""
    return any(part.startswith("_") for part in folder.split("/"))


DIGESTS: Mapping[str, Digest] = {"sha256": hashlib.sha256, "xxh3_128": xxhash.xxh3_128}


def digest_name(folder: str) -> str:
    """Return which hash a folder's files get; scratch, which nobody publishes, gets a quick one."""
    return "xxh3_128" if is_scratch(folder) else "sha256"


def hash_if_there(store: Store, name: str, kind: str, size: int = 0) -> str:
    """Return the hash of a file, or that there is none, for messages and comparisons."""
    try:
        return hash_file(store, name, kind, size)
    except FileNotFoundError:
        return "no file"


def hash_file(store: Store, name: str, kind: str, size: int = 0) -> str:
    """Hash a file of the store; the kind is a name in `DIGESTS`."""
    source = store.open_read(name, size)
    with open(source, "rb") if isinstance(source, str) else source as file:
        return hashlib.file_digest(file, DIGESTS[kind]).hexdigest()


def part_name(shard: int, *, ipc: bool = False) -> str:
    """Return the file name of a shard's output."""
    return f"part-{shard:05d}.{'arrow' if ipc else 'parquet'}"


def record_name(stage: str, step: str, shard: int) -> str:
    """Return the name of a shard's commit record."""
    return f"{stage}/_commits/{step}/{shard:05d}.json"


TAIL_BYTES = 1 << 24
"""Longer footers (of some ten thousand row groups) are not hashed."""


class _TailDigest:
    """Hashes what is written and keeps its end, to hash the footer without reading back."""

    def __init__(self, kind: str, n_bytes: int) -> None:
        self.n_bytes = n_bytes
        self._hash = DIGESTS[kind]()
        self._blocks: deque[bytes] = deque()
        self._held = 0
        self.hexdigest = self._hash.hexdigest

    def update(self, view: memoryview) -> None:
        self._hash.update(view)
        # A footer comes in one piece however long it is; blocks are dropped only when those
        # after them are enough.
        if self.n_bytes:
            self._blocks.append(bytes(view[-self.n_bytes :]))
            self._held += len(self._blocks[-1])
            while self._held - len(self._blocks[0]) >= self.n_bytes:
                self._held -= len(self._blocks.popleft())

    @property
    def tail(self) -> bytes:
        return b"".join(self._blocks)


class ShardWriter:
    """Writes one output file of a shard under a temporary name."""

    def __init__(self, store: Store, folder: str, shard: int, output: Output) -> None:
        self.output = output
        self.folder = folder
        self.final = f"{folder}/{part_name(shard, ipc=output.ipc)}"
        self._digest = digest_name(folder)
        self._end = _TailDigest(self._digest, 0 if output.ipc else TAIL_BYTES)
        self.temp = store.open_temp(self.final, lambda: self._end)
        self.rows = 0
        self._written: list[pa.Table] = []
        self._held = 0
        self._writer: Any = None
        try:
            self._writer = self._open()
        except BaseException:
            self.discard(store)
            raise

    def _open(self) -> Any:
        output = self.output
        if output.ipc:
            return pa.ipc.new_file(self.temp, output.schema)
        options = {
            "compression": "snappy",
            "use_dictionary": [
                field.name for field in output.schema if pa.types.is_string(field.type)
            ],
            "write_page_checksum": True,
            **output.options,
        }
        return pq.ParquetWriter(self.temp, output.schema, **options)

    def write(self, table: pa.Table) -> None:
        """Append rows, cast to the declared schema."""
        if table.schema.names != self.output.schema.names:
            raise RunError(
                f"{self.folder}: columns {self.output.schema.names} were declared, "
                f"{table.schema.names} came"
            )
        if not table.schema.equals(self.output.schema, check_metadata=True):
            table = table.cast(self.output.schema)
        self.rows += table.num_rows
        if self._held <= SMALL_BYTES:
            self._held += table.get_total_buffer_size()
            self._written.append(table)
        if self.output.ipc:
            self._writer.write_table(table.combine_chunks())
        else:
            self._writer.write_table(table, row_group_size=self.output.row_group_rows)

    def discard(self, store: Store) -> None:
        """Drop what was written; whatever made that necessary is not to be masked by it."""
        self.temp.abandon()
        # Left open, the writer would write its footer when it is collected, and print a trace where
        # that fails.
        with contextlib.suppress(Exception):
            self._writer.close()
        if isinstance(self._writer, pq.ParquetWriter):
            self._writer.is_open = False
        with contextlib.suppress(OSError):
            store.remove(self.temp.name)

    def small_table(self) -> pa.Table | None:
        """Return what was written, if it is small."""
        if self._held > SMALL_BYTES:
            return None
        if len(self._written) == 1:
            return self._written[0]
        schema = self.output.schema
        # Not `empty_table`, which cannot be made of all extension types.
        empty = pa.table([pa.chunked_array([], kind) for kind in schema.types], schema=schema)
        return pa.concat_tables([empty, *self._written])

    def close(self) -> Record:
        """Finish the file and return what the commit record says of it."""
        self._writer.close()
        footer = ""
        if not self.output.ipc:
            tail = self._end.tail
            if footer_bytes(tail) <= len(tail):
                footer = hashlib.sha256(tail[-footer_bytes(tail) :]).hexdigest()
        self.temp.close(durable=False)
        return {
            "folder": self.folder,
            "name": self.final,
            "temp": self.temp.name,
            self._digest: self.temp.digest,
            "footer": footer,
            "rows": self.rows,
            "bytes": self.temp.n_bytes,
            "ipc": self.output.ipc,
        }


def commit_shard(
    store: Store,
    *,
    stage: str,
    key: str = "",
    step: Map,
    frame: Frame,
    tables: Tables | Iterable[Tables],
    item_ids: Callable[[], pa.Array],
    source_rows: Callable[[], np.ndarray],
    recent: Recent | None = None,
    code: str = "",
    crash: Crash = no_crash,
) -> Record:
    """Write a shard's output tables and commit them together, under the key of the stage.

    Returns
    -------
    The commit record that counts: this call's own, or an earlier winner's.
    """
    with contextlib.ExitStack() as unwanted:
        writers: dict[str, ShardWriter] = {}
        for folder, output in step.writes.items():
            writers[folder] = ShardWriter(store, folder, frame.index, output)
            unwanted.callback(writers[folder].discard, store)
        crash("opened")
        for chunk in [tables] if isinstance(tables, Mapping) else tables:
            for folder, table in chunk.items():
                writers[folder].write(table)
        crash("written")
        rejected = dict(sorted(frame.rejected.items()))
        files = [writer.close() for writer in writers.values()]
        for file, writer in zip(files, writers.values(), strict=True):
            written = writer.small_table()
            if recent is not None and written is not None:
                recent.put(file[digest_name(file["folder"])], written)
        crash("flushed")
        for file, output in zip(files, step.writes.values(), strict=True):
            if output.rows == "all" and file["rows"] != frame.n - len(rejected):
                raise RunError(
                    f"stage {stage!r}, step {step.name!r}, shard {frame.index} ({frame.label}): "
                    f"{frame.n - len(rejected)} rows were expected in {file['folder']}, "
                    f"{file['rows']} came"
                )
        if rejected:
            files.append(_quarantine(store, stage, frame, rejected, item_ids(), source_rows()))
        # From here on they belong to the record, which may be there though writing it failed.
        unwanted.pop_all()
    record: Record = {
        "stage": stage,
        "step": step.name,
        "key": key,
        "shard": frame.index,
        "source": frame.label,
        "rows": frame.n - len(rejected),
        "files": files,
        "rejected": list(rejected),
        "reasons": dict(sorted(Counter(r.split(":")[0] for r in rejected.values()).items())),
        "code": code,
    }
    crash("hashed")
    for file in files:
        file["temp"] = store.settle(file["temp"], file["name"])
    name = record_name(stage, step.name, frame.index)
    if not store.create_if_absent(name, dump_sealed(record, indent=None)):
        for file in files:
            if file["temp"] != file["name"]:
                store.remove(file["temp"])
        crash("lost")
        return load_record(store, name)
    crash("recorded")
    roll_forward(store, record, crash=crash)
    crash("renamed")
    return record


def _quarantine(
    store: Store,
    stage: str,
    frame: Frame,
    rejected: Mapping[int, str],
    item_ids: pa.Array,
    source_rows: np.ndarray,
) -> Record:
    rows = list(rejected)
    writer = ShardWriter(store, "quarantine", frame.index, Output(schema=QUARANTINE_SCHEMA))
    writer.final = f"quarantine/{stage}-{part_name(frame.index)}"
    table = pa.table(
        {
            "item_id": item_ids.take(pa.array(rows)).cast(pa.string()),
            "shard": pa.array([frame.label] * len(rows), pa.string()),
            "row": pa.array(source_rows[rows], pa.int64()),
            "stage": pa.array([stage] * len(rows), pa.string()),
            "reason": pa.array(list(rejected.values()), pa.string()),
        }
    )
    try:
        writer.write(table)
        return writer.close()
    except BaseException:
        writer.discard(store)
        raise


def roll_forward(store: Store, record: Record, *, crash: Crash = no_crash) -> None:
    """Give committed files their final names, where a crash prevented it."""
    for file in record["files"]:
        if file["temp"] != file["name"] and store.exists(file["temp"]):
            store.publish(file["temp"], file["name"])
            crash("renaming")


def withdraw(store: Store, name: str, record: Record) -> None:
    """Undo a commit: its shard is made again."""
    store.remove(name)
    for file in record["files"]:
        store.remove(file["temp"])
        store.remove(file["name"])


def verify(store: Store, record: Record) -> None:
    """Compare a committed shard's files with their hashes.

    Raises
    ------
    CorruptShardError
        If a file is missing or differs.
    """
    for file in record["files"]:
        name, kind = file["name"], digest_name(file["folder"])
        digest = hash_if_there(store, name, kind, file["bytes"])
        if digest != file[kind]:
            raise CorruptShardError(
                f"shard {record['shard']} ({record['source']}): {name} was committed with {kind} "
                f"{file[kind][:12]}…, found {digest[:12]}…, in {store.uri}. "
                f"{remake(store.uri, record['stage'])}"
            )


def check_record(record: Record, *, stage: str, step: str, shard: int, key: str) -> None:
    """Check that a commit record is the one that was looked for.

    Raises
    ------
    SealError
        If it is that of another shard, step, stage or run.
    """
    identity = tuple(record[name] for name in ("stage", "step", "shard", "key"))
    if identity != (stage, step, shard, key):
        raise SealError("it is the record of another shard or run")


def load_record(store: Store, name: str) -> Record:
    """Read a commit record.

    Raises
    ------
    SealError
        If it is not whole, as after a loss of power.
    """
    return load_sealed(store.read_bytes(name), "stage", "step", "shard", "key", "files")
