"""The step that deals items to folds, and its use in later ones."""

from typing import TYPE_CHECKING

import numpy as np

from labelops import folds
from pipelines.core.stage import Arrays, Context, Reduce
from pipelines.storage.frame import Frame

if TYPE_CHECKING:
    from pipelines.stages.infer import Config


def folds_step() -> "Reduce[Config]":
    """Return the step."""
    return Reduce(name="folds", reads=["item_hash", "given"], summarize=_count, finish=_deal)


def _count(frame: Frame, ctx: Context) -> Arrays:
    counts = folds.summarize(
        frame.array("given"), frame.array("item_hash"), n_classes=ctx.n_classes
    )
    return {"counts": counts}


def _deal(summary: Arrays, ctx: "Context[Config]") -> Arrays:
    return {"fold_of": folds.finish(summary["counts"], n_folds=ctx.config.folds)}


def fold_of_items(given: np.ndarray, item_hash: np.ndarray, ctx: Context) -> np.ndarray:
    """Return the fold of each item; within steps after `folds_step`."""
    return folds.assign(given, item_hash, ctx.own("folds")["fold_of"])
