"""The step that deals items to folds, and its use in later ones; settings have `folds`."""

from typing import Any

import numpy as np

from labelops import folds
from pipelines.core.stage import Arrays, Context, Reduce
from pipelines.inference.given import Labels, given_of
from pipelines.storage.frame import Frame


def folds_step(ctx: Context) -> Reduce[Any]:
    """Return the step."""
    reads = ["item_hash", *given_of(ctx.columns).columns(ctx.columns)]
    return Reduce(name="folds", reads=reads, summarize=_count, finish=_deal)


def _count(frame: Frame, ctx: Context) -> Arrays:
    kind = given_of(ctx.columns)
    of_item, n_strata = kind.strata(kind.read(frame, ctx), ctx)
    return {"counts": folds.summarize(of_item, frame.array("item_hash"), n_classes=n_strata)}


def _deal(summary: Arrays, ctx: Context[Any]) -> Arrays:
    return {"fold_of": folds.finish(summary["counts"], n_folds=ctx.config.folds)}


def fold_of_items(given: Labels, item_hash: np.ndarray, ctx: Context) -> np.ndarray:
    """Return the fold of each item; within steps after `folds_step`."""
    of_item, _ = given_of(ctx.columns).strata(given, ctx)
    return folds.assign(of_item, item_hash, ctx.own("folds")["fold_of"])
