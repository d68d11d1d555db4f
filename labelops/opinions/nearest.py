"""The opinion of an item's nearest neighbours: how many of them were given each class."""

# N items, R references, D features, K classes, k neighbours

from typing import NamedTuple

import numpy as np

from labelops.multilabel.labels import UNKNOWN, YES
from labelops.neighbours import Neighbours

N_VOTERS = 15

MAX_CELLS = 1 << 24
"""References × features stay below it: 64 MiB."""

MAX_REFERENCES = 20_000


class References(NamedTuple):
    """Items that are asked for neighbours.

    Attributes
    ----------
    vectors : standardised features, float32, shape (R, D).
    given : class ids, int32, shape (R,); of sets of classes 1 (yes), 0 (no) or −1 (unknown), int8,
        shape (R, K); of candidates, of which one is true, bool, shape (R, K).
    item_hash : uint64, shape (R,).
    mean, std : by which features are standardised; std is 1 where a feature is constant; float64,
        shape (D,).
    """

    vectors: np.ndarray
    given: np.ndarray
    item_hash: np.ndarray
    mean: np.ndarray
    std: np.ndarray


def n_references(n_features: int, n_states: int = 1) -> int:
    """Return how many items are kept as references at most, with so many numbers of each.

    Examples
    --------
    >>> n_references(16), n_references(1024)
    (20000, 16384)
    """
    return int(np.clip(MAX_CELLS // max(n_features, n_states, 1), 1, MAX_REFERENCES))


def refer(features: np.ndarray, given: np.ndarray, item_hash: np.ndarray) -> References:
    """Make references of some items, shapes (R, D), (R,) or (R, K), and (R,).

    Examples
    --------
    >>> refer(np.array([[1.0], [3.0]]), np.array([0, 1]), np.array([7, 8])).vectors.tolist()
    [[-1.0], [1.0]]
    """
    exact = features.astype(np.float64)
    mean = exact.mean(axis=0) if len(exact) else np.zeros(exact.shape[1])
    std = exact.std(axis=0) if len(exact) else np.ones(exact.shape[1])
    # What is left of a constant feature is rounding; dividing by it would make noise of it.
    std[std <= 1e-6 * np.abs(exact).max(axis=0, initial=0.0)] = 1.0
    return References(
        standardise(exact, mean, std),
        given if given.dtype == bool else given.astype(np.int32 if given.ndim == 1 else np.int8),
        item_hash.astype(np.uint64),
        mean,
        std,
    )


def standardise(features: np.ndarray, mean: np.ndarray, std: np.ndarray) -> np.ndarray:
    """Return (x − mean) / std, float32."""
    return np.asarray(((features - mean) / std).astype(np.float32))


def count_votes(neighbours: Neighbours, given: np.ndarray, *, n_classes: int) -> np.ndarray:
    """Return (n_c + 1 / K) / (n + 1), for n neighbours of which n_c were given class c.

    Parameters
    ----------
    neighbours
        Positions of references, shape (N, k); −1 where there is none.
    given
        Classes of the references, shape (R,).

    Returns
    -------
    float32, shape (N, K); rows sum to one.

    Examples
    --------
    >>> near = Neighbours(np.array([[0, 1, -1]]), np.zeros((1, 3)))
    >>> count_votes(near, np.array([1, 1]), n_classes=2).round(3).tolist()
    [[0.16699999570846558, 0.8330000042915344]]
    """
    n = len(neighbours.indices)
    votes = np.zeros((n, n_classes))
    row, place = np.nonzero(neighbours.indices >= 0)
    np.add.at(votes, (row, given[neighbours.indices[row, place]]), 1.0)
    total = np.bincount(row, minlength=n)[:, None]
    return np.asarray(((votes + 1 / n_classes) / (total + 1)).astype(np.float32))


def count_cell_votes(neighbours: Neighbours, states: np.ndarray, own: np.ndarray) -> np.ndarray:
    """Return (n_yes + share) / (n_known + 1) of the neighbours of which a class is known.

    Parameters
    ----------
    neighbours
        Positions of references, shape (N, k); −1 where there is none.
    states
        What is known of the references: 1 (yes), 0 (no) or −1 (unknown), int8, shape (R, K).
    own
        Position of each item among the references, −1 where it is none of them, shape (N,).

    Returns
    -------
    float32, shape (N, K). The share is that of all other references: (n_yes + ½) / (n_known + 1).

    Examples
    --------
    >>> near = Neighbours(np.array([[0, 1, -1]]), np.zeros((1, 3)))
    >>> states = np.array([[1, 0, -1], [1, 1, 1], [0, 0, 0]], np.int8)
    >>> count_cell_votes(near, states, np.array([-1])).round(3).tolist()
    [[0.875, 0.4580000042915344, 0.75]]
    """
    mine = np.where((own >= 0)[:, None], states[own], UNKNOWN)
    n_yes = (states == YES).sum(axis=0) - (mine == YES)
    share = (n_yes + 0.5) / ((states != UNKNOWN).sum(axis=0) - (mine != UNKNOWN) + 1)
    yes, known = np.zeros(mine.shape, np.int64), np.zeros(mine.shape, np.int64)
    for at in neighbours.indices.T:
        said = np.where((at >= 0)[:, None], states[at], UNKNOWN)
        yes += said == YES
        known += said != UNKNOWN
    return np.asarray(((yes + share) / (known + 1)).astype(np.float32))
