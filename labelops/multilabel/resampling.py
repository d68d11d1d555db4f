"""Intervals by drawing items with replacement, for measures that are sums over items.

Such a measure is a function of how often each item counts. So a draw needs no copy of the data, and
all draws together are a few matrix products.
"""

from typing import NamedTuple

import numpy as np

from labelops.gate import LEVEL, Interval

# N items, K classes, B draws


class Share(NamedTuple):
    """Σ hits / Σ out_of over items: numerators and denominators, shape (N,) or (N, K)."""

    hits: np.ndarray
    out_of: np.ndarray


def draws(n_items: int, *, rng: np.random.Generator, n_draws: int = 200) -> np.ndarray:
    """Return how often each item counts: once, and in draws with replacement; shape (B + 1, N).

    float64, for products: 1.6 kB an item at 200 draws.
    """
    share = np.full(n_items, 1.0 / max(n_items, 1))
    drawn = rng.multinomial(n_items, share, n_draws) if n_items else np.zeros((n_draws, 0))
    return np.concatenate([np.ones((1, n_items)), drawn]).astype(np.float64)


def measure(values: np.ndarray) -> Interval:
    """Return the first value with the bounds that 95 % of the others lie within (percentiles).

    All NaN where it is not defined.

    References
    ----------
    Efron, Tibshirani: An Introduction to the Bootstrap. 1993, chapter 13.

    Examples
    --------
    >>> measure(np.concatenate([[0.5], np.linspace(0, 1, 101)])).low
    0.025
    """
    drawn = values[1:][~np.isnan(values[1:])]
    if np.isnan(values[0]) or not len(drawn):
        return Interval(float(values[0]), float(values[0]), float(values[0]))
    low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(float(values[0]), float(low), float(high))


def average(share: Share, weights: np.ndarray) -> np.ndarray:
    """Return Σ w hits / Σ w out_of for every draw, NaN where that is 0 / 0.

    Examples
    --------
    >>> average(Share(np.array([1, 0, 0]), np.array([1, 1, 0])), np.ones((1, 3))).tolist()
    [0.5]
    """
    return ratio(weights @ share.hits, weights @ share.out_of)


def ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """Return part / whole, NaN where the whole is 0; of any shape."""
    result = np.full(np.shape(whole), np.nan)
    np.divide(part, whole, out=result, where=whole > 0)
    return result
