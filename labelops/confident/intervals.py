"""How sure one can be of a noise rate, from the counts alone."""

from typing import NamedTuple

import numpy as np
from scipy.special import betaincinv

from labelops.confident.latent import Matrix

# K classes

TAIL = (1.0 - 0.95) / 2.0
"""Chance that a true rate lies beyond either end."""


class Interval(NamedTuple):
    """Lower and upper ends, in [0, 1]."""

    low: np.ndarray
    high: np.ndarray


def class_intervals(counts: Matrix) -> Interval:
    """Return a 95 % interval for each given class's share of wrong labels.

    Of the m_k items given k that were confidently counted, e_k were counted elsewhere. Jeffreys'
    interval is between the quantiles of Beta(e_k + ½, m_k − e_k + ½); it begins at 0 when e_k = 0
    and ends at 1 when e_k = m_k. Counts are by given class and guess, before the diagonal is
    raised; int64, shape (K, K).

    Returns
    -------
    Ends of shape (K,); a class of which nothing was counted gets [0, 1].

    Notes
    -----
    What it covers is chance: which items came into the data and which of them were counted. It
    takes the guesses of the model for the truth, and what was counted for a fair sample of its
    class, as calibrating the joint does.

    References
    ----------
    Brown, Cai, DasGupta: Interval estimation for a binomial proportion. Statistical Science 16(2),
    2001, section 3.2.

    Examples
    --------
    >>> ends = class_intervals(np.array([[90, 10], [0, 50]]))
    >>> ends.low.round(3).tolist(), ends.high.round(3).tolist()
    ([0.053, 0.0], [0.17, 0.049])
    """
    right = counts.diagonal()
    return jeffreys(counts.sum(axis=1) - right, right)


def jeffreys(hits: np.ndarray, others: np.ndarray) -> Interval:
    """Return the interval of a share of which so many were hits, and so many not."""
    low = betaincinv(hits + 0.5, others + 0.5, TAIL)
    high = betaincinv(hits + 0.5, others + 0.5, 1.0 - TAIL)
    return Interval(np.where(hits == 0, 0.0, low), np.where(others == 0, 1.0, high))


def total_interval(counts: Matrix, n_given: np.ndarray) -> tuple[float, float]:
    """Return a 95 % interval for the share of wrong labels in all.

    The rate in all is Σ w_k θ_k with w_k = n_k / N known. Each class's rate is drawn a little
    toward the rate ρ of all counted items, θ_k = (e_k + 2ρ) / (m_k + 2), so that small classes in
    which no error was counted still say that one was possible. The ends are the quantiles of the
    Beta distribution with mean Σ w_k θ_k and variance Σ w_k² θ_k (1 − θ_k) / m_k. Counts are those
    of `class_intervals`, n_k items are given each class; int64, shape (K,).

    Returns
    -------
    Lower and upper end; (0, 1) if nothing was counted.

    References
    ----------
    Agresti, Coull: Approximate is better than "exact" for interval estimation of binomial
    proportions. The American Statistician 52(2), 1998 (adding two successes and two failures, here
    two items of the common rate).

    Examples
    --------
    >>> low, high = total_interval(np.array([[90, 10], [0, 50]]), np.array([150, 50]))
    >>> round(low, 3), round(high, 3)
    (0.037, 0.125)
    """
    right = counts.diagonal()
    wrong = counts.sum(axis=1) - right
    n_wrong, n_counted, n_items = int(wrong.sum()), int(counts.sum()), int(n_given.sum())
    if n_counted == 0 or n_items == 0:
        return 0.0, 1.0
    centre = (n_wrong + 0.5) / (n_counted + 1.0)
    n_of_class = right + wrong
    rate = (wrong + 2.0 * centre) / (n_of_class + 2.0)
    weight = n_given / n_items
    mean = float(np.sum(weight * rate))
    variance = float(np.sum(weight**2 * rate * (1.0 - rate) / np.maximum(n_of_class, 1)))
    # A handful of items knows no less than one.
    size = max(mean * (1.0 - mean) / variance - 1.0, 1.0)
    low = float(betaincinv(mean * size, (1.0 - mean) * size, TAIL))
    high = float(betaincinv(mean * size, (1.0 - mean) * size, 1.0 - TAIL))
    return (0.0 if n_wrong == 0 else low), (1.0 if n_wrong == n_counted else high)
