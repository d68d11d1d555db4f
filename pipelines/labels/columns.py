"""Columns that hold lists: flat with offsets, and back."""

import numpy as np
import pyarrow as pa

from labelops.soft.labels import SoftLabels, id_type

SOFT = ("topk_ids", "topk_probs", "tail_prob")
"""Columns of soft labels."""

GIVEN, RULED_OUT = "given_ids", "given_not_ids"
"""What stage `source` leaves of lists: classes said to be present, and said not to be."""


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


def ids_type(n_classes: int) -> pa.DataType:
    """Return the type of lists of class ids."""
    return pa.list_(pa.from_numpy_dtype(id_type(n_classes)))


def soft_fields(n_classes: int) -> list[tuple[str, pa.DataType]]:
    """Return the columns of soft labels, with their types."""
    kinds = ids_type(n_classes), pa.list_(pa.float16()), pa.float16()
    return list(zip(SOFT, kinds, strict=True))


def soft_columns(soft: SoftLabels) -> list[pa.Array]:
    """Return soft labels as these columns."""
    lists = [pa.ListArray.from_arrays(soft.offsets, pa.array(x)) for x in (soft.ids, soft.probs)]
    return [*lists, pa.array(soft.tail)]
