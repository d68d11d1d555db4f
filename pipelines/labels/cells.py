"""Cells (item and class) that a model contradicts: listed once, read again by every later step.

One pass over the probabilities leaves three scratch files a shard: disagreeing cells, the score of
every item, and the cells that beliefs are learned from. None of the later steps reads
probabilities.
"""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
from scipy import sparse

from labelops.confident import thresholds as conf
from labelops.multilabel import cooccurrence as co
from labelops.multilabel.beliefs import Features
from labelops.multilabel.cells import Cells, Counts, add_counts, no_counts, state_bounds
from labelops.multilabel.labels import LabelSets, take_rows
from labelops.multilabel.opinion import model_log_odds
from labelops.multilabel.sampling import Shares, cell_hash, draw
from labelops.multilabel.scores import RowScore
from pipelines.core.stage import Arrays, Context, Output, Tables
from pipelines.labels import predictions
from pipelines.labels.space import given_sets
from pipelines.storage.frame import Frame
from pipelines.storage.vectors import arrays_of


def dtype_of(ctx: Context) -> np.dtype:
    """Return in which type probabilities are compared: that of the column, at least float32."""
    return np.result_type(predictions.dtype_of(ctx), np.float32)


def prob_blocks(frame: Frame, ctx: Context) -> Iterator[tuple[int, np.ndarray, LabelSets]]:
    """Yield (first row, probabilities, given classes) of a shard, block by block."""
    dtype, labels = dtype_of(ctx), given_sets(frame, ctx)
    for first, probs in predictions.blocks_of(frame, dtype, ctx.n_classes):
        block = take_rows(labels, slice(first, first + len(probs)))
        yield first, probs.astype(dtype, copy=False), block


# -- counts over all shards ------------------------------------------------------------------------


def sum_states(frame: Frame, ctx: Context) -> Arrays:
    """Sum the probability of the given state, by class and state."""
    from labelops.fast.multilabel import CompiledEngine

    engine, none = CompiledEngine(), np.zeros(2 * ctx.n_classes, np.int64)
    total = conf.SelfConfidence(none, none, none)
    for _, probs, labels in prob_blocks(frame, ctx):
        total = conf.merge(total, engine.sums(probs, labels))
    return total._asdict()


def count_states(frame: Frame, ctx: Context) -> Arrays:
    """Count cells by class, given state and guess."""
    from labelops.fast.multilabel import CompiledEngine

    engine, total = CompiledEngine(), no_counts(ctx.n_classes)
    bounds = state_bounds(ctx.own("thresholds")["thresholds"], dtype_of(ctx))
    for _, probs, labels in prob_blocks(frame, ctx):
        total = add_counts(total, engine.counts(probs, labels, bounds))
    return total._asdict()


def counts_in(result: Arrays) -> Counts:
    """Return the counts that a result holds."""
    return Counts(result["joint_counts"], result["disagreeing"], result["sure"])


# -- pairs of classes ------------------------------------------------------------------------------

PARTS = ("data", "indices", "indptr")


def count_pairs(frame: Frame, ctx: Context) -> Arrays:
    """Count classes and pairs of them in a shard's given lists."""
    return pack_pairs(co.summarize(given_sets(frame, ctx)))


def merge_pairs(a: Arrays, b: Arrays) -> Arrays:
    """Add the counts of two shards."""
    return pack_pairs(co.merge(unpack_pairs(a), unpack_pairs(b)))


def pack_pairs(pairs: co.Pairs) -> Arrays:
    """Return counts as plain arrays, entries in the order of rows and columns."""
    arrays: Arrays = {"n_yes": pairs.n_yes, "n_no": pairs.n_no}
    for name in ("both", "against"):
        counts = getattr(pairs, name)
        if counts is not None:
            counts = counts.copy()
            counts.sum_duplicates()
            counts.eliminate_zeros()
            for part in PARTS:
                arrays[f"{name}_{part}"] = getattr(counts, part).astype(np.int64)
    return arrays


def unpack_pairs(arrays: Arrays) -> co.Pairs:
    """Return the counts that `pack_pairs` packed."""
    n_classes = len(arrays["n_yes"])
    counts = [
        sparse.csr_array(
            tuple(arrays[f"{name}_{part}"] for part in PARTS), shape=(n_classes, n_classes)
        )
        if f"{name}_data" in arrays
        else None
        for name in ("both", "against")
    ]
    return co.Pairs(arrays["n_yes"], arrays["n_no"], *counts)


# -- one look at every row -------------------------------------------------------------------------


def cells_folder(ctx: Context) -> str:
    """Return the scratch folder of disagreeing cells."""
    return f"{ctx.stage}/_cells"


def sample_folder(ctx: Context) -> str:
    """Return the scratch folder of cells to learn from."""
    return f"{ctx.stage}/_sample"


def scratch(ctx: Context) -> dict[str, Output]:
    """Return what the look at every row leaves."""
    number = pa.from_numpy_dtype(dtype_of(ctx))
    cell = [("class_id", pa.int32()), ("is_given", pa.bool_())]
    cells = [("row", pa.int32()), *cell, ("p", number), ("evidence", pa.float64())]
    sample = [
        *(("key", pa.uint64()), *cell, ("kind", pa.uint8())),
        *(("log_odds", pa.float64()), ("evidence", pa.float64())),
    ]
    return {
        cells_folder(ctx): Output(schema=pa.schema(cells), rows="some", ipc=True),
        sample_folder(ctx): Output(schema=pa.schema(sample), rows="some", ipc=True),
        f"{ctx.stage}/_scores": Output(schema=pa.schema([("score", pa.float32())]), ipc=True),
    }


def scan(score: RowScore, frame: Frame, ctx: Context) -> Iterator[Tables]:
    """Read the probabilities once more; leave what later steps need."""
    from labelops.fast.multilabel import CompiledEngine, row_scores

    engine, pairs = CompiledEngine(), unpack_pairs(ctx.own("pairs"))
    shares, hashes = Shares(*ctx.own("estimates")["shares"].tolist()), frame.array("item_hash")
    for first, probs, labels in prob_blocks(frame, ctx):
        contrary = engine.disagreeing(probs, labels)
        _, evidence = co.evidence(contrary, labels, pairs)
        mine = hashes[first : first + len(probs)]
        drawn, kind = draw(probs, labels, mine, contrary, shares)
        _, of_drawn = co.evidence(drawn, labels, pairs)
        cells = [contrary.row + first, contrary.class_id, contrary.is_given, contrary.p, evidence]
        sample = [
            cell_hash(mine[drawn.row], drawn.class_id),
            *(drawn.class_id, drawn.is_given, kind),
            *(model_log_odds(drawn.p), of_drawn),
        ]
        scores = row_scores(probs, labels, score=score).astype(np.float32)
        written = zip(scratch(ctx).items(), (cells, sample, [scores]), strict=True)
        yield {
            folder: pa.table(
                [pa.array(x, field.type) for x, field in zip(part, output.schema, strict=True)],
                schema=output.schema,
            )
            for (folder, output), part in written
        }


def read_cells(frame: Frame, ctx: Context) -> tuple[Cells, Features]:
    """Return a shard's disagreeing cells, and what is known of each."""
    arrays = arrays_of(frame.file(cells_folder(ctx)))
    class_id, is_given = arrays["class_id"].astype(np.int64), arrays["is_given"].astype(bool)
    cells = Cells(arrays["row"].astype(np.int64), class_id, is_given, arrays["p"])
    return cells, Features(class_id, is_given, model_log_odds(arrays["p"]), arrays["evidence"])
