"""Candidate sets by listing all of them."""

import itertools

import numpy as np


def listed_posterior(p: np.ndarray, candidates: set[int], wrong: float) -> np.ndarray:
    """P(true class | set), last that of no candidate: all sets of that size, drawn for every class.

    With probability 1 − wrong one of the sets with the true class, else one of those without it.
    """
    n_classes, size = len(p), len(candidates)
    found = np.zeros(n_classes)
    for true in range(n_classes):
        sets = [set(s) for s in itertools.combinations(range(n_classes), size)]
        having, lacking = [s for s in sets if true in s], [s for s in sets if true not in s]
        # Where every set of a size has the true class, it cannot lack it.
        rate = wrong if lacking else 0.0
        for drawn, share in ((having, 1 - rate), (lacking, rate)):
            for s in drawn:
                if s == candidates:
                    found[true] += p[true] * share / len(drawn)
    found /= found.sum()
    inside = np.array([k in candidates for k in range(n_classes)])
    return np.append(np.where(inside, found, 0.0), found[~inside].sum())


def weights_by_loops(logits: np.ndarray, is_candidate: np.ndarray, fold: np.ndarray) -> np.ndarray:
    """Weights of every item's candidates by the network of its own fold, one number at a time."""
    n, n_classes = is_candidate.shape
    weights = np.zeros((n, n_classes))
    for i in range(n):
        z = logits[fold[i], i]
        total = sum(np.exp(z[k]) for k in range(n_classes) if is_candidate[i, k])
        for k in range(n_classes):
            if is_candidate[i, k]:
                weights[i, k] = np.exp(z[k]) / total
    return weights
