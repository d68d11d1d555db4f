"""The user's own probabilities: checked, and what stands at the given label set aside."""

from collections.abc import Mapping

import numpy as np
import pyarrow as pa

from pipelines.core.stage import Context
from pipelines.inference.calibrate import folder, sample_table
from pipelines.inference.given import given_of
from pipelines.inference.settings import Config
from pipelines.storage.frame import Frame
from pipelines.storage.vectors import vectors_of

CHUNK_BYTES = 32 * 2**20


def validate(frame: Frame, ctx: Context[Config]) -> Mapping[str, pa.Table]:
    """Reject rows that are no probabilities; keep the value at the given label of the others."""
    kind = given_of(ctx.columns)
    given, item_hash = kind.read(frame, ctx), frame.array("item_hash")
    p_given: list[np.ndarray] = []
    none = kind.choose(given, slice(0, 0))
    samples = [sample_table(item_hash[:0], none, np.empty((0, ctx.n_classes)), ctx)]
    rows = max(64, CHUNK_BYTES // (8 * ctx.n_classes))
    for start, table in frame.batches(["pred_probs"], rows):
        here = slice(start, start + table.num_rows)
        probs, null = vectors_of(table.column("pred_probs").combine_chunks())
        if probs.dtype == np.float16:
            probs = probs.astype(np.float32)
        own = kind.choose(given, here)
        bad, at_given = kind.check(probs, own, ctx.config.sum_tolerance)
        for row in bad.tolist():
            missing = "probabilities missing: pred_probs is null"
            frame.reject([start + row], missing if null[row] else kind.what_is_wrong(probs[row]))
        p_given += [] if at_given is None else [at_given]
        usable = np.ones(len(probs), bool)
        usable[bad] = False
        samples.append(sample_table(item_hash[here], own, probs, ctx, usable))
    kept = frame.kept()
    columns = {"item_id": frame["item_id"].take(pa.array(kept))}
    if kind.has_p_given:
        columns["p_given"] = (np.concatenate(p_given) if p_given else np.empty(0))[kept]
    return {ctx.stage: pa.table(columns), folder(ctx): pa.concat_tables(samples[1:] or samples)}
