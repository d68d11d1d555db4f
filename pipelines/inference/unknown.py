"""What heads make of classes in lists that are neither given nor ruled out."""

import numpy as np

from pipelines.core.stage import Context
from pipelines.core.state import READY
from pipelines.inference.given import CLASS_SETS, ClassSets, OneClass, given_of
from pipelines.inference.inputs import input_column
from pipelines.inference.settings import Config
from pipelines.labels.columns import RULED_OUT

LEAST_RULED_OUT = 0.1
"""A class that a smaller share of the items without it rules out is not learned from these: below,
ranks are worse than where all others count as absent."""


def learned_of(ctx: Context[Config]) -> OneClass | ClassSets:
    """Return the kind of given labels as heads learn from them: which unknown cells are absent."""
    kind = given_of(ctx.columns)
    ready = ("pred_probs", "topk_probs", READY)
    if kind is not CLASS_SETS or input_column(ctx.config.use, ctx.columns) in ready:
        return kind
    is_counted = counted_absent(ctx)
    return ClassSets(is_counted) if is_counted.any() else kind


def counted_absent(ctx: Context[Config]) -> np.ndarray:
    """Return the classes of lists of which unknown cells count as absent; bool, shape (K,)."""
    if RULED_OUT not in ctx.columns or ctx.config.unknown == "ignore":
        return np.zeros(ctx.n_classes, bool)
    if ctx.config.unknown == "negative":
        return np.ones(ctx.n_classes, bool)
    return hardly_ruled_out(ctx)


def hardly_ruled_out(ctx: Context) -> np.ndarray:
    """Return the classes that too few items rule out to be learned from; bool, shape (K,)."""
    census = ctx.result("source", "census")
    n_without = census["n_items"] - census["n_given"]
    return np.asarray(census["n_ruled_out"] < LEAST_RULED_OUT * n_without)
