"""Rounds of learning from class counts of bags, for two classes or more.

Of two classes, all is as in `labelops.nn.bag_rounds`. Of more, neighbours and counts speak of all
classes at once (`labelops.fast.class_propagate`); how much neighbours may say is decided class by
class, each against the rest, on the counts of held-out bags.
"""

# N items, B bags, K classes

from typing import NamedTuple

import numpy as np

from labelops.fast.class_propagate import propagate_classes
from labelops.fast.propagate import propagate
from labelops.nn.bag_rounds import SWEEPS, choose_strength
from labelops.proportions.components import Convergence
from labelops.proportions.counts import hard_counts
from labelops.proportions.edges import Edges
from labelops.proportions.logits import softmax


class ClassSpread(NamedTuple):
    """What neighbours and counts made of logits.

    Attributes
    ----------
    beliefs : P(y_i = k), float64, shape (N, K); those of a bag sum to its counts.
    is_exact : whether the counts of a bag had their say exactly, bool, shape (B,).
    convergence : of the messages of each component of bags.
    """

    beliefs: np.ndarray
    is_exact: np.ndarray
    convergence: Convergence


def spread_beliefs(
    logits: np.ndarray,
    start: np.ndarray,
    counts: np.ndarray,
    edges: Edges,
    *,
    max_sweeps: int = SWEEPS,
    n_threads: int = 2,
) -> ClassSpread:
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
    >>> from labelops.proportions.edges import no_edges
    >>> counts = np.array([[2, 1, 1]])
    >>> found = spread_beliefs(np.zeros((4, 3)), np.array([0, 4]), counts, no_edges())
    >>> found.beliefs[0].round(3).tolist()
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
        return ClassSpread(beliefs, np.ones(len(counts), bool), two.convergence)
    found = propagate_classes(
        logits, start, counts, edges, max_sweeps=max_sweeps, n_threads=n_threads
    )
    return ClassSpread(found.beliefs, found.is_exact, found.convergence)


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

    Parameters
    ----------
    held_logits
        Logits of items that have not seen the counts of held-out bags, shape (N, K).
    start, counts
        Bags and their class counts; those of held-out bags are used to compare only.
    edges
        Of strength 1.
    held_out
        Bags, shape (M,).
    n_threads
        For the propagation; does not change the answer.
    """
    if not len(edges.first):
        return 0.0
    n_classes = counts.shape[1]
    probs, chosen = softmax(held_logits), []
    for k in [1] if n_classes == 2 else range(n_classes):
        p = np.clip(probs[:, k], 1e-12, 1 - 1e-12)
        log_odds = np.log(p) - np.log1p(-p)
        chosen.append(
            choose_strength(log_odds, start, counts[:, k], edges, held_out, n_threads=n_threads)
        )
    return sorted(chosen)[(len(chosen) - 1) // 2]
