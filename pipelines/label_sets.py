"""Lists of labels in columns, and as the label sets that the mathematics takes.

Stage `source` leaves `given_ids` (classes said to be present) and, where not all others are ruled
out, `given_not_ids`; every later stage reads them through here.
"""

from collections.abc import Iterable

import numpy as np
import pyarrow as pa

from labelops.multilabel.labels import LabelSets, from_flat
from labelops.soft import id_type
from pipelines.frame import Frame
from pipelines.stage import Context

GIVEN, RULED_OUT = "given_ids", "given_not_ids"


def is_multi_label(columns: Iterable[str]) -> bool:
    """Return whether items have lists of labels, as stage `source` left them."""
    return GIVEN in columns


def given_columns(columns: Iterable[str]) -> list[str]:
    """Return the columns with given classes: one, or with three states two."""
    return [name for name in (GIVEN, RULED_OUT) if name in frozenset(columns)]


def label_columns(columns: Iterable[str]) -> list[str]:
    """Return the columns with given labels, several or one an item; none where there are none."""
    return given_columns(columns) or [name for name in columns if name == "given"]


def flat(lists: pa.Array | pa.ChunkedArray) -> tuple[pa.Array, np.ndarray]:
    """Return all elements of a column of lists, one after the other, and where each list begins.

    Null lists count as empty; offsets are int64, shape (N + 1,).

    Examples
    --------
    >>> values, start = flat(pa.array([[3, 1], None, [2]]).slice(1))
    >>> values.to_pylist(), start.tolist()
    ([2], [0, 0, 1])
    """
    if isinstance(lists, pa.ChunkedArray):
        lists = lists.combine_chunks()
    if isinstance(lists, pa.ChunkedArray):  # a column without chunks stays one
        lists = pa.concat_arrays(lists.chunks) if lists.num_chunks else pa.array([], lists.type)
    lengths = lists.value_lengths().fill_null(0).to_numpy(zero_copy_only=False)
    start = np.zeros(len(lists) + 1, np.int64)
    np.cumsum(lengths, out=start[1:])
    return lists.flatten(), start


def lists_of(values: np.ndarray | pa.Array, start: np.ndarray) -> pa.Array:
    """Return a column of lists from its elements and where each list begins."""
    elements = values if isinstance(values, pa.Array) else pa.array(values)
    return pa.ListArray.from_arrays(pa.array(start, pa.int32()), elements)


def sets_in(table: pa.Table, n_classes: int) -> LabelSets:
    """Return the given classes of a table that has the columns for them."""
    parts: list[np.ndarray] = []
    for name in given_columns(table.column_names):
        values, start = flat(table.column(name))
        parts += [values.to_numpy(zero_copy_only=False), start]
    return from_flat(*parts, n_classes=n_classes)


def given_sets(frame: Frame, ctx: Context) -> LabelSets:
    """Return the given classes of a shard's items."""
    return sets_in(frame.table(given_columns(frame.reads)), ctx.n_classes)


def labels_of(frame: Frame, ctx: Context) -> LabelSets:
    """Return the given classes of a shard's items, of which each may have but one label.

    One label says what an item has, and nothing of what it has not: all else is unknown.
    """
    if given_columns(frame.reads):
        return given_sets(frame, ctx)
    one, none = np.arange(frame.n + 1), np.zeros(frame.n + 1, np.int64)
    given = frame.array("given").astype(np.int64)
    return from_flat(given, one, given[:0], none, n_classes=ctx.n_classes)


def ids_type(n_classes: int) -> pa.DataType:
    """Return the type of lists of class ids."""
    return pa.list_(pa.from_numpy_dtype(id_type(n_classes)))


def clean_columns(clean: LabelSets, is_known: np.ndarray, ctx: Context) -> dict[str, pa.Array]:
    """Return clean lists in the type of the source's labels; null where nothing is settled."""
    parts = {"labels_clean": (clean.ids, clean.start)}
    if clean.negative_ids is not None and clean.negative_start is not None:
        parts["labels_negative_clean"] = (clean.negative_ids, clean.negative_start)
    return {
        name: pa.ListArray.from_arrays(
            pa.array(start, pa.int32()), ctx.labels(ids.astype(np.int64)), mask=pa.array(~is_known)
        )
        for name, (ids, start) in parts.items()
    }
