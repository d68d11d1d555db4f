"""How improbable a bag's count is under a model of its items.

If items are independent and positive with the probabilities that the model says, the count of a bag
has the Poisson-binomial distribution. A count far in its tail contradicts the model: the count is
wrong, the bag holds other items than the table thinks, or the model is wrong about such bags.
"""

# N items, B bags

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from labelops.proportions.cardinality import Marginals, marginals
from labelops.proportions.counts import Counts, hard_counts, interval_counts
from labelops.ragged import owners

LOST = 5e-14
"""Of less than that, 1 − p has lost three digits; it is a log-odds of 30.6, and of 37 all are."""


class Tails(NamedTuple):
    """Where each bag's count lies in its distribution.

    Attributes
    ----------
    expected, std : mean and standard deviation of the count under the model, float64, shape (B,).
    log_lower, log_upper : log P(S ≤ k) and log P(S ≥ k), shape (B,); −∞ for impossible ones.
    p_value : two-sided, min(1, 2 · min(P(S ≤ k), P(S ≥ k))), shape (B,).
    """

    expected: np.ndarray
    std: np.ndarray
    log_lower: np.ndarray
    log_upper: np.ndarray
    p_value: np.ndarray


def count_tails(
    probs: np.ndarray,
    start: np.ndarray,
    positives: np.ndarray,
    *,
    rest: np.ndarray | None = None,
    find: Callable[[np.ndarray, np.ndarray, Counts], Marginals] = marginals,
) -> Tails:
    """Return how far in the tails of the model's distribution each bag's count is.

    Parameters
    ----------
    probs
        P(y_i = 1) according to the model, out of sample and calibrated, ordered by bag, shape (N,).
    start
        Where bags begin, shape (B + 1,).
    positives
        Count of each bag, integers, shape (B,). One that its bag cannot have has p-value 0.
    rest
        P(y_i = 0), shape (N,), taken where 1 − `probs` is below `LOST`; by default 1 − `probs`, by
        which an item beyond log-odds of 37 is certainly positive.
    find
        What finds the evidence of counts; `labelops.fast.cardinality.marginals` is faster.

    Raises
    ------
    ValueError
        If a probability is not one.

    Notes
    -----
    A tail is the evidence of the count being in an interval. It is tilted as any count is, so a
    p-value of 1e-200 is as exact as one of 0.1. Both sides include the count itself, so that
    P(p ≤ α) ≤ α if the model is right; a mid-p value would not keep this, on which the procedure of
    Benjamini and Hochberg relies.

    Examples
    --------
    >>> tails = count_tails(np.full(10, 0.1), np.array([0, 5, 10]), np.array([0, 4]))
    >>> tails.p_value.round(5).tolist()
    [1.0, 0.00092]
    """
    p, sizes = _checked("probs", probs), np.diff(start)
    not_p = 1 - p
    with np.errstate(divide="ignore"):
        log_odds = np.log(p) - np.log1p(-p)
        if rest is not None:
            given, is_lost = _checked("rest", rest), not_p < LOST
            not_p = np.where(is_lost, given, not_p)
            log_odds = np.where(is_lost, np.log(p) - np.log(given), log_odds)
    k = hard_counts(positives).low
    bag_of_item = owners(start)

    def sums(values: np.ndarray) -> np.ndarray:
        return np.bincount(bag_of_item, values, len(sizes))

    least, most = sums(not_p == 0).astype(np.int64), sums(p > 0).astype(np.int64)
    inside = np.clip(k, least, most)
    lower = find(log_odds, start, interval_counts(np.zeros_like(k), inside)).log_evidence
    upper = find(log_odds, start, interval_counts(inside, sizes)).log_evidence
    log_lower = np.where(k < least, -np.inf, np.where(k > most, 0.0, np.minimum(lower, 0)))
    log_upper = np.where(k > most, -np.inf, np.where(k < least, 0.0, np.minimum(upper, 0)))
    p_value = np.minimum(1.0, 2 * np.exp(np.minimum(log_lower, log_upper)))
    return Tails(sums(p), np.sqrt(sums(p * not_p)), log_lower, log_upper, p_value)


def _checked(name: str, values: np.ndarray) -> np.ndarray:
    p = np.asarray(values, np.float64)
    wrong = np.flatnonzero(~((p >= 0) & (p <= 1)))
    if len(wrong):
        raise ValueError(
            f"count_tails: {name} must be in [0, 1]; item {wrong[0]} has {p[wrong[0]]}"
        )
    return p


def false_discovery_rates(p_values: np.ndarray) -> np.ndarray:
    """Return for each p-value the least rate of false discoveries at which it would be one.

    q_(r) = min_{t ≥ r} p_(t) · m / t of the ordered p-values.

    Returns
    -------
    float64, shape (m,). Of those with q ≤ α, at most a share α is expected to be by chance.

    Raises
    ------
    ValueError
        If a value is not in [0, 1].

    Notes
    -----
    Holds for independent bags, and for such as tend to err in the same direction.

    References
    ----------
    Benjamini, Hochberg: Controlling the false discovery rate. JRSS B 57, 1995.

    Examples
    --------
    >>> false_discovery_rates(np.array([0.01, 0.5, 0.02])).round(3).tolist()
    [0.03, 0.5, 0.03]
    """
    p = np.asarray(p_values, np.float64)
    if not ((p >= 0) & (p <= 1)).all():
        raise ValueError("false_discovery_rates: p-values must be in [0, 1]")
    order = np.argsort(p, kind="stable")
    scaled = p[order] * len(p) / np.arange(1, len(p) + 1)
    rates = np.empty(len(p))
    rates[order] = np.minimum.accumulate(scaled[::-1])[::-1]
    return np.minimum(rates, 1.0)
