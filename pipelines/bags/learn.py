"""A round of learning from totals: what features say, neighbours and counts, a network.

Mathematics: `labelops.nn.bag_rounds`. The first round begins with the regression on totals. A later
one takes the logits that the round before left, and looks for neighbours in its embedding. All
items are worked on at once, in the order of bags; memory is some 600 bytes an item with five
neighbours and two classes, besides features on disk.
"""

import os
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy.special import log_softmax, softmax

from labelops.proportions.edges import Edges, no_edges
from pipelines.bags.census import CENSUS
from pipelines.bags.findings import bag_losses, constant_losses, judge_bags
from pipelines.bags.group import (
    BLOCK_ROWS,
    Grouped,
    group,
    regrouped,
    save_canonical,
    save_keys,
    standardised,
)
from pipelines.bags.settings import Config
from pipelines.core.stage import Arrays, Context
from pipelines.storage.arrays import new_array
from pipelines.storage.canonical import Items

if TYPE_CHECKING:
    from labelops.nn.bags import Fitted

# N items, M of them in bags, B bags, K classes, V dimensions of the embedding

LEARN = "learn"
"""Name of the step."""

FIRST = "proportions"
"""The round that counts bags and judges them."""

CARRIED = ("bag_logits", "bag_held_logits", "bag_embedding")
"""Columns by which a round tells the next what it found."""

JUDGED = (
    *("expected", "std", "p_value", "q_value", "dispersion"),
    *("loss_start", "loss_constant", "n_fitted", "log_evidence", "left"),
)
"""What the first round found out about bags and its start, and later ones repeat."""

EMBEDDING = 64
"""V: width of the last hidden layer."""


def previous(stage: str) -> str:
    """Return the name of the round before.

    Examples
    --------
    >>> previous("proportions@2"), previous("proportions@3")
    ('proportions', 'proportions@2')
    """
    base, _, number = stage.partition("@")
    n = int(number or 1) - 1
    return base if n <= 1 else f"{base}@{n}"


class Begun(NamedTuple):
    """What a round begins with, in the order of bags.

    Attributes
    ----------
    logits, held_logits : of items; the latter did not see the counts of held-out bags; (N, K).
    vectors : in which to look for neighbours, shape (N, ·).
    held_out : those bags.
    result : what the first round says of its start and of the bags.
    """

    logits: np.ndarray
    held_logits: np.ndarray
    vectors: np.ndarray
    held_out: np.ndarray
    result: Arrays


def learn(items: Items, ctx: Context[Config], folder: str) -> Arrays:
    """Play a round; leave beliefs, logits and embedding of all items, return what was found."""
    census, column = ctx.result(FIRST, CENSUS), vector_column(ctx.columns)
    grouped = group(items, census)
    # Each feature is scaled by itself; those of an embedding belong together.
    scaling = ctx.config.scaling
    by_column = scaling == "columns" or (scaling == "auto" and column == "features")
    features, n_missing = standardised(items, column, grouped, by_column=by_column)
    save_keys(folder, grouped)
    missing = {"n_without_vector": np.array(n_missing)}
    if census["is_constant"]:
        return _nothing_to_learn(census, grouped, folder) | missing

    from labelops.nn.bag_rounds import BAG_WEIGHT
    from labelops.nn.bags import BagTraining, SoftLabels, fit, logits_of

    begun = _begin(items, ctx, census, grouped, features)
    start, counts = grouped.start, census["counts"]
    posterior, propagated = _propagate(begun, counts, grouped, ctx)
    fitted = fit(
        features[: grouped.n_in_bags],
        start,
        counts,
        SoftLabels(posterior, start, counts, bag_weight=BAG_WEIGHT),
        training=BagTraining(hidden=(128, EMBEDDING), epochs=ctx.config.epochs),
        seed=ctx.config.seed,
    )
    logits = logits_of(fitted.net, features)
    beliefs = softmax(logits, axis=1)
    beliefs[: grouped.n_in_bags] = posterior
    save_canonical(folder, "beliefs", beliefs, grouped)
    save_canonical(folder, "bag_logits", (begun.logits + log_softmax(logits, axis=1)) / 2, grouped)
    save_canonical(folder, "bag_held_logits", begun.held_logits, grouped)
    _save_embedding(folder, fitted, features, grouped)
    return {
        **begun.result,
        "held_out": begun.held_out,
        **missing,
        **propagated,
        "loss_network": np.array(fitted.loss),
        "epoch": np.array(fitted.epoch),
    }


def vector_column(columns: frozenset[str]) -> str:
    """Return the column that is learned from."""
    return "embedding" if "embedding" in columns else "features"


def _begin(
    items: Items, ctx: Context[Config], census: Arrays, grouped: Grouped, features: np.ndarray
) -> Begun:
    counts, start = census["counts"], grouped.start
    if ctx.stage != FIRST:
        before = ctx.result(previous(ctx.stage), LEARN)
        logits, held_logits, vectors = (
            regrouped(items, name, grouped).astype(np.float64 if name != CARRIED[2] else np.float32)
            for name in CARRIED
        )
        kept = {name: before[name] for name in JUDGED}
        return Begun(logits, held_logits, vectors, before["held_out"].copy(), kept)
    from labelops.nn.bag_start import fit_start

    model = fit_start(
        features,
        start,
        counts,
        most_items=ctx.config.start_items,
        n_fourier=ctx.config.fourier_features,
        seed=ctx.config.seed,
    )
    held, inside = model.held_out, slice(grouped.n_in_bags)
    losses = {
        "loss_start": bag_losses(softmax(model.held_logits[inside], axis=1), start, counts)[held],
        "loss_constant": constant_losses(start, counts, held),
    }
    result = {
        **judge_bags(model.judging, start, counts),
        **{name: np.array(x.mean() if len(held) else np.nan) for name, x in losses.items()},
        "n_fitted": np.array(model.n_fitted),
        "log_evidence": np.array(model.log_evidence),
        "left": np.array(model.left),
    }
    return Begun(model.logits, model.held_logits, features, held, result)


def _propagate(
    begun: Begun, counts: np.ndarray, grouped: Grouped, ctx: Context[Config]
) -> tuple[np.ndarray, Arrays]:
    """Return what neighbours and counts make of the items in bags, (M, K); and how that went."""
    from labelops.nn.bag_rounds import choose_class_strength, spread_beliefs, strengthened

    n_threads = len(os.sched_getaffinity(0))
    edges = _edges(begun.vectors, grouped, ctx, n_threads)
    inside, start = slice(grouped.n_in_bags), grouped.start
    strength = choose_class_strength(
        begun.held_logits[inside], start, counts, edges, begun.held_out, n_threads=n_threads
    )
    posterior = spread_beliefs(
        begun.logits[inside],
        start,
        counts,
        strengthened(edges, strength=strength),
        max_sweeps=ctx.config.max_sweeps,
        n_threads=n_threads,
    )
    settled = posterior.convergence
    return posterior.beliefs, {
        "strength": np.array(strength),
        "n_edges": np.array(len(edges.first)),
        "bag_converged": settled.converged[settled.component_of_bag],
        "n_components": np.array(len(settled.converged)),
        "n_open": np.array(int((~settled.converged).sum())),
        "n_sweeps": np.array(int(settled.n_sweeps.max(initial=0))),
        "last_change": np.array(float(settled.last_change.max(initial=0.0))),
        "n_saddle_point": np.array(int((~posterior.is_exact).sum())),
    }


def _edges(vectors: np.ndarray, grouped: Grouped, ctx: Context[Config], n_threads: int) -> Edges:
    """Return neighbours among the items in bags, found in canonical order.

    There the first ones are a sample of all, which an index needs; in the order of bags they are
    not.
    """
    from labelops.nn.bag_rounds import neighbour_edges

    place = grouped.place[grouped.bag >= 0]
    if ctx.config.neighbours == 0 or len(place) < 2:
        return no_edges()
    pairs = neighbour_edges(
        np.asarray(vectors[place]),
        k=ctx.config.neighbours,
        flat_limit=ctx.config.flat_limit,
        n_threads=n_threads,
    )
    a, b = place[pairs.first], place[pairs.second]
    first, second = np.minimum(a, b), np.maximum(a, b)
    order = np.argsort(first * len(grouped.place) + second)
    return Edges(first[order], second[order], pairs.weight[order])


def _save_embedding(folder: str, fitted: "Fitted", features: np.ndarray, grouped: Grouped) -> None:
    from labelops.nn.bags import embed

    shape = (len(features), EMBEDDING)
    out = new_array(os.path.join(folder, "bag_embedding.npy"), np.float32, shape)
    for first in range(0, len(features), BLOCK_ROWS):
        rows = slice(first, first + BLOCK_ROWS)
        out[rows] = embed(fitted.net, np.asarray(features[grouped.place[rows]]))
    out.flush()


def _nothing_to_learn(census: Arrays, grouped: Grouped, folder: str) -> Arrays:
    """Say of every item what is known: the shares that all bags have.

    A model that does so explains all counts, so nothing that another one says could be checked.
    """
    counts = census["counts"]
    n, (n_bags, n_classes) = len(grouped.hashes), counts.shape
    share = census["share"] / census["share"].sum()
    beliefs = np.tile(share, (n, 1))
    logits = np.log(np.maximum(beliefs, 1e-12))
    for name, values in (
        ("beliefs", beliefs),
        ("bag_logits", logits),
        ("bag_held_logits", logits),
        ("bag_embedding", np.zeros((n, EMBEDDING), np.float32)),
    ):
        save_canonical(folder, name, values, grouped)
    unknown = ("loss_start", "loss_constant", "loss_network", "log_evidence", "left")
    none = ("n_fitted", "n_edges", "epoch", "n_open", "n_sweeps", "n_saddle_point")
    return {
        "expected": counts.astype(np.float64),
        "std": np.sqrt(counts * (1 - share)),
        "p_value": np.ones((n_bags, n_classes)),
        "q_value": np.ones((n_bags, n_classes)),
        "dispersion": np.array(1.0),
        **dict.fromkeys(unknown, np.array(np.nan)),
        "held_out": np.empty(0, np.int64),
        "strength": np.array(0.0),
        "bag_converged": np.ones(n_bags, bool),
        "last_change": np.array(0.0),
        "n_components": np.array(n_bags),
        **dict.fromkeys(none, np.array(0)),
    }
