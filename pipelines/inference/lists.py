"""Probabilities of single classes, for items with lists of labels.

Ready ones are checked; or logistic heads on embeddings are fitted, all classes and folds together,
and applied shard by shard. What is said of the probabilities in the end is of single cells.
"""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from labelops import folds
from labelops.multilabel import calibration as cal
from labelops.multilabel.labels import LabelSets, choose_rows, owners, states, take_rows
from labelops.multilabel.opinion import model_log_odds
from pipelines.core.stage import Arrays, Context, Reduce, Tables, join_summaries
from pipelines.inference.calibrate import folder, sampled
from pipelines.inference.heads import CHUNK_BYTES, chunk_rows
from pipelines.labels.lists import sets_in
from pipelines.labels.space import given_sets
from pipelines.storage.canonical import Items
from pipelines.storage.frame import Frame
from pipelines.storage.vectors import even_tables, list_array, vectors_of

if TYPE_CHECKING:
    from pipelines.stages.infer import Config

SAMPLE_CELLS = 1 << 20
"""Every cell is a binary answer; so many tell a slope and a shift to three digits."""

# -- folds -----------------------------------------------------------------------------------------


def strata(labels: LabelSets, ctx: Context) -> np.ndarray:
    """Return the rarest class that each item was given, K where it was given none.

    Items are dealt to folds within these, so that a class of few items is in all folds.
    """
    counts = ctx.result("source", "census")["n_given"]
    rarity = np.empty(len(counts), np.int64)
    rarity[np.argsort(counts, kind="stable")] = np.arange(len(counts))
    rarest = np.full(labels.n_items, len(counts), np.int64)
    np.minimum.at(rarest, owners(labels.start), rarity[labels.ids])
    return rarest


def folds_step(given: list[str]) -> "Reduce[Config]":
    """Return the step that deals items to folds; `given` are the columns with given classes."""
    return Reduce(name="folds", reads=["item_hash", *given], summarize=_count, finish=_deal)


def _count(frame: Frame, ctx: Context) -> Arrays:
    of_item = strata(given_sets(frame, ctx), ctx)
    counts = folds.summarize(of_item, frame.array("item_hash"), n_classes=ctx.n_classes + 1)
    return {"counts": counts}


def _deal(summary: Arrays, ctx: "Context[Config]") -> Arrays:
    return {"fold_of": folds.finish(summary["counts"], n_folds=ctx.config.folds)}


def fold_of_items(labels: LabelSets, item_hash: np.ndarray, ctx: Context) -> np.ndarray:
    """Return the fold of each item; within steps after `folds_step`."""
    return folds.assign(strata(labels, ctx), item_hash, ctx.own("folds")["fold_of"])


# -- heads -----------------------------------------------------------------------------------------


def fit(items: Items, ctx: "Context[Config]", out: str) -> Arrays:
    """Fit one head a class and fold, streaming over the items in canonical order."""
    from labelops.nn.binary_heads import Block, block_rows, fit_binary_heads
    from labelops.nn.device import pick_device

    config = ctx.config
    rows = block_rows(n_classes=ctx.n_classes, n_folds=config.folds)

    def blocks() -> Iterator[Block]:
        for table in items.tables(rows):
            labels = sets_in(table, ctx.n_classes)
            hashes = table.column("item_hash").to_numpy()
            features = vectors_of(table.column("embedding").chunk(0))[0]
            yield Block(features, labels, fold_of_items(labels, hashes, ctx))

    heads = fit_binary_heads(
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
    """Give every item the probabilities of the heads that have not seen it."""
    from labelops.nn.binary_heads import predict as probs_of
    from labelops.nn.device import pick_device
    from labelops.nn.linear import Heads

    heads = Heads.of(ctx.own("heads"))
    device = pick_device(ctx.config.device)
    labels, hashes, ids = given_sets(frame, ctx), frame.array("item_hash"), frame["item_id"]
    fold = fold_of_items(labels, hashes, ctx)
    rows = chunk_rows(max(heads.weight.shape[1:]))
    start = 0
    tables = (table for _, table in frame.batches(["embedding"], rows))
    for table in even_tables(tables, rows):
        here = slice(start, start + table.num_rows)
        start += table.num_rows
        embedding = table.column("embedding").combine_chunks()
        probs = probs_of(heads, vectors_of(embedding)[0], fold[here], device=device)
        columns = {
            "item_id": ids[here],
            "fold": pa.array(fold[here], pa.int8()),
            "pred_probs": list_array(probs),
            "embedding": embedding,
        }
        sample = sample_table(hashes[here], take_rows(labels, here), probs, ctx)
        yield {ctx.stage: pa.table(columns), folder(ctx): sample}


# -- ready probabilities ---------------------------------------------------------------------------


def what_is_wrong(probs: np.ndarray) -> str:
    """Return why a row's numbers are no probabilities."""
    column = int(np.flatnonzero(~((probs >= 0) & (probs <= 1)))[0])
    return (
        f"no probabilities: class {column} has {probs[column]:g}, expected was [0, 1]. Were logits "
        "passed?"
    )


def validate(frame: Frame, ctx: "Context[Config]") -> Mapping[str, pa.Table]:
    """Reject rows with numbers outside [0, 1]; they need not sum to one."""
    labels, item_hash = given_sets(frame, ctx), frame.array("item_hash")
    none = take_rows(labels, slice(0, 0))
    samples = [sample_table(item_hash[:0], none, np.empty((0, ctx.n_classes)), ctx)]
    rows = max(1024, CHUNK_BYTES // (8 * ctx.n_classes))
    for start, table in frame.batches(["pred_probs"], rows):
        here = slice(start, start + table.num_rows)
        probs, null = vectors_of(table.column("pred_probs").combine_chunks())
        if probs.dtype == np.float16:
            probs = probs.astype(np.float32)
        # Written so that NaN fails too.
        usable = np.asarray(((probs >= 0) & (probs <= 1)).all(axis=1))
        for row in np.flatnonzero(~usable).tolist():
            missing = "probabilities missing: pred_probs is null"
            frame.reject([start + row], missing if null[row] else what_is_wrong(probs[row]))
        samples.append(sample_table(item_hash[here], take_rows(labels, here), probs, ctx, usable))
    ids = frame["item_id"].take(pa.array(frame.kept()))
    return {
        ctx.stage: pa.table({"item_id": ids}),
        folder(ctx): pa.concat_tables(samples[1:] or samples),
    }


# -- calibration -----------------------------------------------------------------------------------


def sample_schema(ctx: Context, values: pa.DataType) -> pa.Schema:
    """Return the scratch columns of sampled items."""
    return pa.schema(
        [
            ("item_hash", pa.uint64()),
            ("states", pa.list_(pa.int8(), ctx.n_classes)),
            ("pred_probs", pa.list_(values, ctx.n_classes)),
        ]
    )


def sample_table(
    item_hash: np.ndarray,
    labels: LabelSets,
    probs: np.ndarray,
    ctx: "Context[Config]",
    usable: np.ndarray | None = None,
) -> pa.Table:
    """Return the sampled ones of some items, if they are usable, as rows of the scratch folder."""
    chosen = sampled(item_hash, ctx, SAMPLE_CELLS)
    rows = np.flatnonzero(chosen if usable is None else chosen & usable)
    table = states(choose_rows(labels, rows))
    return pa.table(
        {
            "item_hash": pa.array(item_hash[rows], pa.uint64()),
            "states": list_array(table),
            "pred_probs": list_array(probs[rows]),
        }
    )


def calibration_step(ctx: Context) -> "Reduce[Config]":
    """Return the step that measures how far probabilities can be taken at their word."""
    return Reduce(
        name="calibration",
        reads=[folder(ctx)],
        summarize=_take_sample,
        merge=join_summaries,
        finish=measure,
    )


def _take_sample(frame: Frame, ctx: Context) -> Arrays:
    table = frame.file(folder(ctx))
    found: Arrays = {"item_hash": np.asarray(table.column("item_hash").to_numpy())}
    for name in ("states", "pred_probs"):
        chunks = table.column(name).chunks or [pa.array([], table.schema.field(name).type)]
        found[name] = np.concatenate([vectors_of(chunk)[0] for chunk in chunks])
    return found


def measure(summary: Arrays, ctx: "Context[Config]") -> Arrays:
    """Measure on known cells before and after one slope and shift for all classes.

    Returns
    -------
    `slope`, `shift`, `n` (items), `n_cells`; `before_` and `after_` of `nll`, `brier`, `ece` and
    `bins_n`, `bins_confidence`, `bins_accuracy`.
    """
    order = np.argsort(summary["item_hash"], kind="stable")
    p, given = cal.known_cells(summary["pred_probs"][order], summary["states"][order])
    slope, shift = cal.pooled_scaling(p, given)
    after = 1 / (1 + np.exp(-(slope * model_log_odds(p) + shift)))
    found: Arrays = {
        "slope": np.array(slope),
        "shift": np.array(shift),
        "n": np.array(len(order)),
        "n_cells": np.array(len(p)),
    }
    n_bins = ctx.config.bins
    for when, values in (("before", p), ("after", after)):
        for name, value in cal.metrics(values, given, n_bins=n_bins).items():
            found[f"{when}_{name}"] = np.array(value)
        for name, bins in cal.reliability_of(values, given, n_bins=n_bins)._asdict().items():
            found[f"{when}_bins_{name}"] = bins
    return found
