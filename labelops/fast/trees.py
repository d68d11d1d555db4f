"""What gradient-boosted trees say of many items."""

from typing import Literal

import numpy as np
from scipy.special import expit, softmax

from labelops.fast.jit import compiled
from labelops.opinions.trees import Trees


@compiled()
def _add_scores(trees, rows, features, first, last, scores):  # type: ignore[no-untyped-def]
    for t in range(first, last):
        for i in range(len(rows)):
            node = trees.root[t]
            while trees.feature[node] >= 0:
                goes_left = features[rows[i], trees.feature[node]] <= trees.threshold[node]
                node = trees.left[node] if goes_left else trees.right[node]
            scores[rows[i], trees.tree_class[t]] += trees.value[node]


def predict_trees(
    trees: Trees,
    features: np.ndarray,
    fold: np.ndarray,
    *,
    link: Literal["softmax", "sigmoid"] = "softmax",
) -> np.ndarray:
    """Return each item's probabilities from the trees that have not seen it.

    Parameters
    ----------
    trees
        From `labelops.opinions.trees.fit_trees`.
    features
        Shape (N, D).
    fold
        Each item's fold, shape (N,).
    link
        From scores to probabilities: softmax for one class an item, sigmoid for a model a class.

    Returns
    -------
    float32, shape (N, K); with softmax, rows sum to one, and a class that no item outside the fold
    has gets 0.
    """
    exact = np.ascontiguousarray(features, np.float64)
    scores = trees.baseline[fold].astype(np.float64)
    for f in range(len(trees.baseline)):
        rows = np.flatnonzero(fold == f)
        first, last = np.searchsorted(trees.tree_fold, [f, f + 1])
        _add_scores(trees, rows, exact, first, last, scores)
    if link == "sigmoid":
        return np.asarray(expit(scores).astype(np.float32))
    # Of a fold outside which there is nothing, nothing is known.
    scores[np.isneginf(scores).all(axis=1)] = 0.0
    return np.asarray(softmax(scores, axis=1).astype(np.float32))
