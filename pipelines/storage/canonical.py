"""All items in one order that does not depend on how the data was cut into shards.

What cannot be summarised and merged (training, neighbour indices) reads items sorted by the hash of
their id. The sort is external: rows are dealt to buckets by the leading bits of the hash while the
shards stream by, and each bucket is sorted by itself, so memory holds one shard and one bucket.
"""

import os
from collections.abc import Iterable, Iterator

import numpy as np
import pyarrow as pa
import pyarrow.ipc

from pipelines.storage.arrays import new_array
from pipelines.storage.frame import numpy_of
from pipelines.storage.vectors import even_tables

FIRST_ROWS = 8192

VECTOR_ROWS = 1024

BUCKET_BYTES = 256 * 2**20
"""Aim for a bucket in memory; the order of the items does not depend on it."""


class Items:
    """Items of all shards in canonical order, on disk; iterate as often as wanted.

    Attributes
    ----------
    n : number of items.
    schema : types of the columns; `item_hash` is always among them.
    """

    def __init__(self, folder: str, schema: pa.Schema, buckets: list[str], n: int) -> None:
        self.folder = folder
        self.schema = schema
        self.n = n
        self._buckets = buckets

    def tables(self, rows: int) -> Iterator[pa.Table]:
        """Yield tables of exactly `rows` items (the last may be shorter)."""
        sorted_tables = (pa.ipc.open_file(pa.memory_map(b)).read_all() for b in self._buckets)
        for table in even_tables(sorted_tables, rows):
            yield table.combine_chunks()

    def blocks(self, rows: int) -> Iterator[dict[str, np.ndarray | pa.Array]]:
        """Yield blocks of exactly `rows` items as arrays by column.

        Numbers and fixed-size vectors come as read-only NumPy arrays, all else as Arrow arrays.
        """
        for table in self.tables(rows):
            block: dict[str, np.ndarray | pa.Array] = {}
            for name, column in zip(table.column_names, table.columns, strict=True):
                values, kind = column.chunk(0), column.type
                is_number = pa.types.is_integer(kind) or pa.types.is_floating(kind)
                is_plain = pa.types.is_fixed_size_list(kind) or is_number
                block[name] = (
                    numpy_of(values, name) if is_plain and not values.null_count else values
                )
            yield block

    def first(self, n: int) -> pa.Table:
        """Return the first n items, in one chunk: a sample, by hash."""
        parts, n_held = [self.schema.empty_table()], 0
        for table in self.tables(FIRST_ROWS):
            parts.append(table.slice(0, n - n_held))
            n_held += len(parts[-1])
            if n_held >= n:
                break
        return pa.concat_tables(parts).combine_chunks()

    def vectors(self, name: str, path: str) -> np.ndarray:
        """Return a column of vectors as one array on the disk, in which any rows are found.

        It is an .npy file at `path`, where none may be; of no items there is none.
        """
        kind = self.schema.field(name).type
        shape, number = (self.n, kind.list_size), kind.value_type.to_pandas_dtype()
        if not self.n:
            return np.empty(shape, number)
        whole, start = new_array(path, number, shape), 0
        for block in self.blocks(VECTOR_ROWS):
            rows = np.asarray(block[name])
            whole[start : start + len(rows)] = rows
            start += len(rows)
        return whole

    def column(self, name: str) -> np.ndarray:
        """Return one column of all items; for narrow ones."""
        parts = [np.asarray(block[name]) for block in self.blocks(1 << 20)]
        if parts:
            return np.concatenate(parts)
        empty = pa.array([], self.schema.field(name).type)
        return np.array(numpy_of(empty, name))


def sort_items(tables: Iterable[pa.Table], schema: pa.Schema, folder: str, n_bytes: int) -> Items:
    """Bring rows into the order of `item_hash`.

    Parameters
    ----------
    tables
        The shards' rows, in any order; read once.
    schema
        Their schema; has `item_hash` (uint64, unique).
    folder
        Empty local folder for the sorted rows.
    n_bytes
        About how many bytes there will be; decides the number of buckets.
    """
    bits = max(0, (max(n_bytes, 1) - 1) // BUCKET_BYTES).bit_length()
    paths = [os.path.join(folder, f"bucket-{b:05d}.arrow") for b in range(1 << bits)]
    writers = [pa.ipc.new_stream(path + ".unsorted", schema) for path in paths]
    for table in tables:
        table = table.select(schema.names).cast(schema)
        if bits == 0:
            writers[0].write_table(table)
            continue
        bucket = numpy_of(table.column("item_hash").combine_chunks(), "item_hash") >> np.uint64(
            64 - bits
        )
        order = np.argsort(bucket, kind="stable")
        bounds = np.searchsorted(bucket[order], np.arange((1 << bits) + 1))
        table = table.take(pa.array(order))
        for b in range(1 << bits):
            if bounds[b + 1] > bounds[b]:
                writers[b].write_table(table.slice(bounds[b], bounds[b + 1] - bounds[b]))
    n = 0
    for path, writer in zip(paths, writers, strict=True):
        writer.close()
        rows = pa.ipc.open_stream(pa.memory_map(path + ".unsorted")).read_all().combine_chunks()
        hashes = rows.column("item_hash").to_numpy()
        rows = rows.take(pa.array(np.argsort(hashes, kind="stable")))
        with pa.ipc.new_file(path, schema) as out:
            out.write_table(rows.combine_chunks())
        os.unlink(path + ".unsorted")
        n += rows.num_rows
    return Items(folder, schema, paths, n)
