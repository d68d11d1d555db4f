"""Learning from counts of bags, in rounds: what items say, neighbours and counts, a network.

A round takes log-odds of single items, lets neighbours and counts have their say (belief
propagation), and fits a network to the beliefs. Its embedding and log-odds begin the next round.

The first log-odds are those of `labelops.nn.bag_regression`. Without any, as published, neighbours
and counts alone have to break the symmetry between classes: on tables with large bags they did not
(`benchmarks/proportions.py`). How much neighbours may say is decided by the counts of held-out
bags, which the log-odds and the propagation have not seen; if these predict the counts best with no
say of neighbours at all, they get none. In the first round neighbours are found by features, which
know of no count. In a later one they are found in an embedding that was fitted to beliefs which
agree with all counts, those of held-out bags too: there the choice favours neighbours.
"""

# N items, B bags, D features, V dimensions of vectors

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from labelops.fast.cardinality import marginals
from labelops.fast.neighbours import find_neighbours
from labelops.fast.propagate import propagate
from labelops.nn.bag_objectives import SoftLabels
from labelops.nn.bag_regression import BagModel, bag_log_odds, fit_bag_model, refit_bag_model
from labelops.nn.bags import BagTraining, Fitted, fit, hold_out, logits_of, whole_bags
from labelops.proportions.counts import Counts, free_counts, hard_counts
from labelops.proportions.edges import (
    Edges,
    edges_of_neighbours,
    kernel_weights,
    no_edges,
    normalise_by_degree,
)

STRENGTHS = (0.0, 0.3, 1.0, 3.0)
"""Of neighbours, tried on held-out bags; 0 leaves every bag by itself."""

SURE = 2.0
"""Standard errors by which a larger strength must explain held-out bags better."""

BAG_WEIGHT = 0.1
"""Weight of the divergence of bags beside the cross-entropy of items: that of the paper."""

SWEEPS = 100


class Start(NamedTuple):
    """Log-odds of single items to begin with.

    Attributes
    ----------
    model : fitted to all bags.
    log_odds : of all items under it, shape (N,).
    held_logits : of all items under the same model fitted without the held-out bags, shape (N,).
    held_out : those bags, int64.
    """

    model: BagModel
    log_odds: np.ndarray
    held_logits: np.ndarray
    held_out: np.ndarray


class Round(NamedTuple):
    """What a round found.

    Attributes
    ----------
    beliefs : P(y_i = 1), float64, shape (N,); those of a bag sum to its count.
    log_odds : q, before the count had its say, shape (N,).
    n_open : components of bags whose messages did not settle.
    fitted : the network that was fitted to the beliefs.
    """

    beliefs: np.ndarray
    log_odds: np.ndarray
    n_open: int
    fitted: Fitted


def begin(
    features: np.ndarray,
    start: np.ndarray,
    positives: np.ndarray,
    *,
    held_out: float = 0.15,
    n_fourier: int = 300,
    seed: int,
) -> Start:
    """Fit the regression on totals, to all bags and to all but some.

    Parameters
    ----------
    features, start, positives, n_fourier
        As for `labelops.nn.bag_regression.fit_bag_model`.
    held_out
        Share of the bags that are left out once.
    seed
        For the Fourier features and the choice of held-out bags.
    """
    model = fit_bag_model(features, start, positives, n_fourier=n_fourier, seed=seed)
    held = hold_out(len(start) - 1, share=held_out, seed=seed)
    rest = np.setdiff1d(np.arange(len(start) - 1), held)
    items = whole_bags(rest, start).items.numpy()
    cut = np.concatenate([[0], np.cumsum(np.diff(start)[rest])])
    held_logits = refit_bag_model(model, features[items], cut, positives[rest])
    return Start(model, bag_log_odds(model, features), bag_log_odds(held_logits, features), held)


def neighbour_edges(
    vectors: np.ndarray, *, k: int = 5, flat_limit: int = 50_000, n_threads: int = 2
) -> Edges:
    """Return edges between neighbours, normalised by degree, of strength 1.

    Weights fall with the Euclidean distance in units of the median distance of neighbours, so that
    the scale of the vectors does not matter.

    Parameters
    ----------
    vectors
        Shape (N, V).
    k, flat_limit, n_threads
        As for `labelops.fast.neighbours.find_neighbours`.
    """
    single = np.ascontiguousarray(vectors, np.float32)
    found = find_neighbours(
        single, k=k, metric="euclidean", flat_limit=flat_limit, n_threads=n_threads
    ).neighbours
    known = found.distances[np.isfinite(found.distances)]
    unit = max(float(np.median(known)) if len(known) else 1.0, 1e-12)
    edges = edges_of_neighbours(found.indices, kernel_weights(found.distances / unit, strength=1.0))
    return normalise_by_degree(edges, n_items=len(single), strength=1.0)


def strengthened(edges: Edges, *, strength: float) -> Edges:
    """Return edges with their weights multiplied; none for a strength of 0."""
    return edges._replace(weight=edges.weight * strength) if strength else no_edges()


def choose_strength(
    held_logits: np.ndarray,
    start: np.ndarray,
    positives: np.ndarray,
    edges: Edges,
    held_out: np.ndarray,
    *,
    strengths: Sequence[float] = STRENGTHS,
    n_threads: int = 2,
) -> float:
    """Return how much neighbours should say: the strength that predicts held-out counts best.

    Parameters
    ----------
    held_logits
        Log-odds of items that have not seen the counts of held-out bags, shape (N,).
    start, positives
        Bags and their counts; those of held-out bags are used to compare only.
    edges
        Of strength 1. Between neighbours by an embedding that was fitted to all counts they have
        seen those of held-out bags, and the choice favours them.
    held_out
        Bags, shape (M,).
    strengths
        Tried from the smallest up.

    Returns
    -------
    Of those tried, the best by log P(count) under the propagated log-odds; a larger one only if its
    mean gain over bags is `SURE` standard errors above 0.
    """
    if not len(held_out):
        return float(strengths[0])
    counts, free = hard_counts(positives), free_counts(len(positives))
    is_held = np.isin(np.arange(len(positives)), held_out)
    open_counts = Counts(*(np.where(is_held, b, a) for a, b in zip(counts, free, strict=True)))
    items = whole_bags(held_out, start).items.numpy()
    cut = np.concatenate([[0], np.cumsum(np.diff(start)[held_out])])
    best: np.ndarray | None = None
    chosen = float(strengths[0])
    for strength in strengths:
        found = propagate(
            held_logits,
            start,
            open_counts,
            strengthened(edges, strength=strength),
            max_sweeps=SWEEPS,
            n_threads=n_threads,
        )
        told = marginals(found.log_odds[items], cut, hard_counts(positives[held_out]))
        if best is None:
            best = told.log_evidence
            continue
        gain = told.log_evidence - best
        error = gain.std(ddof=1) / np.sqrt(len(gain)) if len(gain) > 1 else np.inf
        if gain.mean() > SURE * error:
            best, chosen = told.log_evidence, float(strength)
    return chosen


def play_round(
    features: np.ndarray,
    log_odds: np.ndarray,
    start: np.ndarray,
    positives: np.ndarray,
    edges: Edges,
    *,
    training: BagTraining,
    seed: int,
    bag_weight: float = BAG_WEIGHT,
    n_threads: int = 2,
) -> Round:
    """Bring neighbours and counts into log-odds, and fit a network to what comes out.

    Parameters
    ----------
    features
        What the network sees, shape (N, D).
    log_odds
        h of single items; zeros for nothing, shape (N,).
    start, positives
        Bags and their counts.
    edges
        With the strength they are to have.
    training, seed
        As for `fit`.
    bag_weight
        λ of `labelops.nn.bag_objectives.SoftLabels`.
    n_threads
        For the propagation; does not change the answer.
    """
    found = propagate(
        log_odds,
        start,
        hard_counts(positives),
        edges,
        max_sweeps=SWEEPS,
        n_threads=n_threads,
    )
    targets = np.stack([1 - found.beliefs, found.beliefs], axis=1)
    counts = np.stack([np.diff(start) - positives, positives], axis=1)
    objective = SoftLabels(targets, start, counts, bag_weight=bag_weight)
    fitted = fit(features, start, counts, objective, training=training, seed=seed)
    n_open = int((~found.convergence.converged).sum())
    return Round(found.beliefs, found.log_odds, n_open, fitted)


def net_log_odds(fitted: Fitted, features: np.ndarray) -> np.ndarray:
    """Return the log-odds of class 1 against class 0, shape (N,)."""
    logits = logits_of(fitted.net, features)
    return np.asarray(logits[:, 1] - logits[:, 0])
