"""The opinion of class means: how near an item lies to the mean of every class.

A mean of many items hardly moves when a part of their labels is wrong at random, however large that
part is, while every classifier that is fitted to labels gives way to some of them.
"""

# N items, D features, K classes, F folds

from typing import NamedTuple

import numpy as np
from scipy.special import softmax

from labelops.calibration import log_safe
from labelops.fast.products import affine
from labelops.temperature import fit_temperature

MAX_CELLS = 1 << 25
"""Items × features that means are taken of stay below it: 128 MiB."""

WORTHWHILE_CELLS = 1 << 20
"""Features × classes up to which the means of all folds stay small, unless they are asked for."""

SCALE_ITEMS = 20_000
"""The scale is fitted on so many items."""

BLOCK_ROWS = 4096


class Prototypes(NamedTuple):
    """Means of the classes, outside each fold.

    Attributes
    ----------
    spread : standard deviation of every feature, float32, shape (D,).
    center : mean of all items outside a fold, float32, shape (F, D).
    means : directions from there to the means of the classes, of length one, or 0 of a class
        without items; float32, shape (F, K, D).
    temperature : by which cosines are divided, float64, shape ().
    """

    spread: np.ndarray
    center: np.ndarray
    means: np.ndarray
    temperature: np.ndarray


def n_items(n_features: int) -> int:
    """Return of how many items means are taken at most.

    Examples
    --------
    >>> n_items(512)
    65536
    """
    return max(1, MAX_CELLS // max(n_features, 1))


def fit_prototypes(
    features: np.ndarray, given: np.ndarray, fold: np.ndarray, *, n_classes: int, n_folds: int
) -> Prototypes:
    """Take the means of every class over the items outside each fold.

    Parameters
    ----------
    features
        Finite, shape (N, D).
    given, fold
        Class ids and folds, shape (N,).
    n_classes, n_folds
        K, F.

    Notes
    -----
    O(N D). The temperature is that at which the given labels are likeliest, out of fold.

    References
    ----------
    Snell, Swersky, Zemel: Prototypical networks for few-shot learning. NeurIPS 2017 (means as
    classifiers). Lee et al.: CleanNet. CVPR 2018 (cosine to class prototypes tells wrong labels).

    Examples
    --------
    >>> x = np.repeat([[1.0, 0.0], [0.0, 1.0]], 50, axis=0)
    >>> found = fit_prototypes(x, np.repeat([0, 1], 50), np.arange(100) % 2, n_classes=2, n_folds=2)
    >>> predict_prototypes(found, x[[0, 99]], np.array([0, 1])).argmax(axis=1).tolist()
    [0, 1]
    """
    n, width = features.shape
    spread = np.ones(width, np.float32)
    if n:
        deviation = features.std(axis=0, dtype=np.float64)
        spread = np.where(deviation > 0, deviation, 1).astype(np.float32)
    sums, counts = np.zeros((n_folds, n_classes, width)), np.zeros((n_folds, n_classes))
    for start in range(0, n, BLOCK_ROWS):
        here = slice(start, start + BLOCK_ROWS)
        np.add.at(sums, (fold[here], given[here]), features[here] / spread)
        np.add.at(counts, (fold[here], given[here]), 1)
    sums, counts = sums.sum(axis=0) - sums, counts.sum(axis=0) - counts
    center = sums.sum(axis=1) / np.maximum(counts.sum(axis=1), 1)[:, None]
    means = sums / np.maximum(counts, 1)[:, :, None] - center[:, None]
    means[counts == 0] = 0
    found = Prototypes(spread, center.astype(np.float32), _of_length_one(means), np.array(1.0))
    sample = slice(0, SCALE_ITEMS)
    if n == 0 or n_classes < 2:
        return found
    probs = predict_prototypes(found, features[sample], fold[sample])
    temperature = fit_temperature(log_safe(probs), given[sample])
    return found._replace(temperature=np.array(float(temperature)))


def _of_length_one(rows: np.ndarray) -> np.ndarray:
    length = np.linalg.norm(rows, axis=-1, keepdims=True)
    return (rows / np.where(length > 0, length, 1)).astype(np.float32)


def predict_prototypes(
    prototypes: Prototypes, features: np.ndarray, fold: np.ndarray
) -> np.ndarray:
    """Return softmax(cos(x − center, mean) / temperature) with the means outside each item's fold.

    float32, shape (N, K). A row is the same whatever rows are beside it.

    Parameters
    ----------
    prototypes
        From `fit_prototypes`.
    features, fold
        Of the items, shapes (N, D) and (N,).
    """
    n_classes = prototypes.means.shape[1]
    probs = np.empty((len(features), n_classes), np.float32)
    nothing = np.zeros(n_classes, np.float32)
    for f in np.unique(fold).tolist():
        rows, means = np.flatnonzero(fold == f), prototypes.means[f].T
        for start in range(0, len(rows), BLOCK_ROWS):
            some = rows[start : start + BLOCK_ROWS]
            x = _of_length_one(features[some] / prototypes.spread - prototypes.center[f])
            cosines = affine(x, means, nothing).astype(np.float64)
            probs[some] = softmax(cosines / float(prototypes.temperature), axis=1)
    return probs
