"""Which stored views a student should learn from: thresholds over all views, verdicts by shard."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from labelops.distill.regions import (
    SAMPLE,
    Thresholds,
    fit_thresholds,
    judge_views,
    view_confidence,
)
from labelops.hashing import is_sampled
from labelops.soft.geometry import view_hashes
from pipelines.core.stage import Arrays, Context
from pipelines.soft.columns import SoftFacts, ViewRows
from pipelines.soft.settings import Config

# V views

THRESHOLDS = "thresholds"
"""Name of the step."""


def items_of(rows: ViewRows, item_id: pa.Array) -> np.ndarray:
    """Return where among the items of a shard each view's is; −1 for none, int64, shape (V,)."""
    at = pc.index_in(rows.item_id, value_set=item_id).fill_null(-1)
    return np.asarray(at.to_numpy(zero_copy_only=False), np.int64)


def sample_confidence(
    rows: ViewRows, facts: SoftFacts, item_hash: np.ndarray, ctx: Context[Config]
) -> Arrays:
    """Return the confidence of sampled views, of which hashes of items are known, shape (V,)."""
    said = view_confidence(rows.labels, coding=facts.coding, of=ctx.config.confidence)
    hashes = view_hashes(item_hash, rows.view_id)
    chosen = is_sampled(hashes, wanted=SAMPLE, total=ctx.n_items * ctx.config.views)
    return {"confidence": said[chosen], "hash": hashes[chosen]}


def find_thresholds(summary: Arrays, ctx: Context[Config]) -> Arrays:
    """Return the thresholds."""
    said, hashes = summary["confidence"], summary["hash"]
    found = fit_thresholds(said, hashes, quantiles=ctx.config.quantiles, n_sample=len(said))
    return {"thresholds": np.array(found), "n": np.array(len(said))}


def judged(rows: ViewRows, facts: SoftFacts, item: np.ndarray, ctx: Context[Config]) -> np.ndarray:
    """Return the verdict on every view of some items, all of whose views there are; uint8."""
    said = view_confidence(rows.labels, coding=facts.coding, of=ctx.config.confidence)
    thresholds = Thresholds(*ctx.own(THRESHOLDS)["thresholds"].tolist())
    return judge_views(said, item, thresholds=thresholds).verdict
