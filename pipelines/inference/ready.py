"""The user's own probabilities: checked, and what stands at the given label set aside."""

from collections.abc import Mapping

import numpy as np
import pyarrow as pa

from labelops.simplex import what_is_wrong
from pipelines.frame import Frame
from pipelines.inference.calibrate import folder, sample_table
from pipelines.stage import Context
from pipelines.vectors import vectors_of


def validate(frame: Frame, ctx: Context) -> Mapping[str, pa.Table]:
    """Reject rows that are no probabilities; keep the value at the given label of the others."""
    from labelops.fast.simplex import check_rows

    probs, null = vectors_of(frame["pred_probs"])
    if probs.dtype == np.float16:
        probs = probs.astype(np.float32)
    given = frame.array("given")
    bad, p_given = check_rows(probs, given, tolerance=ctx.config.sum_tolerance)
    for row in bad:
        why = (
            "probabilities missing: pred_probs is null" if null[row] else what_is_wrong(probs[row])
        )
        frame.reject([row], why)
    ids, item_hash = frame["item_id"], frame.array("item_hash")
    if bad.size:
        kept = frame.kept()
        ids, p_given = ids.take(pa.array(kept)), p_given[kept]
        given, item_hash, probs = given[kept], item_hash[kept], probs[kept]
    return {
        ctx.stage: pa.table({"item_id": ids, "p_given": p_given}),
        folder(ctx): sample_table(item_hash, given, probs, ctx),
    }
