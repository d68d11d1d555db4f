"""Items drawn at random for people to check, and how many labels are wrong by what they say.

Items are divided into strata by the probability that their label is wrong, and drawn within each by
hash, so that a few answers say much; whatever that probability is worth, they say it without bias.
"""

# N items, H strata, n drawn of all

from typing import NamedTuple

import numpy as np

from labelops.confident.intervals import jeffreys
from labelops.hashing import hash_integers

EDGES = (0.05, 0.5)
"""Between strata: labels that are nearly surely right, others, and probably wrong ones."""

N_STRATA = len(EDGES) + 1

LEAST = 5
"""Items drawn of each stratum, or all of it: what is believed of it may be wrong."""

SALT = 0x5EED_0F_D2A3


class Count(NamedTuple):
    """How many labels are wrong, with a 95 % interval for chance."""

    value: float
    low: float
    high: float


def stratum_of(p_wrong: np.ndarray) -> np.ndarray:
    """Return the stratum of items by the probability that their label is wrong; int64, shape (N,).

    Examples
    --------
    >>> stratum_of(np.array([0.01, 0.05, 0.7])).tolist()
    [0, 1, 2]
    """
    return np.searchsorted(np.array(EDGES), p_wrong, side="right").astype(np.int64)


def drawing_order(item_hash: np.ndarray) -> np.ndarray:
    """Return keys in whose order items are drawn, uint64: folds and samples follow other hashes."""
    return hash_integers((item_hash ^ np.uint64(SALT)).view(np.int64))


def first_of_each(stratum: np.ndarray, key: np.ndarray, n: int) -> np.ndarray:
    """Return the positions of the n smallest keys of each stratum, by stratum and key.

    Examples
    --------
    >>> first_of_each(np.array([1, 0, 1, 1]), np.array([9, 5, 3, 7], np.uint64), 2).tolist()
    [1, 2, 3]
    """
    order = np.lexsort((key, stratum))
    ranked = stratum[order]
    place = np.arange(len(order)) - np.searchsorted(ranked, ranked)
    return np.asarray(order[place < n])


def allocate(n_of: np.ndarray, p_of: np.ndarray, n: int) -> np.ndarray:
    """Return how many items to draw of each stratum, int64, shape (H,).

    Parameters
    ----------
    n_of
        Items in each, shape (H,).
    p_of
        Mean probability that a label is wrong in each, shape (H,).
    n
        In all, if there are so many.

    References
    ----------
    Neyman: On the two different aspects of the representative method. Journal of the Royal
    Statistical Society 97(4), 1934: in proportion to N_h σ_h.

    Examples
    --------
    >>> allocate(np.array([900, 80, 20]), np.array([0.01, 0.2, 0.9]), 60).tolist()
    [41, 14, 5]
    """
    least = np.minimum(n_of, LEAST)
    weight = n_of * np.sqrt(np.maximum(p_of * (1 - p_of), 1e-4))
    drawn = least.astype(np.int64)
    # One after the other to where the next item tells most, ties to the first stratum.
    while drawn.sum() < min(n, int(n_of.sum())):
        gain = np.where(drawn < n_of, weight**2 / np.maximum(drawn * (drawn + 1), 0.5), -1.0)
        drawn[int(np.argmax(gain))] += 1
    return np.asarray(drawn)


def half_width(n_of: np.ndarray, p_of: np.ndarray, drawn: np.ndarray) -> float:
    """Return by how much the share of wrong labels will be uncertain once these are checked.

    1.96 standard errors, if `p_of` is right.

    Examples
    --------
    >>> n_of, p_of = np.array([900, 80, 20]), np.array([0.01, 0.2, 0.9])
    >>> round(half_width(n_of, p_of, np.array([41, 14, 5])), 3)
    0.033
    """
    share = n_of / max(int(n_of.sum()), 1)
    return float(1.96 * np.sqrt((share**2 * p_of * (1 - p_of) / np.maximum(drawn, 1)).sum()))


def count_wrong(n_of: np.ndarray, drawn: np.ndarray, wrong: np.ndarray) -> Count:
    """Return how many labels are wrong, by the answers on what was drawn.

    Σ_h N_h x_h / n_h, with the interval that follows from Jeffreys' intervals [l_h, u_h] of the
    strata: value − √Σ N_h² (p_h − l_h)² to value + √Σ N_h² (u_h − p_h)².

    Parameters
    ----------
    n_of, drawn, wrong
        Items in each stratum, those checked, and those of them whose label is wrong; shape (H,).
        Of a stratum with items at least one was checked.

    References
    ----------
    Zou, Huang, Zhang: A note on confidence interval estimation for a linear function of binomial
    proportions. Computational Statistics & Data Analysis 53(4), 2009.

    Examples
    --------
    >>> found = count_wrong(np.array([900, 100]), np.array([45, 15]), np.array([0, 12]))
    >>> [round(x) for x in found]
    [80, 56, 131]
    """
    there = n_of > 0
    size, n, hits = n_of[there].astype(np.float64), drawn[there], wrong[there]
    share, ends = hits / n, jeffreys(hits, n - hits)
    is_whole = n >= size
    low, high = (np.where(is_whole, share, end) for end in ends)
    value = float((size * share).sum())
    down = float(np.sqrt((size**2 * (share - low) ** 2).sum()))
    up = float(np.sqrt((size**2 * (high - share) ** 2).sum()))
    return Count(value, max(value - down, float(hits.sum())), min(value + up, float(size.sum())))
