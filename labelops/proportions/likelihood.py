"""How likely the counts of bags are under a model of their items, and which way it should move.

The count of a bag of independent items is Poisson-binomial. Its probability is taken by saddle
point: tilt the items until the bag expects its count, and multiply what that costs by how likely a
count is to hit its own mean exactly. Cheap enough to be the loss of a fit: O(N) for all bags.
"""

# N items, B bags, n items of one bag

from typing import NamedTuple

import numpy as np

from labelops.proportions.cardinality import sigmoid


class CountFit(NamedTuple):
    """Log-likelihood of the counts of bags, and its slope.

    Attributes
    ----------
    log_likelihood : of every bag, about log P(Σ y = k), float64, shape (B,).
    gradient : its derivative by each item's log-odds, float64, shape (N,).
    tilt : θ of every bag, from `count_tilt`, float64, shape (B,).
    """

    log_likelihood: np.ndarray
    gradient: np.ndarray
    tilt: np.ndarray


class CountCurvature(NamedTuple):
    """How the log-likelihood of the counts bends, and how it would on average.

    Minus the second derivative of a bag by the log-odds of its items is
    diag(diagonal) + Σ_ab mix_ab · factors_a factorsᵀ_b; its expectation over counts is mean meanᵀ.

    Attributes
    ----------
    diagonal : float64, shape (N,); of either sign.
    factors : float64, shape (3, N).
    mix : symmetric, of either sign, float64, shape (B, 3, 3).
    mean : slope of the expected count in units of its std, float64, shape (N,).
    """

    diagonal: np.ndarray
    factors: np.ndarray
    mix: np.ndarray
    mean: np.ndarray


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
        is_there = np.abs(excess) <= 1e-10 * np.minimum(k, n - k)
        if is_there.all():
            break
        low, high = np.where(excess < 0, theta, low), np.where(excess < 0, high, theta)
        slope = np.maximum(bag_sums(p * (1 - p), start), 1e-300)
        with np.errstate(divide="ignore", over="ignore"):
            share = np.log(expected) - np.log(n - expected)
            step = (aim - share) * expected * (n - expected) / (n * slope)
        following = theta + step
        inside = (low < following) & (following < high)
        # A bag that is there has bounds beside it and would be sent halfway to the other one.
        there = np.where(inside, following, (low + high) / 2)
        theta = np.where(is_there, theta, there)
    return np.where(is_open, theta, np.where(positives > 0, np.inf, -np.inf))


def count_fit(log_odds: np.ndarray, start: np.ndarray, positives: np.ndarray) -> CountFit:
    """Return how likely the counts of bags are, by saddle point, and the gradient.

    ℓ = Σ [log(1 + e^{q + θ}) − log(1 + e^q)] − θ k − ½ log(1 + 2π V),  V = Σ p̃ (1 − p̃),
    p̃ = σ(q + θ), Σ p̃ = k; arguments are those of `count_tilt`.

    Notes
    -----
    Exact for k = 0 and k = n, so also for bags of one. The 1 beside 2π V lets the last term vanish
    where the tilted items are certain. Against the exact count, over random log-odds up to a
    million, it was off by at most 0.23 nats (a bag of 8 that is nearly certain), in bags of 200
    whose log-odds have a std of some units by 0.01.

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
    theta = count_tilt(log_odds, start, positives)
    is_open = (positives > 0) & (positives < n)
    shift = np.where(is_open, theta, 0.0)
    tilted = log_odds + np.repeat(shift, n)
    p, q = sigmoid(log_odds), sigmoid(tilted)
    # Where the count leaves no choice, all items are what it says.
    q = np.where(np.repeat(is_open, n), q, np.repeat(positives > 0, n))
    variance = q * (1 - q)
    v = bag_sums(variance, start)
    cost = bag_sums(np.logaddexp(0, tilted) - np.logaddexp(0, log_odds), start) - shift * positives
    all_positive = bag_sums(np.logaddexp(0, -log_odds), start)
    none_positive = bag_sums(np.logaddexp(0, log_odds), start)
    certain = np.where(positives > 0, -all_positive, -none_positive)
    value = np.where(is_open, cost - 0.5 * np.log1p(2 * np.pi * v), certain)
    skew = 1 - 2 * q
    mean_skew = bag_sums(variance * skew, start) / np.maximum(v, 1e-300)
    v_term = np.pi * variance * (skew - np.repeat(mean_skew, n)) / (1 + 2 * np.pi * np.repeat(v, n))
    return CountFit(value, q - p - v_term, theta)


def count_curvature(
    log_odds: np.ndarray, start: np.ndarray, positives: np.ndarray, tilt: np.ndarray
) -> CountCurvature:
    """Return the second derivative of what `count_fit` returns, and its expectation.

    With s = p (1 − p) of items as they are, s̃ of tilted ones, V = Σ s̃, r = 1 − 2 p̃, R = Σ s̃ r / V,
    t = s̃ r² − 2 s̃², T = Σ t / V, κ = π / (1 + 2π V), β = s̃ (r − R), δ = t − T s̃ − R β, the
    negative Hessian of a bag is

    diag(s − s̃ + κ (t − R s̃ r)) + (1 − κ T + κ R²) s̃ s̃ᵀ / V − 2 κ² β βᵀ − κ (δ s̃ᵀ + s̃ δᵀ) / V.

    The tilt is that of `count_fit` at these log-odds.

    Notes
    -----
    Had every bag the count it expects, s̃ would be s, and what is left would be about s sᵀ / V, the
    expected information. A count z standard deviations off adds about z √V times a mean over items
    of either sign, against one of order 1: the larger the bags, the less one tells of the other.

    Examples
    --------
    >>> q, start, k = np.array([0.3, -1.0, 2.0]), np.array([0, 3]), np.array([2])
    >>> second = count_curvature(q, start, k, count_fit(q, start, k).tilt)
    >>> ahead, back = (count_fit(q + [h, 0, 0], start, k).gradient for h in (1e-5, -1e-5))
    >>> mixed = np.einsum("ai,ab,bj->ij", second.factors, second.mix[0], second.factors)
    >>> bool(np.allclose((back - ahead) / 2e-5, (np.diag(second.diagonal) + mixed)[0], atol=1e-8))
    True
    """
    n = np.diff(start)
    is_open = (positives > 0) & (positives < n)
    p = sigmoid(log_odds)
    plain = p * (1 - p)
    q = sigmoid(log_odds + np.repeat(np.where(is_open, tilt, 0.0), n))
    variance = np.where(np.repeat(is_open, n), q * (1 - q), 0.0)
    v = np.maximum(bag_sums(variance, start), 1e-300)
    skew = 1 - 2 * q
    mean_skew = bag_sums(variance * skew, start) / v
    third = variance * skew**2 - 2 * variance**2
    mean_third = bag_sums(third, start) / v
    kappa = np.pi / (1 + 2 * np.pi * v)
    v_N, mean_skew_N, mean_third_N, kappa_N = (
        np.repeat(values, n) for values in (v, mean_skew, mean_third, kappa)
    )
    beta = variance * (skew - mean_skew_N)
    delta = third - mean_third_N * variance - mean_skew_N * beta
    diagonal = plain - variance + kappa_N * (third - mean_skew_N * variance * skew)
    mix = np.zeros((len(n), 3, 3))
    mix[:, 0, 0] = 1 - kappa * mean_third + kappa * mean_skew**2
    mix[:, 1, 1] = -2 * kappa**2 * v
    mix[:, 0, 2] = mix[:, 2, 0] = -kappa
    factors = np.stack([variance, beta, delta]) / np.sqrt(v_N)
    all_plain = np.maximum(bag_sums(plain, start), 1e-300)
    return CountCurvature(diagonal, factors, mix, plain / np.sqrt(np.repeat(all_plain, n)))
