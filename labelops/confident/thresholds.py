"""How sure a model is, on average, of the class that was given.

A mean that is summed in floating point depends on how the items were cut into shards, and where
confidences are saturated it then moves whole classes to the other side of their threshold. So the
sum is held in integers: 62 binary digits of every probability, in two words.
"""

from typing import NamedTuple

import numpy as np

# N items, K classes

ABSENT = 2.0
"""Threshold of a class that nobody was given: no probability reaches it."""

TOLERANCE = 1e-6
"""A probability this far below its threshold still counts as confident.

Ties: a model with saturated outputs puts every item exactly on its class mean.
"""

MIN_THRESHOLD = 2 * TOLERANCE
"""Above the tolerance, so that a probability of zero is never confident."""

FRACTION_BITS = 62
LOW_BITS = 31


class SelfConfidence(NamedTuple):
    """Sums over items, by given class.

    Attributes
    ----------
    n : number of items, int64, shape (K,).
    high, low : sum of p · 2⁶² as high · 2³¹ + low, int64, shape (K,). Each item adds at most 2³¹ to
        either word, which leaves room for 2³² items.
    """

    n: np.ndarray
    high: np.ndarray
    low: np.ndarray


def summarize(p_given: np.ndarray, given: np.ndarray, *, n_classes: int) -> SelfConfidence:
    """Sum the probability of the given class, by class, exactly.

    Parameters
    ----------
    p_given
        Probability of each item's given class, in [0, 1], float32 or float64, shape (N,).
    given
        Class ids in 0…K−1, shape (N,).
    n_classes
        K.

    Returns
    -------
    Sums that can be added to those of other items, in any order.

    Notes
    -----
    Exact for p ≥ 2⁻⁹ in double and p ≥ 2⁻³⁸ in single precision; what is smaller is cut at 2⁻⁶².
    """
    fixed = (p_given.astype(np.float64) * 2.0**FRACTION_BITS).astype(np.int64)
    high, low = np.zeros(n_classes, np.int64), np.zeros(n_classes, np.int64)
    np.add.at(high, given, fixed >> LOW_BITS)
    np.add.at(low, given, fixed & ((1 << LOW_BITS) - 1))
    return SelfConfidence(np.bincount(given, minlength=n_classes).astype(np.int64), high, low)


def merge(a: SelfConfidence, b: SelfConfidence) -> SelfConfidence:
    """Add the sums of two sets of items."""
    return SelfConfidence(a.n + b.n, a.high + b.high, a.low + b.low)


def finish(sums: SelfConfidence) -> np.ndarray:
    """Return the mean probability of the given class over the items that carry it.

    t_k = (1 / n_k) · Σ_{i: given_i = k} p_ik

    A class that no item carries gets 2, so that nothing is ever confidently counted into it.

    Returns
    -------
    float64, shape (K,), each correctly rounded and at least 2·10⁻⁶.

    References
    ----------
    Northcutt, Jiang, Chuang: Confident Learning: Estimating Uncertainty in Dataset Labels.
    JAIR 70, 2021, equation 2.

    Examples
    --------
    >>> p_given = np.array([0.9, 0.5, 0.8])
    >>> finish(summarize(p_given, np.array([0, 0, 1]), n_classes=3)).tolist()
    [0.7, 0.8, 2.0]
    """
    means = [
        # Division of Python integers rounds once, however long they are.
        ((high << LOW_BITS) + low) / (n << FRACTION_BITS) if n else ABSENT
        for n, high, low in zip(*(column.tolist() for column in sums), strict=True)
    ]
    return np.maximum(np.array(means, np.float64), MIN_THRESHOLD)


def confident_bounds(thresholds: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Return the smallest probabilities of a type that count as confident, one a class.

    Comparing in the type of the probabilities with a bound that was rounded up gives the same
    answer as comparing in double precision, at twice the speed in single.

    Returns
    -------
    Shape (K,), of that type: p ≥ bound exactly when p ≥ t − 10⁻⁶.
    """
    exact = thresholds - TOLERANCE
    bounds = exact.astype(dtype)
    above = np.nextafter(bounds, np.array(np.inf, dtype))
    return np.asarray(np.where(bounds.astype(np.float64) < exact, above, bounds))
