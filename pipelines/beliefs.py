"""Beliefs in the labels that annotators gave: their temperature, over all shards.

`labelops.belief` on shards. Stage `decide` decides by these beliefs; stage `proportions` brings the
totals of bags into them.
"""

from collections.abc import Sequence
from functools import partial

import numpy as np
from scipy import sparse

from labelops.belief import COARSE, Noise, best_temperature, fine_grid, loss_through_noise
from labelops.confident.estimates import unpack_matrix
from labelops.sparse_noise import SparseNoise, sound, sound_sparse_noise
from labelops.top_rows import TopRows
from pipelines.frame import Frame
from pipelines.predictions import prediction_columns, predictions_of
from pipelines.stage import Arrays, Context, Reduce, Step

SAMPLE_ITEMS, SAMPLE_CELLS = 50_000, 5_000_000
"""Temperature is fitted on so many items, or probabilities: those with the smallest hashes."""

BLOCK_CELLS = 1 << 20
"""Beliefs are computed for so many probabilities at a time, to stay in the cache."""


def temperature_steps(ctx: Context) -> Sequence[Step]:
    """Return the steps that find the temperature; its result is that of step `temperature`."""
    sampled = ["item_hash", "given", *prediction_columns(ctx.columns)]
    return [
        Reduce(name="coarse", reads=sampled, summarize=partial(losses, fine=False), finish=best),
        Reduce(
            name="temperature",
            reads=sampled,
            summarize=partial(losses, fine=True),
            finish=partial(best, fine=True),
        ),
    ]


def block_rows(n_classes: int) -> int:
    """Return how many items to compute beliefs for at a time."""
    return max(1, BLOCK_CELLS // max(n_classes, 1))


def noise_of(ctx: Context) -> Noise:
    """Return P(given | true) as stage `confident` estimated it."""
    return sound(unpack_matrix(ctx.result("confident", "estimates"), "noise_matrix"))


def sparse_noise_of(ctx: Context) -> SparseNoise:
    """Return the same, as pairs of classes, however many there are."""
    noise = unpack_matrix(ctx.result("confident", "estimates"), "noise_matrix")
    return sound_sparse_noise(sparse.csr_array(noise))


def losses(frame: Frame, ctx: Context, *, fine: bool) -> Arrays:
    """Sum the loss through the noise at several temperatures, over the sample."""
    grid = fine_grid(float(ctx.own("coarse")["temperature"])) if fine else COARSE
    n_sample = min(SAMPLE_ITEMS, SAMPLE_CELLS // max(ctx.n_classes, 1))
    share = min(1.0, n_sample / max(ctx.n_items, 1))
    hashes = frame.array("item_hash")
    chosen = np.flatnonzero((hashes >> np.uint64(32)) < np.uint64(round(share * 2**32)))
    noise, given, probs = noise_of(ctx), frame.array("given"), predictions_of(frame, ctx)
    total = np.zeros(len(grid), np.int64)
    step = block_rows(ctx.n_classes)
    for start in range(0, len(chosen), step):
        rows = chosen[start : start + step]
        sample = probs[rows]
        whole = sample.dense() if isinstance(sample, TopRows) else sample
        total += loss_through_noise(whole, given[rows], noise, grid)
    return {"loss": total, "n": np.array(len(chosen))}


def best(summary: Arrays, ctx: Context, *, fine: bool = False) -> Arrays:
    """Return the temperature of least loss."""
    grid = fine_grid(float(ctx.own("coarse")["temperature"])) if fine else COARSE
    temperature = best_temperature(grid, summary["loss"]) if summary["n"] else 1.0
    return {"temperature": np.array(temperature), "n": summary["n"]}
