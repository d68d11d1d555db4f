"""Linear heads on embeddings: fitted once over all items, applied shard by shard."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa

from pipelines.core.stage import Arrays, Context, Tables
from pipelines.inference.calibrate import folder, sample_table
from pipelines.inference.folds import fold_of_items
from pipelines.inference.given import Labels, given_of
from pipelines.inference.settings import Config
from pipelines.storage.canonical import Items
from pipelines.storage.frame import Frame
from pipelines.storage.vectors import even_tables, list_array, vectors_of

CHUNK_BYTES = 32 * 2**20


def fit(items: Items, ctx: Context[Config], out: str) -> Arrays:
    """Fit one head a fold, streaming over the items in canonical order."""
    from labelops.nn.device import pick_device
    from labelops.nn.linear import Block, block_rows

    config, kind = ctx.config, given_of(ctx.columns)
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


def predict(frame: Frame, ctx: Context[Config]) -> Iterator[Tables]:
    """Give every item the probabilities of the head that has not seen it."""
    from labelops.nn import linear
    from labelops.nn.device import pick_device

    kind = given_of(ctx.columns)
    heads = linear.Heads.of(ctx.own("heads"))
    device = pick_device(ctx.config.device)
    given, hashes = kind.read(frame, ctx), frame.array("item_hash")
    fold, ids = fold_of_items(given, hashes, ctx), frame["item_id"]
    # Many enough for a row group of their own.
    rows = max(1024, CHUNK_BYTES // (4 * max(heads.weight.shape[1:])))
    for here, embedding in even_blocks(frame, "embedding", rows):
        probs = linear.predict(
            heads, vectors_of(embedding)[0], fold[here], link=kind.link, device=device
        )
        own = kind.choose(given, here)
        yield predictions(ctx, ids[here], hashes[here], own, fold[here], probs, embedding)


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
    return {ctx.stage: pa.table(columns), folder(ctx): sample_table(hashes, given, probs, ctx)}
