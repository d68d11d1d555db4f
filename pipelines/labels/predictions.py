"""Where stages find the predictions of items: whole rows, or the probable classes of each.

Whole rows are column `pred_probs`. Where the source lists only the most probable classes
(`topk_ids`, `topk_probs`, `tail_prob`), stage `infer` checks them and leaves them in one form: the
classes in ascending order, their probabilities, and what each of the others has.
"""

from collections.abc import Collection, Iterator

import numpy as np
import pyarrow as pa

from labelops.top_rows import Probs, TopRows
from pipelines.core.stage import Context
from pipelines.storage.frame import Frame, numpy_of

WHOLE = "pred_probs"

LISTED = ("pred_ids", "pred_values", "pred_rest")
"""Classes, their probabilities, and that of every other class, as stage `infer` leaves them."""

ROW_BYTES = 1 << 20
"""Probabilities are read in blocks of this size, which stay in the cache of a processor."""

LISTED_ROWS = 1 << 16


def prediction_columns(columns: Collection[str]) -> list[str]:
    """Return the columns that hold the predictions."""
    return list(LISTED) if LISTED[0] in columns else [WHOLE]


def is_listed(ctx: Context) -> bool:
    """Return whether only the probable classes of each item are listed."""
    return LISTED[0] in ctx.types


def dtype_of(ctx: Context) -> np.dtype:
    """Return the type of the probabilities."""
    kind = ctx.types[LISTED[1] if is_listed(ctx) else WHOLE].value_type
    dtype: np.dtype = np.dtype(kind.to_pandas_dtype())
    return dtype


def listed_fields(values: pa.DataType) -> list[tuple[str, pa.DataType]]:
    """Return the columns that list probable classes, with probabilities of some type."""
    return list(zip(LISTED, (pa.list_(pa.int32()), pa.list_(values), values), strict=True))


def prediction_fields(ctx: Context) -> list[tuple[str, pa.DataType]]:
    """Return the columns of predictions, of rows that are copied."""
    if is_listed(ctx):
        return listed_fields(ctx.types[LISTED[2]])
    kind = ctx.types[WHOLE]
    return [(WHOLE, pa.list_(kind.value_type, kind.list_size))]


def prediction_arrays(probs: Probs) -> list[pa.Array]:
    """Return rows as the columns of `prediction_fields`."""
    if isinstance(probs, TopRows):
        start = pa.array(probs.start, pa.int32())
        return [
            pa.ListArray.from_arrays(start, pa.array(probs.ids, pa.int32())),
            pa.ListArray.from_arrays(start, pa.array(probs.values)),
            pa.array(probs.rest),
        ]
    return [pa.FixedSizeListArray.from_arrays(pa.array(probs.reshape(-1)), probs.shape[1])]


def rows_of(batch: pa.RecordBatch, n_classes: int) -> Probs:
    """Return the rows that columns of `prediction_fields` hold."""
    if WHOLE in batch.schema.names:
        return numpy_of(batch.column(WHOLE), WHOLE)
    return listed_of(batch, n_classes)


def listed_of(columns: Frame | pa.RecordBatch, n_classes: int) -> TopRows:
    """Return the rows that columns `LISTED` hold."""
    ids, values, rest = (columns[name] for name in LISTED)
    start = ids.offsets.to_numpy().astype(np.int64)
    return TopRows(
        start - start[0],
        ids.flatten().to_numpy().astype(np.int64),
        values.flatten().to_numpy(),
        rest.to_numpy(),
        n_classes,
    )


def predictions_of(frame: Frame, ctx: Context) -> Probs:
    """Return the predictions of all items of a shard."""
    return listed_of(frame, ctx.n_classes) if is_listed(ctx) else frame.array(WHOLE)


def blocks_of(frame: Frame, dtype: np.dtype, n_classes: int) -> Iterator[tuple[int, np.ndarray]]:
    """Yield (first row, whole rows) of a shard, block by block."""
    rows = max(16, ROW_BYTES // (n_classes * dtype.itemsize))
    for first, table in frame.batches([WHOLE], rows):
        for chunk in table.column(0).chunks:
            yield first, numpy_of(chunk, WHOLE)
            first += len(chunk)


def prediction_blocks(frame: Frame, ctx: Context) -> Iterator[tuple[int, Probs]]:
    """Yield (first row, predictions) of a shard, block by block."""
    if not is_listed(ctx):
        yield from blocks_of(frame, dtype_of(ctx), ctx.n_classes)
        return
    for first, table in frame.batches(LISTED, LISTED_ROWS):
        for batch in table.combine_chunks().to_batches():
            yield first, rows_of(batch, ctx.n_classes)
            first += len(batch)
