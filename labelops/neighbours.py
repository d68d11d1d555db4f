"""Nearest neighbours, and what they say about an item: unlike all others, or the same as another.

Distances are cosine beyond three dimensions and Euclidean else. Whoever finds the candidates (an
index works in single precision and in blocks), distances are computed here, from the two vectors
alone, in double precision: the same pair has the same distance wherever and whenever it is asked
for, in both directions, and identical vectors have distance 0.
"""

# N items, D dimensions, k neighbours, C candidates

from typing import NamedTuple

import numpy as np

OUTLIER_THRESHOLD = 0.37037
"""cleanlab's: items beyond Q3 + (1 / 0.37037 − 1) · IQR of the mean distance are outliers."""


class Neighbours(NamedTuple):
    """The k nearest neighbours of N items, nearest first, ties by smaller position.

    Attributes
    ----------
    indices : positions, int64, shape (N, k).
    distances : float64, shape (N, k).
    """

    indices: np.ndarray
    distances: np.ndarray


def metric_for(n_dims: int) -> str:
    """Return the metric that suits a number of dimensions."""
    return "cosine" if n_dims > 3 else "euclidean"


def prepare(vectors: np.ndarray, *, metric: str) -> np.ndarray:
    """Return vectors in double precision, of length one for the cosine metric.

    A vector of zeros has no direction and stays.
    """
    exact = np.ascontiguousarray(vectors, np.float64)
    if metric == "euclidean":
        return exact
    length = np.sqrt(np.square(exact).sum(axis=-1, keepdims=True))
    return np.asarray(exact / np.where(length > 0, length, 1.0))


def distance(a: np.ndarray, b: np.ndarray, *, metric: str) -> np.ndarray:
    """Return the distance of prepared vectors, pair by pair.

    Parameters
    ----------
    a, b
        Results of `prepare`, shapes (..., D) that broadcast against each other.
    metric
        ``"cosine"`` or ``"euclidean"``.

    Returns
    -------
    float64, shape (...). The cosine distance is 1 − cos, from 0 to 2.

    Notes
    -----
    1 − cos is computed as half the squared difference of unit vectors: 1 − ⟨a, b⟩ would leave a
    distance of some 1e-16, or less than 0, between equal vectors.

    Examples
    --------
    >>> a, b = prepare(np.array([[3.0, 0, 0, 0], [0, 2.0, 0, 0]]), metric="cosine")
    >>> float(distance(a, b, metric="cosine")), float(distance(a, a, metric="cosine"))
    (1.0, 0.0)
    """
    square = np.square(a - b).sum(axis=-1)
    if metric == "euclidean":
        return np.asarray(np.sqrt(square))
    no_direction = ~a.any(axis=-1) ^ ~b.any(axis=-1)
    return np.where(no_direction, 1.0, square / 2)


def nearest(vectors: np.ndarray, *, k: int = 10, metric: str | None = None) -> Neighbours:
    """Find the k nearest neighbours by comparing all pairs.

    Parameters
    ----------
    vectors
        Finite numbers, shape (N, D).
    k
        How many; N − 1 if there are fewer others.
    metric
        ``"cosine"`` or ``"euclidean"``; by default what `metric_for` says.

    Returns
    -------
    Neighbours. No item is its own neighbour.

    Notes
    -----
    O(N² D) time: the definition, and what faster ways are tested against.

    Examples
    --------
    >>> nearest(np.array([[0.0], [1.0], [3.0]]), k=1).indices.tolist()
    [[1], [0], [1]]
    """
    n, n_dims = vectors.shape
    metric = metric or metric_for(n_dims)
    ready = prepare(vectors, metric=metric)
    k = min(k, max(n - 1, 0))
    neighbours = Neighbours(np.empty((n, k), np.int64), np.empty((n, k)))
    for i in range(n):
        others = np.delete(np.arange(n), i)
        row = choose(distance(ready[i], ready[others], metric=metric)[None], others[None], k=k)
        neighbours.indices[i], neighbours.distances[i] = row.indices[0], row.distances[0]
    return neighbours


def choose(distances: np.ndarray, positions: np.ndarray, *, k: int) -> Neighbours:
    """Choose the k nearest of C ≥ k candidates, shape (N, C); ties by smaller position."""
    order = np.lexsort([positions, distances], axis=-1)[:, :k]
    return Neighbours(
        np.take_along_axis(positions, order, axis=1), np.take_along_axis(distances, order, axis=1)
    )


def with_copies(
    neighbours: Neighbours, copies: np.ndarray, *, k: int, rows: slice = slice(None)
) -> np.ndarray:
    """Return the distances to the k nearest items, where vectors may stand for several items.

    Parameters
    ----------
    neighbours
        Among distinct vectors, shape (U, k').
    copies
        How many items have each vector, int64, shape (U,).
    k
        How many neighbours of an item; at most the number of other items.
    rows
        For which of the vectors.

    Returns
    -------
    float64, shape (U, k) or fewer rows, ascending: an item's own copies come first, at distance 0,
    and a neighbour counts as often as it has copies.

    Examples
    --------
    >>> n = Neighbours(np.array([[1], [0]]), np.array([[0.5], [0.5]]))
    >>> with_copies(n, np.array([1, 3]), k=3).tolist()
    [[0.5, 0.5, 0.5], [0.0, 0.0, 0.5]]
    """
    indices = neighbours.indices[rows]
    often = np.where(indices >= 0, copies[np.maximum(indices, 0)], 0)
    steps = np.concatenate([np.zeros((len(indices), 1)), neighbours.distances[rows]], axis=1)
    reach = np.cumsum(np.concatenate([copies[rows, None] - 1, often], axis=1), axis=1)
    # The j-th neighbour is the first vector within whose reach j copies have been counted.
    which = (reach[:, None, :] <= np.arange(k)[None, :, None]).sum(axis=2)
    return np.take_along_axis(steps, np.minimum(which, steps.shape[1] - 1), axis=1)


def outlier_scores(mean_distance: np.ndarray) -> np.ndarray:
    """Return how ordinary items are: exp(−a_i / median a), in [0, 1]; low is suspicious.

    a_i is the mean distance of an item to its k nearest neighbours.

    References
    ----------
    cleanlab 2.9, Datalab's outlier check.

    Examples
    --------
    >>> outlier_scores(np.array([1.0, 1.0, 3.0])).round(3).tolist()
    [0.368, 0.368, 0.05]
    """
    if not len(mean_distance):
        return np.zeros(0)
    floor = 100 * np.finfo(np.float64).eps
    scores = np.exp(-mean_distance / max(float(np.median(mean_distance)), floor))
    # A distance of rounding size is none.
    return np.asarray(np.where(mean_distance < floor, 1.0, scores))


def outlier_limit(mean_distance: np.ndarray) -> float:
    """Return the mean distance beyond which an item is an outlier.

    Q3 + (1 / 0.37037 − 1) · (Q3 − Q1) of the mean distances: Tukey's fence with 1.7 instead of 1.5.

    Examples
    --------
    >>> round(outlier_limit(np.array([1.0, 2.0, 3.0])), 2)
    4.2
    """
    if not len(mean_distance):
        return float("inf")
    low, high = np.percentile(mean_distance, [25, 75])
    return float(high + (1 / OUTLIER_THRESHOLD - 1) * (high - low))
