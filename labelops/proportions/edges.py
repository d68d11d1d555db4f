"""Pairs of items that should rather have the same label, from lists of nearest neighbours."""

# N items, k neighbours, E edges

from typing import NamedTuple

import numpy as np
from scipy.sparse import coo_array


class Edges(NamedTuple):
    """Undirected edges, each pair of items once.

    Attributes
    ----------
    first, second : items, first < second, int64, shape (E,).
    weight : w ≥ 0, log-odds of the two being equal that the edge adds at most, float64, shape (E,).
    """

    first: np.ndarray
    second: np.ndarray
    weight: np.ndarray


class Inbox(NamedTuple):
    """The two directions of all edges, ordered by the item that they lead to.

    Attributes
    ----------
    start : item i receives messages start[i] … start[i + 1] − 1, int64, shape (N + 1,).
    source : the item that sends each, shape (2 E,).
    reverse : where in this list the message back is, shape (2 E,).
    weight : of the edge, float64, shape (2 E,).
    """

    start: np.ndarray
    source: np.ndarray
    reverse: np.ndarray
    weight: np.ndarray


def no_edges() -> Edges:
    """Return no edges, which leaves every bag by itself."""
    return Edges(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0))


def kernel_weights(distances: np.ndarray, *, strength: float) -> np.ndarray:
    """Return w = λ e^−d, the Matérn kernel of smoothness 1/2 and unit length.

    d ≥ 0, +∞ for no neighbour; absolute, so features are best standardised before. λ ≥ 0.

    Examples
    --------
    >>> kernel_weights(np.array([0.0, np.inf]), strength=2.0).tolist()
    [2.0, 0.0]
    """
    return np.asarray(strength * np.exp(-np.asarray(distances, np.float64)))


def edges_of_neighbours(indices: np.ndarray, weights: np.ndarray) -> Edges:
    """Return an edge for every pair of items of which one is a neighbour of the other.

    Parameters
    ----------
    indices
        Neighbours of each item, −1 for none, shape (N, k).
    weights
        w ≥ 0 of each, shape (N, k); of a pair that is in it twice with different ones, the larger.

    Returns
    -------
    Edges, ordered by first and second; without those of weight 0 or from an item to itself.

    Raises
    ------
    ValueError
        If a neighbour is not an item, or a weight negative or not finite.

    Examples
    --------
    >>> edges = edges_of_neighbours(np.array([[1], [0], [1]]), np.ones((3, 1)))
    >>> edges.first.tolist(), edges.second.tolist()
    ([0, 1], [1, 2])
    """
    n, k = indices.shape
    if indices.size and not (indices.max() < n and indices.min() >= -1):
        raise ValueError(f"edges_of_neighbours: neighbours must be items 0 … {n - 1}, or −1")
    a, b = np.repeat(np.arange(n), k), indices.ravel().astype(np.int64)
    w = np.asarray(weights, np.float64).ravel()
    kept = (b >= 0) & (a != b) & (w != 0)
    a, b, w = a[kept], b[kept], w[kept]
    if not (np.isfinite(w) & (w > 0)).all():
        raise ValueError("edges_of_neighbours: weights must be finite and not negative")
    first, second = np.minimum(a, b), np.maximum(a, b)
    key = first * n + second
    order = np.argsort(key, kind="stable")
    key = key[order]
    starts = np.flatnonzero(np.concatenate([[True], key[1:] != key[:-1]])) if len(key) else key
    largest = np.maximum.reduceat(w[order], starts) if len(key) else w
    return Edges(key[starts] // n, key[starts] % n, largest)


def normalise_by_degree(edges: Edges, *, n_items: int, strength: float) -> Edges:
    """Return edges of weight λ w_ij / √(d_i d_j), with d_i = Σ_j w_ij.

    An item with many neighbours then listens to each of them less. The weights that come in are
    best those of `kernel_weights` with strength 1; their scale does not matter.

    Examples
    --------
    >>> pair = Edges(np.array([0, 1]), np.array([1, 2]), np.array([0.5, 0.5]))
    >>> normalise_by_degree(pair, n_items=3, strength=2.0).weight.round(3).tolist()
    [1.414, 1.414]
    """
    degree = np.bincount(edges.first, edges.weight, n_items)
    degree += np.bincount(edges.second, edges.weight, n_items)
    root = np.sqrt(degree)
    weight = strength * edges.weight / (root[edges.first] * root[edges.second])
    return edges._replace(weight=weight)


def inbox_of(edges: Edges, *, n_items: int) -> Inbox:
    """Return the messages that each item receives, from its neighbours in order.

    Raises
    ------
    ValueError
        If an edge is not of two items in order, is there twice, or its weight is not finite and at
        least 0.
    """
    a, b, w = edges
    if len(a) and not ((a >= 0) & (a < b) & (b < n_items)).all():
        raise ValueError(f"edges: items must be 0 ≤ first < second < {n_items}")
    if not (np.isfinite(w) & (w >= 0)).all():
        raise ValueError("edges: weights must be finite and not negative")
    n_both = 2 * len(a)
    ends = (np.concatenate([a, b]), np.concatenate([b, a]))
    # A sparse matrix is what lists ends by row; its values are the places that they came from.
    matrix = coo_array((np.arange(n_both), ends), shape=(n_items, n_items)).tocsr()
    if matrix.nnz != n_both:
        raise ValueError("edges: a pair of items is there twice, which would double its weight")
    narrow = np.int32 if max(n_both, n_items) < 2**31 else np.int64
    place = np.empty(n_both, narrow)
    place[matrix.data] = np.arange(n_both, dtype=narrow)
    reverse = np.roll(place, len(a))[matrix.data]
    return Inbox(
        matrix.indptr.astype(np.int64),
        matrix.indices.astype(narrow),
        reverse,
        np.asarray(w, np.float64)[matrix.data % max(len(a), 1)],
    )
