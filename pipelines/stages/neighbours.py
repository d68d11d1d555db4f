"""Stage `neighbours`: duplicates, duplicates whose labels contradict each other, and outliers.

Neighbours are those in `embedding`, or in `features` where nothing was embedded. They depend on all
items, so one task finds them, over the items in canonical order; what it leaves is a small table
by the hash of the id, in which every shard then looks its items up. Memory: some 300 bytes an item
with k = 10, and the index of `labelops.fast.neighbours`; vectors are streamed from disk.
"""

import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from pydantic import BaseModel, Field

from labelops.duplicates import (
    Copies,
    convincing_edges,
    digest_rows,
    group_copies,
    has_conflict,
    near_edges,
    near_limit,
    sets_of,
)
from labelops.neighbours import (
    Neighbours,
    metric_for,
    outlier_limit,
    outlier_scores,
    with_copies,
)
from pipelines.core.stage import Arrays, Context, Fit, Map, Output, Stage, Step
from pipelines.storage.arrays import new_array, read_array
from pipelines.storage.canonical import Items
from pipelines.storage.frame import Frame
from pipelines.storage.vectors import vectors_of

BLOCK_ROWS = 8192

TABLE = {
    "item_hash": np.uint64,
    "nn_distance": np.float32,
    "outlier_score": np.float32,
    "is_outlier": np.bool_,
    "duplicate_set": np.uint64,
    "is_duplicate": np.bool_,
    "is_duplicate_conflict": np.bool_,
}
"""Columns of the artefact, one .npy file each, in the order of `item_hash`."""

SCHEMA = {
    "nn_distance": pa.float32(),
    "outlier_score": pa.float32(),
    "is_outlier": pa.bool_(),
    "duplicate_set": pa.uint64(),
    "is_duplicate_conflict": pa.bool_(),
}


class Config(BaseModel, frozen=True, extra="forbid"):
    """Settings of stage `neighbours`."""

    k: int = Field(default=10, ge=1, le=100, description="Nearest neighbours of each item.")
    flat_limit: int = Field(
        default=50_000,
        ge=0,
        description="Up to this many items, neighbours are exact, by comparing all pairs; beyond, "
        "an approximate index finds nearly all, and its recall is measured.",
    )


def vector_column(columns: frozenset[str]) -> str | None:
    """Return the column whose vectors are compared."""
    return next((name for name in ("embedding", "features") if name in columns), None)


def skip(config: Config, columns: frozenset[str]) -> str | None:
    """Return why there is nothing to do, or None."""
    if vector_column(columns) is None:
        return "there is neither an embedding nor a features column to find neighbours in"
    return None


def reads(config: Config, columns: frozenset[str]) -> Sequence[str]:
    """Return the columns that it needs."""
    vectors = vector_column(columns)
    assert vectors is not None, "skipped without vectors"
    given = ["given"] if "given" in columns else []
    return ["item_id", "item_hash", vectors, *given]


def steps(config: Config, ctx: Context[Config]) -> Sequence[Step[Config]]:
    """Return the steps: one fit over all items, then look-ups."""
    needed = reads(config, ctx.columns)
    schema = pa.schema([("item_id", ctx.types["item_id"]), *SCHEMA.items()])
    return [
        Fit(name="graph", reads=needed[1:], fit=find),
        Map(
            name="look_up",
            reads=["item_id", "item_hash"],
            writes={ctx.stage: Output(schema=schema)},
            apply=look_up,
        ),
    ]


@dataclass(frozen=True)
class Narrow:
    """What is held of all items in memory while the graph is made."""

    hashes: np.ndarray
    given: np.ndarray
    usable: np.ndarray
    copies: Copies


def find(items: Items, ctx: Context[Config], folder: str) -> Arrays:
    """Find neighbours of all items; leave the table, return its totals."""
    column = vector_column(ctx.columns)
    assert column is not None
    n_dims = items.schema.field(column).type.list_size
    metric = metric_for(n_dims)
    narrow = _scan(items, column)
    scratch = tempfile.mkdtemp(prefix="vectors-", dir=items.folder)
    try:
        vectors = _distinct_vectors(items, column, narrow, os.path.join(scratch, "vectors.npy"))
        table, totals = _judge(vectors, narrow, ctx, metric)
        del vectors
    finally:
        shutil.rmtree(scratch)
    for name, kind in TABLE.items():
        np.save(os.path.join(folder, f"{name}.npy"), table[name].astype(kind, copy=False))
    return {**totals, "column": np.array(column), "metric": np.array(metric)}


def _vectors_of(table: pa.Table, column: str) -> tuple[np.ndarray, np.ndarray]:
    """Return vectors in single precision, and which of them can be used; others are zero."""
    array = vectors_of(table.column(column).combine_chunks())[0].astype(np.float32)
    usable = np.asarray(np.isfinite(array).all(axis=1))
    array[~usable] = 0
    return array, usable


def _scan(items: Items, column: str) -> Narrow:
    hashes, given, usable, digests = [], [], [], []
    for table in items.tables(BLOCK_ROWS):
        array, good = _vectors_of(table, column)
        hashes.append(table.column("item_hash").to_numpy())
        usable.append(good)
        digests.append(digest_rows(array[good]))
        if "given" in table.column_names:
            given.append(table.column("given").to_numpy())
    n = items.n
    return Narrow(
        hashes=np.concatenate([np.zeros(0, np.uint64), *hashes]),
        given=np.concatenate(given) if given else np.zeros(n, np.int32),
        usable=np.concatenate([np.zeros(0, bool), *usable]),
        copies=group_copies(np.concatenate([np.zeros((0, 2), np.uint64), *digests])),
    )


def _distinct_vectors(items: Items, column: str, narrow: Narrow, path: str) -> np.ndarray:
    """Write every distinct vector once, to disk; returns them memory-mapped."""
    n_dims = items.schema.field(column).type.list_size
    # Positions among all items of the first one with each vector.
    wanted = np.flatnonzero(narrow.usable)[narrow.copies.first]
    if not len(wanted):
        return np.zeros((0, n_dims), np.float32)
    out = new_array(path, np.float32, (len(wanted), n_dims))
    start = at = 0
    for table in items.tables(BLOCK_ROWS):
        stop = int(np.searchsorted(wanted, start + table.num_rows))
        if stop > at:
            array, _ = _vectors_of(table, column)
            out[at:stop] = array[wanted[at:stop] - start]
        start, at = start + table.num_rows, stop
    out.flush()
    return read_array(path, "r")


def _judge(
    vectors: np.ndarray, narrow: Narrow, ctx: Context[Config], metric: str
) -> tuple[Arrays, Arrays]:
    """Return the table over all items, and its totals."""
    from labelops.fast.neighbours import find_neighbours

    copies, usable = narrow.copies, narrow.usable
    n, k = int(usable.sum()), min(ctx.config.k, max(int(usable.sum()) - 1, 0))
    search = find_neighbours(
        vectors,
        k=ctx.config.k,
        metric=metric,
        flat_limit=ctx.config.flat_limit,
        n_threads=len(os.sched_getaffinity(0)),
    )
    mean, first = _to_neighbours(search.neighbours, copies, k)
    far, near = outlier_limit(mean), near_limit(first) if k else 0.0
    sets = sets_of(copies, near_edges(search.neighbours, limit=near))
    convinced = sets_of(copies, convincing_edges(search.neighbours, limit=near))
    given, hashes = narrow.given[usable], narrow.hashes[usable]

    def all_rows(values: np.ndarray, rest: object) -> np.ndarray:
        whole = np.full(len(usable), rest, values.dtype)
        whole[usable] = values
        return whole

    is_duplicate = sets >= 0
    table = {
        "item_hash": narrow.hashes,
        "nn_distance": all_rows(first, np.nan),
        "outlier_score": all_rows(outlier_scores(mean), np.nan),
        "is_outlier": all_rows(mean > far, False),
        "duplicate_set": all_rows(hashes[np.maximum(sets, 0)], 0) if n else np.zeros(len(usable)),
        "is_duplicate": all_rows(is_duplicate, False),
        "is_duplicate_conflict": all_rows(has_conflict(convinced, given), False),
    }
    totals = {
        "n_items": np.array(len(usable)),
        "n_without_vector": np.array(len(usable) - n),
        "n_distinct": np.array(len(copies.first)),
        "n_outliers": np.array(int(table["is_outlier"].sum())),
        "n_duplicates": np.array(int(is_duplicate.sum())),
        "n_duplicate_sets": np.array(len(np.unique(sets[is_duplicate]))),
        "n_duplicate_conflicts": np.array(int(table["is_duplicate_conflict"].sum())),
        "outlier_limit": np.array(far),
        "near_limit": np.array(near),
        "recall": np.array(search.recall),
    }
    return table, totals


def _to_neighbours(neighbours: Neighbours, copies: Copies, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Return every item's mean distance to its k neighbours, and that to the first."""
    n_vectors = len(copies.first)
    mean, first = np.zeros(n_vectors), np.full(n_vectors, np.nan)
    often = np.bincount(copies.vector_of_item, minlength=n_vectors)
    for start in range(0, n_vectors if k else 0, BLOCK_ROWS):
        rows = slice(start, start + BLOCK_ROWS)
        distances = with_copies(neighbours, often, k=k, rows=rows)
        mean[rows], first[rows] = distances.mean(axis=1), distances[:, 0]
    return mean[copies.vector_of_item], first[copies.vector_of_item]


def look_up(frame: Frame, ctx: Context) -> Mapping[str, pa.Table]:
    """Return the rows of the table for a shard's items."""
    paths = {name: ctx.artifact("graph", f"{name}.npy") for name in TABLE}
    column = {name: read_array(path, "r") for name, path in paths.items()}
    at = np.searchsorted(column["item_hash"], frame.array("item_hash"))
    got = {name: np.asarray(values[at]) for name, values in column.items()}
    unknown = {name: np.isnan(got[name]) for name in ("nn_distance", "outlier_score")}
    unknown["duplicate_set"] = ~got["is_duplicate"]
    columns = {name: pa.array(got[name], mask=unknown.get(name)) for name in SCHEMA}
    return {ctx.stage: pa.table({"item_id": frame["item_id"], **columns})}


STAGE = Stage(
    name="neighbours",
    version=2,
    doc="finds duplicates, duplicates with different labels, and outliers",
    config=Config,
    steps=steps,
    reads=reads,
    writes=lambda config, columns: ["item_id", *SCHEMA],
    skip=skip,
)
