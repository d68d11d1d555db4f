"""Labels of bags over several classes by listing all of them."""

import itertools
from collections.abc import Iterable

import numpy as np


def listed_classes(
    logits: np.ndarray,
    start: np.ndarray,
    counts: np.ndarray,
    edges: Iterable[tuple[int, int, float]] = (),
) -> tuple[np.ndarray, float]:
    """P(y_i = k) over all labelings that have the counts, and the log of their summed weights."""
    n, n_classes = logits.shape
    edges = list(edges)
    found, total = np.zeros((n, n_classes)), 0.0
    for labels in itertools.product(range(n_classes), repeat=n):
        y = np.array(labels, int)
        bags = [y[a:b] for a, b in itertools.pairwise(start)]
        if all(
            (np.bincount(bag, minlength=n_classes) == c).all()
            for bag, c in zip(bags, counts, strict=True)
        ):
            cost = sum(w for a, b, w in edges if y[a] != y[b])
            weight = np.exp(logits[np.arange(n), y].sum() - cost)
            found[np.arange(n), y] += weight
            total += weight
    return found / total, float(np.log(total))
