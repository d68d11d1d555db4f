"""Rows of probabilities that are kept whole while a stage runs, because choosing needs them."""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa

from labelops.top_rows import Probs
from pipelines.core.stage import Context
from pipelines.labels.predictions import prediction_arrays, prediction_fields, rows_of
from pipelines.storage.frame import Frame, numpy_of


def clear_lead(n_classes: int) -> float:
    """Return by how much the given class must lead for a row not to be kept for choosing among.

    Kept rows nearly always fill the quotas: what is flagged for class j among the items given k has
    another class than k in front, or is as unlikely to be k as to be j, and between many classes
    unlikely means less. The more classes, the longer a row: this keeps the rows' share of the disk
    within bounds, too.
    """
    return min(0.25, 8.0 / n_classes)


def rows_folder(ctx: Context) -> str:
    """Return the scratch folder of the rows among which pairs choose."""
    return f"{ctx.stage}/_rows"


def deep_folder(ctx: Context) -> str:
    """Return the scratch folder of further rows, where the first were not enough."""
    return f"{ctx.stage}/_deep"


def rows_schema(ctx: Context) -> pa.Schema:
    """Return the columns of kept rows."""
    return pa.schema(
        [
            ("row", pa.int32()),
            ("given", pa.int32()),
            ("item_hash", pa.uint64()),
            *prediction_fields(ctx),
        ]
    )


def rows_table(
    rows: np.ndarray, given: np.ndarray, hashes: np.ndarray, probs: Probs, schema: pa.Schema
) -> pa.Table:
    """Return kept rows as a table."""
    columns = [
        pa.array(rows, pa.int32()),
        pa.array(given[rows], pa.int32()),
        pa.array(hashes[rows], pa.uint64()),
        *prediction_arrays(probs),
    ]
    return pa.table(columns, schema=schema)


def row_blocks(
    frame: Frame, ctx: Context, *, deep: bool
) -> Iterator[tuple[np.ndarray, tuple[Probs, np.ndarray, np.ndarray]]]:
    """Yield (row, (probabilities, given, hash)) of kept rows; with `deep`, of all of them."""
    for folder in [rows_folder(ctx), *([deep_folder(ctx)] if deep else [])]:
        for batch in frame.file(folder).to_batches():
            row, given, hashes = (
                numpy_of(batch.column(name), name) for name in ("row", "given", "item_hash")
            )
            yield row, (rows_of(batch, ctx.n_classes), given, hashes)
