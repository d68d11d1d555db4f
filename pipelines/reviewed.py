"""Labels set by people: a small table that some stages compare with, or follow."""

import os
from functools import lru_cache

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from pipelines.errors import DataError
from pipelines.stage import Context

COLUMNS = ("item_id", "true_label")


@lru_cache(maxsize=4)
def _read(path: str, modified_ns: int) -> pa.Table:
    try:
        if path.endswith(".csv"):
            # Text throughout: an id like 007 is not the number 7.
            text = pa.csv.ConvertOptions(
                column_types=dict.fromkeys(COLUMNS, pa.string()),
                strings_can_be_null=True,
                null_values=[""],
            )
            table = pa.csv.read_csv(path, convert_options=text)
        else:
            table = pq.read_table(path)
    except (OSError, pa.ArrowException) as err:
        raise DataError(
            f"reviewed: a Parquet or CSV file with columns {list(COLUMNS)} was expected, got "
            f"{type(err).__name__}: {err}; at {path}. Correct decide.reviewed"
        ) from err
    missing = [name for name in COLUMNS if name not in table.column_names]
    if missing:
        raise DataError(
            f"reviewed: columns {list(COLUMNS)} were expected, got {table.column_names}; at "
            f"{path}. Rename them, or correct decide.reviewed"
        )
    table = pa.table({name: table[name].cast(pa.string()).combine_chunks() for name in COLUMNS})
    table = table.filter(pc.is_valid(table["true_label"]))
    twice = pc.value_counts(table["item_id"]).filter(
        pc.greater(pc.value_counts(table["item_id"]).field("counts"), 1)
    )
    if len(twice):
        raise DataError(
            f"reviewed: one row an item was expected, got {len(twice)} items with more, such as "
            f"{twice[0]['values'].as_py()!r}; at {path}. Settle on one label each"
        )
    return table


def reviewed_classes(item_id: pa.Array, ctx: Context) -> np.ndarray:
    """Return the class that a reviewer gave each item, or −1.

    Parameters
    ----------
    item_id
        N ids.
    ctx
        Its settings name the file (`reviewed`); its classes give the ids.

    Raises
    ------
    DataError
        If the file cannot be read, names an item twice, or a label that is no class.
    """
    path = ctx.config.reviewed
    if path is None:
        return np.full(len(item_id), -1, np.int32)
    table = _read(path, os.stat(path).st_mtime_ns)
    # Labels that are numbers go by the number, or by the name of their class.
    names = pa.array([str(name) for name in ctx.classes], pa.string())
    numbers = pa.array([str(value) for value in ctx.class_values], pa.string())
    labels = table["true_label"].combine_chunks()
    classes = pc.coalesce(
        pc.index_in(labels, value_set=numbers), pc.index_in(labels, value_set=names)
    )
    unknown = labels.filter(pc.is_null(classes))
    if len(unknown):
        raise DataError(
            f"reviewed: labels among the {len(names)} classes were expected, got "
            f"{unknown[0].as_py()!r}; at {path}. Classes: {names.to_pylist()[:10]}"
        )
    at = pc.index_in(item_id.cast(pa.string()), value_set=table["item_id"].combine_chunks())
    found = classes.take(at).fill_null(-1)
    return np.asarray(found.to_numpy(zero_copy_only=False), np.int32)
