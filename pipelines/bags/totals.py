"""Totals brought into what is believed of every item: by a model, or from given labels as well.

Where there are given labels, totals must not destroy them: a table of the wrong class, or of
another year, has totals that labels and model find improbable, and these are left out.
"""

from collections.abc import Mapping

import numpy as np
import pyarrow as pa

from labelops.proportions.counts import hard_counts
from labelops.simplex import bad_rows, what_is_wrong
from labelops.top_belief import all_classes, sure_of_given
from pipelines.bags.census import CENSUS
from pipelines.bags.findings import LEVEL, bag_losses, judge_bags
from pipelines.bags.group import Grouped, group, save_canonical, save_keys
from pipelines.bags.settings import Config
from pipelines.core.stage import Arrays, Beliefs, Blocks, Context
from pipelines.labels.beliefs import believed, block_rows, noise_of, slices, trusts_predictions
from pipelines.storage.canonical import Items
from pipelines.storage.frame import Frame
from pipelines.storage.vectors import vectors_of

# N items, M of them in bags, B bags, K classes

FLOOR = 1e-6
"""Least probability that a model may have meant: totals can overrule any of them."""

SURE = 2.0
"""Standard errors by which one share for all bags must predict totals better than beliefs do."""

SHIFTS = 50
"""Steps in which beliefs take over the shares of all totals together."""


def reject_bad(frame: Frame, ctx: Context) -> Mapping[str, pa.Table]:
    """Reject rows of `pred_probs` that are no probabilities."""
    probs, null = vectors_of(frame["pred_probs"])
    for row in bad_rows(probs.astype(np.float64)).tolist():
        missing = "probabilities missing: pred_probs is null"
        frame.reject([row], missing if null[row] else what_is_wrong(probs[row]))
    ids = frame["item_id"].take(pa.array(frame.kept(), pa.int64()))
    return {f"{ctx.stage}/_usable": pa.table({"item_id": ids})}


def constrain(items: Items, ctx: Context[Config], folder: str) -> Arrays:
    """Bring totals into beliefs of all items; leave these, return what was found."""
    census = ctx.own(CENSUS)
    grouped = group(items, census)
    counts, start = census["counts"], grouped.start
    beliefs = _own_beliefs(items, ctx, grouped)
    inside = slice(grouped.n_in_bags)
    judged = judge_bags(beliefs[inside], start, counts)
    loss = bag_losses(beliefs[inside], start, counts)
    # One share for all bags knows all counts, the model none.
    share = counts.sum(axis=0) / counts.sum()
    constant = bag_losses(np.tile(share, (len(beliefs[inside]), 1)), start, counts)
    is_contrary, is_imposed = False, np.ones(len(counts), bool)
    if "given" in items.schema.names and ctx.config.improbable == "ignore":
        is_contrary = contradicts(beliefs[inside], start, counts)
        is_imposed = np.all(judged["q_value"] > LEVEL, axis=1) & (not is_contrary)
    posterior, n_saddle_point = _posterior(beliefs[inside], start, counts)
    is_bound = np.repeat(is_imposed, np.diff(start))[:, None]
    constrained = np.where(is_bound, posterior, beliefs[inside])
    moved = np.abs(constrained - beliefs[inside]).sum() / 2
    beliefs[inside] = constrained
    save_keys(folder, grouped)
    save_canonical(folder, "beliefs", beliefs, grouped)
    return {
        **judged,
        "loss_start": np.array(loss.mean()),
        "loss_constant": np.array(constant.mean()),
        "moved": np.array(moved),
        "is_contrary": np.array(is_contrary),
        "is_imposed": is_imposed,
        "bag_converged": np.ones(len(counts), bool),
        "n_components": np.array(len(counts)),
        "n_open": np.array(0),
        "n_saddle_point": np.array(n_saddle_point),
    }


def contradicts(beliefs: np.ndarray, start: np.ndarray, counts: np.ndarray) -> bool:
    """Return whether totals go against beliefs: one share for all bags surely predicts them better.

    Beliefs are first given the shares of all totals together: that labels miss a class everywhere
    is what totals are there to mend, that bags with more of it have lower totals is not.

    Parameters
    ----------
    beliefs
        In the order of bags, above 0, shape (M, K).
    start, counts
        Bags, and their counts of classes, shape (B, K).

    Examples
    --------
    >>> is_second = np.repeat([1, 0, 1, 0, 1, 0], 10)
    >>> beliefs = np.where(np.stack([1 - is_second, is_second], axis=1), 0.9, 0.1)
    >>> counts = np.array([[1, 9], [9, 1]] * 3)
    >>> start = np.arange(0, 61, 10)
    >>> contradicts(beliefs, start, counts), contradicts(beliefs, start, counts[:, ::-1])
    (False, True)
    """
    total = counts.sum(axis=0)
    weight = np.ones(len(total))
    for _ in range(SHIFTS):
        shifted = beliefs * weight
        shifted /= shifted.sum(axis=1, keepdims=True)
        weight *= total / np.maximum(shifted.sum(axis=0), FLOOR)
    constant = np.tile(total / total.sum(), (len(beliefs), 1))
    worse = bag_losses(shifted, start, counts) - bag_losses(constant, start, counts)
    if len(worse) < 2:
        return False
    return bool(worse.mean() > SURE * worse.std(ddof=1) / np.sqrt(len(worse)))


def _own_beliefs(items: Items, ctx: Context, grouped: Grouped) -> np.ndarray:
    """Return what is believed without totals, in the order of bags, float64, shape (N, K)."""
    n_classes = int(items.schema.field("pred_probs").type.list_size)
    out = np.empty((len(grouped.hashes), n_classes))
    labelled = "given" in items.schema.names
    if labelled:
        noise = noise_of(ctx)
    first = 0
    for table in items.tables(block_rows(n_classes)):
        probs, _ = vectors_of(table.column("pred_probs").combine_chunks())
        block = np.asarray(probs, np.float64)
        if labelled:
            given = table.column("given").to_numpy()
            _, block = believed(probs, given, noise, ctx)
        block = np.maximum(block, FLOOR)
        rows = slice(first, first + len(block))
        out[grouped.place[rows]] = block / block.sum(axis=1, keepdims=True)
        first += len(block)
    return out


def _posterior(probs: np.ndarray, start: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, int]:
    """Return the posterior given the counts, and how many bags were not counted through."""
    if counts.shape[1] == 2:
        from labelops.fast.cardinality import marginals

        log_odds = np.log(probs[:, 1]) - np.log(probs[:, 0])
        positive = marginals(log_odds, start, hard_counts(counts[:, 1])).beliefs
        return np.stack([1 - positive, positive], axis=1), 0
    from labelops.fast.bag_classes import fast_class_posterior

    classes = fast_class_posterior(np.log(probs), start, counts)
    return classes.beliefs, int((~classes.is_exact).sum())


def _blocks(frame: Frame, ctx: Context, k: int, certain: np.ndarray) -> Blocks:
    totals, given = frame.array("bag_probs"), frame.array("given")
    is_trusted = trusts_predictions(ctx)
    for rows in slices(frame.n, block_rows(ctx.n_classes)):
        belief = totals[rows].astype(np.float64)
        belief /= belief.sum(axis=1, keepdims=True)
        whole = all_classes(belief)
        yield rows, whole if is_trusted else sure_of_given(whole, given[rows])


BELIEFS = Beliefs(
    kind="label",
    reads=lambda columns: ["bag_probs", "given"],
    blocks=_blocks,
    temperature=lambda ctx: float(ctx.result(ctx.beliefs_stage, "temperature")["temperature"]),
)
"""What stage `proportions` offers where items have labels."""
