"""How likely the counts of bags are under a model of their items, and which way it should move.

The count of a bag of independent items is Poisson-binomial. Its probability is taken by saddle
point: tilt the items until the bag expects its count, and multiply what that costs by how likely a
count is to hit its own mean exactly. Cheap enough to be the loss of a fit: O(N) for all bags.
"""

# N items, B bags, n items of one bag

from typing import NamedTuple

import numpy as np

from labelops.proportions.cardinality import sigmoid

FARTHEST = 40.0
"""Tilts beyond it mean a count of 0 or n: e^−40 of an item is left."""


class CountFit(NamedTuple):
    """Log-likelihood of the counts of bags, and its slope.

    Attributes
    ----------
    log_likelihood : of every bag, about log P(Σ y = k), float64, shape (B,).
    gradient : its derivative by each item's log-odds, float64, shape (N,).
    variance : Σ p (1 − p) of every bag before tilting, float64, shape (B,).
    """

    log_likelihood: np.ndarray
    gradient: np.ndarray
    variance: np.ndarray


def bag_sums(values: np.ndarray, start: np.ndarray) -> np.ndarray:
    """Return the sum over each bag; bags are not empty."""
    return np.add.reduceat(values, start[:-1], dtype=np.float64)


def count_tilt(log_odds: np.ndarray, start: np.ndarray, positives: np.ndarray) -> np.ndarray:
    """Return the θ of each bag at which Σ σ(q_i + θ) = k.

    Parameters
    ----------
    log_odds
        q, finite, ordered by bag, shape (N,).
    start
        Bag b has the items start[b] … start[b + 1] − 1, int64, shape (B + 1,); no bag is empty.
    positives
        k, 0 ≤ k ≤ n, shape (B,).

    Returns
    -------
    float64, shape (B,); −∞ where k = 0, +∞ where k = n.

    Notes
    -----
    Newton's steps in the logit of the expected share, which is nearly linear in θ, kept between
    bounds that close in. O(N) a step, some six steps.

    Examples
    --------
    >>> count_tilt(np.zeros(4), np.array([0, 4]), np.array([1])).round(3).tolist()
    [-1.099]
    """
    n = np.diff(start)
    is_open = (positives > 0) & (positives < n)
    k = np.where(is_open, positives, n / 2)
    aim = np.log(k) - np.log(n - k)
    low = aim - np.maximum.reduceat(log_odds, start[:-1])
    high = aim - np.minimum.reduceat(log_odds, start[:-1])
    theta = np.clip(aim - bag_sums(log_odds, start) / n, low, high)
    for _ in range(100):
        p = sigmoid(log_odds + np.repeat(theta, n))
        expected = bag_sums(p, start)
        excess = expected - k
        if (np.abs(excess) <= 1e-10 * np.minimum(k, n - k)).all():
            break
        low, high = np.where(excess < 0, theta, low), np.where(excess < 0, high, theta)
        slope = np.maximum(bag_sums(p * (1 - p), start), 1e-300)
        with np.errstate(divide="ignore", over="ignore"):
            share = np.log(expected) - np.log(n - expected)
            step = (aim - share) * expected * (n - expected) / (n * slope)
        following = theta + step
        inside = (low < following) & (following < high)
        theta = np.where(inside, following, (low + high) / 2)
    return np.where(is_open, theta, np.where(positives > 0, np.inf, -np.inf))


def count_fit(log_odds: np.ndarray, start: np.ndarray, positives: np.ndarray) -> CountFit:
    """Return how likely the counts of bags are, by saddle point, and the gradient.

    ℓ = Σ [log(1 + e^{q + θ}) − log(1 + e^q)] − θ k − ½ log(1 + 2π V),  V = Σ p̃ (1 − p̃),
    p̃ = σ(q + θ), Σ p̃ = k.

    Parameters
    ----------
    log_odds, start, positives
        As in `count_tilt`.

    Notes
    -----
    Exact for k = 0 and k = n, so also for bags of one. The 1 beside 2π V lets the last term vanish
    where the tilted items are certain. Against the exact count, over random log-odds, it was off by
    at most 0.21 nats (a bag of 8 that is nearly certain) and by 0.01 in bags of 200.

    References
    ----------
    Daniels: Saddlepoint approximations in statistics. Annals of Mathematical Statistics 25, 1954.

    Examples
    --------
    >>> fit = count_fit(np.zeros(4), np.array([0, 4]), np.array([2]))
    >>> round(float(np.exp(fit.log_likelihood[0])), 2), 6 / 16
    (0.37, 0.375)
    """
    n = np.diff(start)
    theta = np.clip(count_tilt(log_odds, start, positives), -FARTHEST, FARTHEST)
    is_open = (positives > 0) & (positives < n)
    shift = np.where(is_open, theta, 0.0)
    tilted = log_odds + np.repeat(shift, n)
    p, q = sigmoid(log_odds), sigmoid(tilted)
    # Where the count leaves no choice, all items are what it says.
    q = np.where(np.repeat(is_open, n), q, np.repeat(positives > 0, n))
    spread = q * (1 - q)
    v = bag_sums(spread, start)
    cost = bag_sums(np.logaddexp(0, tilted) - np.logaddexp(0, log_odds), start) - shift * positives
    all_positive = bag_sums(np.logaddexp(0, -log_odds), start)
    none_positive = bag_sums(np.logaddexp(0, log_odds), start)
    certain = np.where(positives > 0, -all_positive, -none_positive)
    value = np.where(is_open, cost - 0.5 * np.log1p(2 * np.pi * v), certain)
    skew = 1 - 2 * q
    mean_skew = bag_sums(spread * skew, start) / np.maximum(v, 1e-300)
    bend = np.pi * spread * (skew - np.repeat(mean_skew, n)) / (1 + 2 * np.pi * np.repeat(v, n))
    return CountFit(value, q - p - bend, bag_sums(p * (1 - p), start))
