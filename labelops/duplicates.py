"""Items that are the same thing twice, and those of them whose labels contradict each other."""

# U distinct vectors, k neighbours, E edges

from typing import NamedTuple

import numpy as np
import xxhash
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from labelops.neighbours import Neighbours

NEAR = 0.13
"""cleanlab's: near is closer than 0.13 of the median distance to the nearest neighbour."""

CHANCE = 1e-4
"""Share of items that may have a convincing neighbour by chance alone."""


class Copies(NamedTuple):
    """Items by identical vectors.

    Attributes
    ----------
    first : position of the first item of every distinct vector, ascending; int64, shape (U,).
    vector_of_item : which distinct vector an item has; int64, shape (N,).
    """

    first: np.ndarray
    vector_of_item: np.ndarray


class Edges(NamedTuple):
    """Pairs of distinct vectors, each pair once, a < b; int64, shape (E,)."""

    a: np.ndarray
    b: np.ndarray


def digest_rows(vectors: np.ndarray) -> np.ndarray:
    """Return a 128-bit hash of every row's bytes, as two uint64, shape (N, 2).

    Zero and minus zero are the same number and get the same hash.
    """
    rows = np.ascontiguousarray(vectors + np.zeros((), vectors.dtype))
    digest = xxhash.xxh3_128_digest
    joined = b"".join(digest(row) for row in rows)
    return np.frombuffer(joined, np.uint64).reshape(len(rows), 2)


def group_copies(digests: np.ndarray) -> Copies:
    """Group items with identical vectors by what `digest_rows` gave.

    Different vectors have equal hashes with probability 2⁻¹²⁸.

    Examples
    --------
    >>> copies = group_copies(digest_rows(np.array([[1.0, 2], [0, 0], [1, 2]])))
    >>> copies.first.tolist(), copies.vector_of_item.tolist()
    ([0, 1], [0, 1, 0])
    """
    n = len(digests)
    order = np.lexsort([np.arange(n), digests[:, 1], digests[:, 0]])
    ranked = digests[order]
    begins = np.ones(n, bool)
    begins[1:] = (ranked[1:] != ranked[:-1]).any(axis=1)
    group = np.empty(n, np.int64)
    group[order] = np.cumsum(begins) - 1
    first_of_group = order[begins]
    by_position = np.argsort(first_of_group)
    renumbered = np.empty_like(by_position)
    renumbered[by_position] = np.arange(len(by_position))
    return Copies(first=first_of_group[by_position], vector_of_item=renumbered[group])


def near_limit(first_distance: np.ndarray) -> float:
    """Return the distance below which two items are near duplicates.

    0.13 · median over items of the distance to the nearest neighbour; over items that have no exact
    copy, should more than half have one and the median be 0.
    """
    if len(first_distance) and not np.median(first_distance) > 0:
        first_distance = first_distance[first_distance > 0]
    return NEAR * float(np.median(first_distance)) if len(first_distance) else 0.0


def near_edges(neighbours: Neighbours, *, limit: float) -> Edges:
    """Return the pairs of distinct vectors that are nearer than the limit.

    Examples
    --------
    >>> n = Neighbours(np.array([[1], [0], [1]]), np.array([[0.1], [0.1], [9.0]]))
    >>> near_edges(n, limit=1.0)
    Edges(a=array([0]), b=array([1]))
    """
    return _edges(neighbours, (neighbours.distances < limit) & (neighbours.indices >= 0))


def growth(neighbours: Neighbours) -> float:
    """Return the power g with which the number of neighbours grows with distance.

    g = 1 / median_i mean_j log(d_ik / d_ij), from the distances to all k neighbours of each item;
    for Euclidean distance the intrinsic dimension, for cosine distance half of it.

    Returns
    -------
    float; 0 if there are too few neighbours to tell.

    References
    ----------
    Levina, Bickel: Maximum likelihood estimation of intrinsic dimension. NIPS 2004, equation 8;
    with the median over items, which copies do not move.
    """
    whole = (neighbours.indices >= 0).all(axis=1)
    d = neighbours.distances[whole]
    if d.shape[0] == 0 or d.shape[1] < 3:
        return 0.0
    # Scaled copies have another vector but cosine distance 0.
    tiny = np.finfo(np.float64).tiny
    logs = np.log(np.maximum(d[:, -1:], tiny) / np.maximum(d[:, :-1], tiny))
    middle = float(np.median(logs.mean(axis=1)))
    return 1 / middle if middle > 0 else 0.0


def convincing_edges(neighbours: Neighbours, *, limit: float) -> Edges:
    """Return the near pairs that are also near for the place where they lie.

    Besides `limit`, their distance must be under a share ρ of what either has to its k-th
    neighbour. In a dense region everything is near by a limit for the whole data set (sixteen
    low-contrast pictures of CIFAR-10, by pixels); a copy is near even there. In few dimensions the
    nearest of k neighbours often is much nearer than the last: were neighbours spread evenly, k ·
    ρ^g of the items would have one so near, g from `growth`. ρ is 0.13 or what keeps that under
    one in ten thousand.

    Not one pair of different classes is left on digits, Fashion-MNIST or CIFAR-10 pixels, while
    re-compressed, brightened and noisy copies are still found. Among more than k copies of nearly
    one thing the k-th neighbour is a copy itself, so there only identical ones convince.
    """
    k = neighbours.distances.shape[1]
    power = growth(neighbours)
    if power == 0:
        return Edges(np.zeros(0, np.int64), np.zeros(0, np.int64))
    share = min(NEAR, (CHANCE / k) ** (1 / power))
    is_known = neighbours.indices >= 0
    radius = np.where(is_known, neighbours.distances, -1.0).max(axis=1)
    local = share * np.minimum(radius[:, None], radius[np.where(is_known, neighbours.indices, 0)])
    return _edges(neighbours, is_known & (neighbours.distances < np.minimum(limit, local)))


def _edges(neighbours: Neighbours, chosen: np.ndarray) -> Edges:
    here, column = np.nonzero(chosen)
    there = neighbours.indices[here, column]
    pairs = np.stack([np.minimum(here, there), np.maximum(here, there)], axis=1)
    pairs = np.unique(pairs, axis=0)
    return Edges(pairs[:, 0], pairs[:, 1])


def sets_of(copies: Copies, edges: Edges) -> np.ndarray:
    """Return for every item the position of the first member of its set of duplicates.

    Sets are the connected components of the distinct vectors under the edges.

    Returns
    -------
    int64, shape (N,); −1 for an item without duplicate.

    Examples
    --------
    >>> copies = Copies(np.array([0, 1, 3]), np.array([0, 1, 0, 2]))
    >>> sets_of(copies, Edges(np.array([], int), np.array([], int))).tolist()
    [0, -1, 0, -1]
    """
    n_vectors = len(copies.first)
    ones = np.ones(len(edges.a), np.int8)
    graph = coo_array((ones, (edges.a, edges.b)), shape=(n_vectors, n_vectors))
    n_sets, set_of_vector = connected_components(graph, directed=False)
    set_of_item = set_of_vector[copies.vector_of_item]
    first = np.full(n_sets, len(set_of_item), np.int64)
    np.minimum.at(first, set_of_item, np.arange(len(set_of_item)))
    size = np.bincount(set_of_item, minlength=n_sets)
    return np.where(size[set_of_item] > 1, first[set_of_item], -1)


def has_conflict(set_of_item: np.ndarray, given: np.ndarray) -> np.ndarray:
    """Return which items are in a set (`sets_of`) whose members do not all have the same label.

    Examples
    --------
    >>> has_conflict(np.array([0, -1, 0, 3, 3]), np.array([1, 0, 2, 1, 1])).tolist()
    [True, False, True, False, False]
    """
    is_other = (set_of_item >= 0) & (given != given[set_of_item])
    return np.isin(set_of_item, set_of_item[is_other])
