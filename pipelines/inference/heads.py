"""Linear heads on embeddings, and the rows that inference writes."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pyarrow as pa

from pipelines.core.stage import Arrays, Context, Tables
from pipelines.inference.calibrate import folder, sample_table
from pipelines.inference.folds import fold_of_items
from pipelines.inference.given import Labels, given_of
from pipelines.inference.settings import Config
from pipelines.inference.unknown import learned_of
from pipelines.storage.canonical import Items
from pipelines.storage.frame import Frame
from pipelines.storage.vectors import even_tables, list_array, vectors_of

Said = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]
"""From features (n, D), folds (n,) and hashes (n,) to probabilities, float32, shape (n, K)."""


def fit(items: Items, ctx: Context[Config], out: str) -> Arrays:
    """Fit one head a fold, streaming over the items in canonical order."""
    from labelops.nn.device import pick_device
    from labelops.nn.linear import Block, block_rows

    config, kind = ctx.config, learned_of(ctx)
    rows = block_rows(n_classes=ctx.n_classes, n_folds=config.folds, least=kind.least_rows)

    def blocks() -> Iterator[Block[Any]]:
        for table in items.tables(rows):
            given, hashes = kind.in_table(table, ctx), table.column("item_hash").to_numpy()
            features = vectors_of(table.column("embedding").chunk(0))[0]
            yield Block(features, given, fold_of_items(given, hashes, ctx))

    heads = kind.fit(
        blocks,
        n_features=items.schema.field("embedding").type.list_size,
        n_classes=ctx.n_classes,
        n_folds=config.folds,
        l2=config.l2,
        max_iter=config.max_iter,
        device=pick_device(config.device),
    )
    return dict(heads.arrays())


def open_linear(ctx: Context[Config]) -> Said:
    """Return what the heads that have not seen an item say of it."""
    from labelops.nn import linear

    heads, link = linear.Heads.of(ctx.own("heads")), given_of(ctx.columns).link
    return lambda features, fold, hashes: linear.predict(heads, features, fold, link=link)


def even_blocks(frame: Frame, column: str, rows: int) -> Iterator[tuple[slice, pa.Array]]:
    """Yield a column of a shard in pieces of exactly `rows` rows; the last may be shorter."""
    start = 0
    tables = (table for _, table in frame.batches([column], rows))
    for table in even_tables(tables, rows):
        here = slice(start, start + table.num_rows)
        start = here.stop
        yield here, table.column(column).combine_chunks()


def predictions(
    ctx: Context[Config],
    ids: pa.Array,
    hashes: np.ndarray,
    given: Labels,
    fold: np.ndarray,
    probs: np.ndarray,
    embedding: pa.Array,
    opinions: np.ndarray | None = None,
) -> Tables:
    """Return rows of the sidecar and of the calibration sample."""
    columns = {
        "item_id": ids,
        "fold": pa.array(fold, pa.int8()),
        "pred_probs": list_array(probs),
        "embedding": embedding,
    }
    if given_of(ctx.columns).has_p_given:
        columns["p_given"] = pa.array(probs[np.arange(len(given)), given], pa.float32())
    if opinions is not None:
        columns["opinions"] = list_array(opinions)
    return {ctx.stage: pa.table(columns), folder(ctx): sample_table(hashes, given, probs, ctx)}
