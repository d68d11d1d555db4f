"""Beliefs in the labels that annotators gave: their temperature, and what they are.

`labelops.belief` on shards. Stage `confident` offers these beliefs.
"""

from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np
from scipy import sparse

from labelops.belief import (
    COARSE,
    TIE,
    UNIT,
    Noise,
    believe,
    best_temperature,
    fine_grid,
    loss_through_noise,
    most_cautious,
)
from labelops.confident.estimates import unpack_matrix
from labelops.hashing import is_drawn
from labelops.sparse_noise import SparseNoise, noise_of_rate, sparse_noise_at
from labelops.top_belief import all_classes, believe_top, candidates, sure_of_given, where_agreed
from labelops.top_rows import Probs, TopRows
from pipelines.core.stage import Arrays, Beliefs, Blocks, Context, Reduce, Step
from pipelines.labels.predictions import prediction_columns, predictions_of
from pipelines.storage.frame import Frame

SAMPLE_ITEMS, SAMPLE_CELLS = 20_000, 2_000_000
"""Temperature is fitted on so many items, or probabilities: those with the smallest hashes."""

OPINIONS = "opinions"
"""Column with the most probable class of each head, where several were fitted."""

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
    """Return P(given | true): as often wrong as the surest predictions say, of confused classes."""
    joint = unpack_matrix(ctx.result("confident", "estimates"), "confident_joint")
    return noise_of_rate(ctx.result("confident", "surest")["rate"], joint)


def trusts_predictions(ctx: Context) -> bool:
    """Say whether the model is out of the way; see `labelops.confident.surest`."""
    return bool(ctx.result("confident", "surest")["is_flat"])


def sparse_noise_of(ctx: Context) -> SparseNoise:
    """Return the same, as pairs of classes, however many there are."""
    joint = unpack_matrix(ctx.result("confident", "estimates"), "confident_joint")
    return sparse_noise_at(ctx.result("confident", "surest")["rate"], sparse.csr_array(joint))


def losses(frame: Frame, ctx: Context, *, fine: bool) -> Arrays:
    """Sum the loss through the noise in either way at several temperatures, over the sample."""
    n_sample = min(SAMPLE_ITEMS, SAMPLE_CELLS // max(ctx.n_classes, 1))
    share = min(1.0, n_sample / max(ctx.n_items, 1))
    chosen = np.flatnonzero(is_drawn(frame.array("item_hash"), share=share))
    noise, given, probs = noise_of(ctx), frame.array("given"), predictions_of(frame, ctx)
    total = np.zeros((2, len(COARSE)), np.int64)
    # Of listed classes the others cannot be told apart, so nothing is subtracted from them.
    ways = (False,) if isinstance(probs, TopRows) else WAYS
    step = block_rows(ctx.n_classes)
    for start in range(0, len(chosen), step):
        rows = chosen[start : start + step]
        sample = probs[rows]
        whole = sample.dense() if isinstance(sample, TopRows) else sample
        for way in ways:
            grid = _grid(ctx, way, fine=fine)
            total[int(way)] += loss_through_noise(whole, given[rows], noise, grid, subtracts=way)
    return {"loss": total, "n": np.array(len(chosen)), "can_subtract": np.array(len(ways) - 1)}


WAYS = (False, True)
"""Whether noise is subtracted, see `labelops.belief.true_probs`."""


def _grid(ctx: Context, way: bool, *, fine: bool) -> np.ndarray:
    return fine_grid(float(ctx.own("coarse")["temperatures"][int(way)])) if fine else COARSE


def best(summary: Arrays, ctx: Context, *, fine: bool = False) -> Arrays:
    """Return the temperature of least loss in either way, and the way that has less."""
    n = summary["n"]
    grids = [_grid(ctx, way, fine=fine) for way in WAYS]
    pairs = zip(grids, summary["loss"], strict=True)
    temperatures = [best_temperature(grid, loss) if n else 1.0 for grid, loss in pairs]
    least = summary["loss"].min(axis=1)
    subtracts = bool(summary["can_subtract"]) and bool(least[1] < least[0])
    return {
        "temperatures": np.array(temperatures),
        "temperature": np.array(temperatures[int(subtracts)]),
        "subtracts": np.array(subtracts),
        "is_tied": np.array(bool(summary["can_subtract"]) and _is_tied(summary["loss"], n, ctx)),
        "n": n,
    }


def _is_tied(loss: np.ndarray, n: np.ndarray, ctx: Context) -> bool:
    """Say whether given labels do not decide between the two ways; all items are as the sample."""
    differ = abs(int(loss[0].min()) - int(loss[1].min())) / UNIT
    return bool(differ * ctx.n_items < TIE * max(int(n), 1))


def believed(
    probs: np.ndarray, given: np.ndarray, noise: Noise, ctx: Context, *, in_best_way: bool = True
) -> tuple[np.ndarray, np.ndarray]:
    """Return `labelops.belief.believe`, with predictions read in the way of less loss, or more."""
    how = ctx.own("temperature")
    way = bool(how["subtracts"]) == in_best_way
    temperature = float(how["temperatures"][int(way)])
    return believe(probs, given, noise, temperature=temperature, subtracts=way)


# -- what is believed ------------------------------------------------------------------------------


def _of_predictions(frame: Frame, ctx: Context, k: int, certain: np.ndarray) -> Blocks:
    probs, given = predictions_of(frame, ctx), frame.array("given")
    of_block = _listed if isinstance(probs, TopRows) else _whole
    is_trusted = trusts_predictions(ctx)
    opinions = frame.array(OPINIONS) if OPINIONS in frame.reads else None
    for rows, belief in of_block(probs, given, ctx, k, certain):
        mine = given[rows]
        if not is_trusted:
            belief = sure_of_given(belief, mine)
        elif opinions is not None:
            belief = where_agreed(belief, mine, opinions[rows])
        yield rows, belief


def slices(n: int, step: int) -> Iterator[slice]:
    """Yield slices of n rows; an empty one where there are none."""
    return (slice(start, min(start + step, n)) for start in range(0, max(n, 1), step))


def _whole(probs: Probs, given: np.ndarray, ctx: Context, k: int, certain: np.ndarray) -> Blocks:
    noise = noise_of(ctx)
    for rows in slices(len(given), block_rows(ctx.n_classes)):
        block, mine = probs[rows], given[rows]
        assert isinstance(block, np.ndarray)
        belief, cautious = believed(block, mine, noise, ctx)
        if ctx.own("temperature")["is_tied"]:
            other = believed(block, mine, noise, ctx, in_best_way=False)[1]
            cautious = most_cautious(cautious, other, mine)
        yield rows, all_classes(belief, cautious)


def _listed(probs: Probs, given: np.ndarray, ctx: Context, k: int, certain: np.ndarray) -> Blocks:
    """Yield the same, where only the probable classes of each item are listed."""
    assert isinstance(probs, TopRows)
    noise, temperature = sparse_noise_of(ctx), float(ctx.own("temperature")["temperature"])
    n_listed = int(probs.n_listed.max(initial=0))
    # Two more than are stored: the most believed class but one is wanted, too.
    likeliest = noise.likeliest(k + 2 + n_listed)
    for rows in slices(len(given), block_rows(2 * n_listed + k + 4)):
        block, mine = probs[rows], given[rows].astype(np.int64)
        ids = candidates(block, mine, likeliest, certain[rows])
        yield rows, believe_top(block, mine, noise, ids, temperature=temperature)


OF_PREDICTIONS = Beliefs(
    kind="label",
    reads=lambda columns: [
        "given",
        *prediction_columns(columns),
        *([OPINIONS] if OPINIONS in columns else []),
    ],
    steps=temperature_steps,
    blocks=_of_predictions,
    temperature=lambda ctx: float(ctx.own("temperature")["temperature"]),
)
"""What stage `confident` offers: predictions, sharpened through the noise that it estimates."""
