"""Class counts of bags counted through, compiled: what `labelops.proportions.classes` defines."""

from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np

from labelops.fast.jit import compiled
from labelops.proportions.classes import MOST_STATES, ClassPosterior, class_posterior

# N items, B bags, K classes, S states of a bag


@compiled()
def _bag(p, counts):  # type: ignore[no-untyped-def]
    """Replace p (n, K) by the posterior given counts (K,); counts of 0 are allowed."""
    n, n_classes = p.shape
    first = np.argmax(counts)
    stride = np.zeros(n_classes, np.int64)
    n_states = 1
    for k in range(n_classes):
        if k != first and counts[k] > 0:
            stride[k] = n_states
            n_states *= counts[k] + 1
    # room[k, s]: how many of class k have been counted in state s.
    room = np.zeros((n_classes, n_states), np.int64)
    for k in range(n_classes):
        if stride[k]:
            for s in range(n_states):
                room[k, s] = s // stride[k] % (counts[k] + 1)
    forward = np.zeros((n, n_states))
    forward[0, 0] = 1.0
    for i in range(n - 1):
        for s in range(n_states):
            total = p[i, first] * forward[i, s]
            for k in range(n_classes):
                if room[k, s] > 0:
                    total += p[i, k] * forward[i, s - stride[k]]
            forward[i + 1, s] = total
    backward, before = np.zeros(n_states), np.zeros(n_states)
    backward[n_states - 1] = 1.0
    marginal = np.empty(n_classes)
    for i in range(n - 1, -1, -1):
        marginal[:] = 0.0
        for s in range(n_states):
            here = forward[i, s]
            marginal[first] += here * backward[s]
            total = p[i, first] * backward[s]
            for k in range(n_classes):
                if stride[k] and room[k, s] < counts[k]:
                    after = backward[s + stride[k]]
                    marginal[k] += here * after
                    total += p[i, k] * after
            before[s] = total
        backward, before = before, backward
        norm = 0.0
        for k in range(n_classes):
            marginal[k] *= p[i, k]
            norm += marginal[k]
        for k in range(n_classes):
            p[i, k] = marginal[k] / norm


@compiled()
def _some(beliefs, start, counts, bags):  # type: ignore[no-untyped-def]
    for b in bags:
        _bag(beliefs[start[b] : start[b + 1]], counts[b])


def count_bags(
    beliefs: np.ndarray,
    start: np.ndarray,
    counts: np.ndarray,
    bags: np.ndarray,
    *,
    n_threads: int = 2,
) -> None:
    """Do what `labelops.proportions.classes.count_bags` does, `n_threads` bags at a time."""
    parts = np.array_split(bags, max(1, min(4 * n_threads, len(bags))))
    with ThreadPoolExecutor(n_threads) as pool:
        list(pool.map(partial(_some, beliefs, start, counts), parts))


def fast_class_posterior(
    logits: np.ndarray,
    start: np.ndarray,
    counts: np.ndarray,
    *,
    most_states: int = MOST_STATES,
    n_threads: int = 2,
) -> ClassPosterior:
    """Do what `labelops.proportions.classes.class_posterior` does, faster where it is exact.

    `n_threads` bags are worked on side by side; the answer does not depend on it.

    Examples
    --------
    >>> posterior = fast_class_posterior(np.zeros((4, 3)), np.array([0, 4]), np.array([[2, 1, 1]]))
    >>> posterior.beliefs[0].round(3).tolist()
    [0.5, 0.25, 0.25]
    """
    count = partial(count_bags, n_threads=n_threads)
    return class_posterior(logits, start, counts, most_states=most_states, count=count)
