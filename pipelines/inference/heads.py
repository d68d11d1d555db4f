"""Linear heads on embeddings: fitted once over all items, applied shard by shard."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from pipelines.core.stage import Arrays, Context, Tables
from pipelines.inference.calibrate import folder, sample_table
from pipelines.inference.folds import fold_of_items
from pipelines.storage.canonical import Items
from pipelines.storage.frame import Frame
from pipelines.storage.vectors import even_tables, list_array, vectors_of

if TYPE_CHECKING:
    from pipelines.stages.infer import Config

CHUNK_BYTES = 32 * 2**20


def fit(items: Items, ctx: "Context[Config]", out: str) -> Arrays:
    """Fit one head a fold, streaming over the items in canonical order."""
    from labelops.nn.device import pick_device
    from labelops.nn.heads import Block, fit_heads
    from labelops.nn.linear import block_rows

    config = ctx.config
    rows = block_rows(n_classes=ctx.n_classes, n_folds=config.folds)

    def blocks() -> Iterator[Block]:
        for block in items.blocks(rows):
            given, hashes = np.asarray(block["given"]), np.asarray(block["item_hash"])
            fold = fold_of_items(given, hashes, ctx)
            yield Block(np.asarray(block["embedding"]), given, fold)

    heads = fit_heads(
        blocks,
        n_features=items.schema.field("embedding").type.list_size,
        n_classes=ctx.n_classes,
        n_folds=config.folds,
        l2=config.l2,
        max_iter=config.max_iter,
        device=pick_device(config.device),
    )
    return dict(heads.arrays())


def predict(frame: Frame, ctx: "Context[Config]") -> Iterator[Tables]:
    """Give every item the probabilities of the head that has not seen it."""
    from labelops.nn.device import pick_device
    from labelops.nn.heads import predict as probs_of
    from labelops.nn.linear import Heads

    heads = Heads.of(ctx.own("heads"))
    device = pick_device(ctx.config.device)
    given, hashes = frame.array("given"), frame.array("item_hash")
    fold, ids = fold_of_items(given, hashes, ctx), frame["item_id"]
    rows = chunk_rows(heads.weight.shape[1])
    start = 0
    tables = (table for _, table in frame.batches(["embedding"], rows))
    for table in even_tables(tables, rows):
        here = slice(start, start + table.num_rows)
        start += table.num_rows
        embedding = table.column("embedding").combine_chunks()
        probs = probs_of(heads, vectors_of(embedding)[0], fold[here], device=device)
        yield predictions(ctx, ids[here], hashes[here], given[here], fold[here], probs, embedding)


def chunk_rows(n_features: int) -> int:
    """Return how many rows are worked on at a time; many enough for a row group of their own."""
    return max(1024, CHUNK_BYTES // (4 * n_features))


def predictions(
    ctx: "Context[Config]",
    ids: pa.Array,
    hashes: np.ndarray,
    given: np.ndarray,
    fold: np.ndarray,
    probs: np.ndarray,
    embedding: pa.Array,
) -> Tables:
    """Return rows of the sidecar and of the calibration sample."""
    rows = pa.table(
        {
            "item_id": ids,
            "fold": pa.array(fold, pa.int8()),
            "pred_probs": list_array(probs),
            "embedding": embedding,
            "p_given": pa.array(probs[np.arange(len(given)), given], pa.float32()),
        }
    )
    return {ctx.stage: rows, folder(ctx): sample_table(hashes, given, probs, ctx)}
