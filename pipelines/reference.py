"""True classes of some items, set by people: a small table with a list of labels for each."""

import os
from functools import lru_cache

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from labelops.multilabel.labels import LabelSets, from_flat
from pipelines.errors import DataError
from pipelines.label_sets import flat
from pipelines.stage import Context

TRUE, RULED_OUT = "true_labels", "true_labels_negative"
SEPARATOR = ";"
"""Between labels in a CSV file; names with commas and spaces are common."""


@lru_cache(maxsize=4)
def _read(path: str, modified_ns: int) -> pa.Table:
    try:
        table = _read_csv(path) if path.endswith(".csv") else pq.read_table(path)
    except (OSError, pa.ArrowException) as err:
        raise DataError(
            f"reference: a Parquet or CSV file with columns item_id and {TRUE} was expected, got "
            f"{type(err).__name__}: {err}; at {path}. Correct the path"
        ) from err
    missing = [name for name in ("item_id", TRUE) if name not in table.column_names]
    if missing:
        raise DataError(
            f"reference: columns item_id and {TRUE} were expected, got {table.column_names}; at "
            f"{path}. Rename them, or correct the path"
        )
    names = [name for name in (TRUE, RULED_OUT) if name in table.column_names]
    for name in names:
        kind = table.schema.field(name).type
        if not (pa.types.is_list(kind) or pa.types.is_large_list(kind)):
            raise DataError(
                f"reference: column {name!r} must be a list of labels, got {kind}; at {path}. "
                f"In CSV, labels of a list are separated by {SEPARATOR!r}"
            )
    # Nobody said anything of an item whose list is null; an empty list says that it has none.
    table = table.filter(pc.is_valid(table[TRUE]))
    columns = {"item_id": table["item_id"].cast(pa.string())}
    columns |= {name: table[name].cast(pa.list_(pa.string())) for name in names}
    counts = pc.value_counts(columns["item_id"])
    twice = counts.filter(pc.greater(counts.field("counts"), 1))
    if len(twice):
        raise DataError(
            f"reference: one row an item was expected, got {len(twice)} items with more, such as "
            f"{twice[0]['values'].as_py()!r}; at {path}. Settle on one list each"
        )
    return pa.table(columns).combine_chunks()


def _read_csv(path: str) -> pa.Table:
    # Text throughout: an id like 007 is not the number 7.
    names = ("item_id", TRUE, RULED_OUT)
    text = pa.csv.ConvertOptions(column_types=dict.fromkeys(names, pa.string()))
    table = pa.csv.read_csv(path, convert_options=text)
    for name in names[1:]:
        if name in table.column_names:
            at = table.column_names.index(name)
            lists = [
                [part.strip() for part in cell.split(SEPARATOR) if part.strip()]
                for cell in table[name].to_pylist()
            ]
            table = table.set_column(at, name, pa.array(lists, pa.list_(pa.string())))
    return table


def _table(path: str) -> pa.Table:
    return _read(path, os.stat(path).st_mtime_ns if os.path.exists(path) else 0)


def n_rows(path: str) -> int:
    """Return how many items a reference knows."""
    return int(_table(path).num_rows)


def reference_sets(path: str, item_id: pa.Array, ctx: Context) -> tuple[np.ndarray, LabelSets]:
    """Return which items the reference knows, and the true classes of those.

    Parameters
    ----------
    path
        A Parquet or CSV file: item_id, true_labels, perhaps true_labels_negative. With the latter,
        classes in neither list are unknown; without it, an item has just what is listed.
    item_id
        N ids.

    Returns
    -------
    Positions, int64, shape (M,), ascending; sets of M items.

    Raises
    ------
    DataError
        If the file cannot be read, names an item twice, or a label that is no class.
    """
    table = _table(path)
    at = pc.index_in(item_id.cast(pa.string()), value_set=table["item_id"].combine_chunks())
    known = np.flatnonzero(at.is_valid().to_numpy(zero_copy_only=False))
    rows = table.take(at.drop_null())
    parts: list[np.ndarray] = []
    for name in (TRUE, RULED_OUT):
        if name in table.column_names:
            labels, start = flat(rows[name])
            parts += [_classes(labels, path, ctx), start]
    try:
        return known, from_flat(*parts, n_classes=ctx.n_classes)
    except ValueError as err:
        raise DataError(f"reference: {err}; at {path}") from err


def _classes(labels: pa.Array, path: str, ctx: Context) -> np.ndarray:
    """Return class ids of labels, which go by number or by name."""
    names = pa.array([str(name) for name in ctx.classes], pa.string())
    numbers = pa.array([str(value) for value in ctx.class_values], pa.string())
    found = pc.coalesce(
        pc.index_in(labels, value_set=numbers), pc.index_in(labels, value_set=names)
    )
    unknown = labels.filter(pc.is_null(found))
    if len(unknown):
        raise DataError(
            f"reference: labels among the {len(names)} classes were expected, got "
            f"{unknown[0].as_py()!r}; at {path}. Classes: {names.to_pylist()[:10]}"
        )
    return np.asarray(found.to_numpy(zero_copy_only=False), np.int64)
