"""Learning from counts of bags, in rounds: what items say, neighbours and counts, a network.

A round takes log-odds of single items, lets neighbours and counts have their say (belief
propagation), and fits a network to the beliefs. Its embedding and log-odds begin the next round.

The first log-odds are those of `labelops.nn.bag_start`. Without any, as published, neighbours and
counts alone have to break the symmetry between classes: on tables with large bags they did not
(`benchmarks/proportions.py`). How much neighbours may say is decided by the counts of held-out
bags, which the log-odds and the propagation have not seen; if these predict the counts best with no
say of neighbours at all, they get none. In the first round neighbours are found by features, which
know of no count. In a later one they are found in an embedding that was fitted to beliefs which
agree with all counts, those of held-out bags too: there the choice favours neighbours.
"""

# N items, B bags, K classes, V dimensions of vectors

import numpy as np
from scipy.special import softmax

from labelops.fast.cardinality import marginals
from labelops.fast.class_propagate import propagate_classes
from labelops.fast.neighbours import find_neighbours
from labelops.fast.propagate import propagate
from labelops.nn.bags import rows_of_bags
from labelops.proportions.class_propagate import PropagatedClasses
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


def neighbour_edges(
    vectors: np.ndarray, *, k: int = 5, flat_limit: int = 50_000, n_threads: int = 2
) -> Edges:
    """Return edges between neighbours, normalised by degree, of strength 1.

    Weights fall with the Euclidean distance in units of the median distance of neighbours, so that
    the scale of the vectors does not matter; see `labelops.fast.neighbours.find_neighbours`.
    """
    single = np.ascontiguousarray(vectors, np.float32)
    indices, distances = find_neighbours(
        single, k=k, metric="euclidean", flat_limit=flat_limit, n_threads=n_threads
    ).neighbours
    known = distances[np.isfinite(distances)]
    unit = max(float(np.median(known)) if len(known) else 1.0, 1e-12)
    edges = edges_of_neighbours(indices, kernel_weights(distances / unit, strength=1.0))
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

    Returns
    -------
    Of `STRENGTHS`, the best by log P(count) under the propagated log-odds; a larger one only if its
    mean gain over bags is `SURE` standard errors above 0.
    """
    if not len(held_out):
        return STRENGTHS[0]
    counts, free = hard_counts(positives), free_counts(len(positives))
    is_held = np.isin(np.arange(len(positives)), held_out)
    open_counts = Counts(*(np.where(is_held, b, a) for a, b in zip(counts, free, strict=True)))
    items, cut = rows_of_bags(held_out, start)
    best: np.ndarray | None = None
    chosen = STRENGTHS[0]
    for strength in STRENGTHS:
        propagated = propagate(
            held_logits,
            start,
            open_counts,
            strengthened(edges, strength=strength),
            max_sweeps=SWEEPS,
            n_threads=n_threads,
        )
        posterior = marginals(propagated.log_odds[items], cut, hard_counts(positives[held_out]))
        if best is None:
            best = posterior.log_evidence
            continue
        gain = posterior.log_evidence - best
        error = gain.std(ddof=1) / np.sqrt(len(gain)) if len(gain) > 1 else np.inf
        if gain.mean() > SURE * error:
            best, chosen = posterior.log_evidence, strength
    return chosen


def choose_class_strength(
    held_logits: np.ndarray,
    start: np.ndarray,
    counts: np.ndarray,
    edges: Edges,
    held_out: np.ndarray,
    *,
    n_threads: int = 2,
) -> float:
    """Return how much neighbours should say: the middle choice of all classes, the lower of two.

    `choose_strength` chooses for each class against the rest, by logits and counts of shape (N, K)
    and (B, K).
    """
    if not len(edges.first):
        return 0.0
    n_classes = counts.shape[1]
    probs, chosen = softmax(held_logits, axis=1), []
    for k in [1] if n_classes == 2 else range(n_classes):
        p = np.clip(probs[:, k], 1e-12, 1 - 1e-12)
        log_odds = np.log(p) - np.log1p(-p)
        chosen.append(
            choose_strength(log_odds, start, counts[:, k], edges, held_out, n_threads=n_threads)
        )
    return sorted(chosen)[(len(chosen) - 1) // 2]


def spread_beliefs(
    logits: np.ndarray,
    start: np.ndarray,
    counts: np.ndarray,
    edges: Edges,
    *,
    max_sweeps: int = SWEEPS,
    n_threads: int = 2,
) -> PropagatedClasses:
    """Let neighbours and class counts have their say.

    Parameters
    ----------
    logits
        Of single items, up to a constant a row, ordered by bag, shape (N, K).
    start
        Bag b has the items start[b] … start[b + 1] − 1, int64, shape (B + 1,).
    counts
        Of classes, integers; rows sum to the size of the bag, shape (B, K).
    edges
        With the strength they are to have.
    max_sweeps, n_threads
        As for `labelops.fast.propagate.propagate`.

    Examples
    --------
    >>> counts = np.array([[2, 1, 1]])
    >>> propagated = spread_beliefs(np.zeros((4, 3)), np.array([0, 4]), counts, no_edges())
    >>> propagated.beliefs[0].round(3).tolist()
    [0.5, 0.25, 0.25]
    """
    if counts.shape[1] == 2:
        two = propagate(
            logits[:, 1] - logits[:, 0],
            start,
            hard_counts(counts[:, 1]),
            edges,
            max_sweeps=max_sweeps,
            n_threads=n_threads,
        )
        beliefs = np.stack([1 - two.beliefs, two.beliefs], axis=1)
        q = np.stack([np.zeros_like(two.log_odds), two.log_odds], axis=1)
        return PropagatedClasses(beliefs, q, np.ones(len(counts), bool), two.convergence)
    return propagate_classes(
        logits, start, counts, edges, max_sweeps=max_sweeps, n_threads=n_threads
    )
