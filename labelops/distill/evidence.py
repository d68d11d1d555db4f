"""Which of two students is better, from items that neither was taught.

Both answer the same items, so what counts is where they differ. No truth is needed: labels as given
are wrong in places, but wrong for both.
"""

# N items, P positive, M others

from statistics import NormalDist
from typing import NamedTuple

import numpy as np

Z = NormalDist().inv_cdf(0.975)
"""Of intervals of 95 %."""


class Gain(NamedTuple):
    """What one student has more than another.

    Attributes
    ----------
    n : items that both answered.
    before, after : means of the two.
    gain : after less before.
    low, high : 95 % interval of the gain; NaN of fewer than two items.
    """

    n: int
    before: float
    after: float
    gain: float
    low: float
    high: float


def paired_gain(before: np.ndarray, after: np.ndarray) -> Gain:
    """Compare two students by what each scores on the same items.

    Parameters
    ----------
    before, after
        Scores, higher is better, for example 1 where an answer agrees with the label and 0 where it
        does not; shape (N,).

    Raises
    ------
    ValueError
        If shapes differ, or a score is not finite.

    References
    ----------
    Dietterich: Approximate statistical tests for comparing supervised classification learning
    algorithms. Neural Computation 1998 (§ 3.1: of 0 and 1, McNemar's test without its correction).

    Examples
    --------
    >>> found = paired_gain(np.array([1.0, 0, 0, 1]), np.array([1.0, 1, 1, 1]))
    >>> found.gain, round(found.low, 3), round(found.high, 3)
    (0.5, -0.066, 1.066)
    """
    if before.shape != after.shape or before.ndim != 1:
        raise ValueError(
            "paired_gain: scores of the same items, shape (N,), were expected, got "
            f"{before.shape} and {after.shape}"
        )
    if not (np.isfinite(before).all() and np.isfinite(after).all()):
        raise ValueError("paired_gain: finite scores were expected, got one that is not")
    n, more = len(before), after.astype(np.float64) - before
    if not n:
        return Gain(0, np.nan, np.nan, np.nan, np.nan, np.nan)
    gain = float(more.mean())
    half = Z * float(more.std(ddof=1)) / n**0.5 if n > 1 else np.nan
    return Gain(n, float(before.mean()), float(after.mean()), gain, gain - half, gain + half)


def paired_auc_gain(before: np.ndarray, after: np.ndarray, is_positive: np.ndarray) -> Gain:
    """Compare two students by the area under the ROC curve (AUC) of the same items.

    Of positive and unlabelled items: where labelled positives are a random draw of all, whichever
    tells them better from the unlabelled also tells positives better from negatives, since the area
    among labelled and unlabelled is a straight line in that one.

    Parameters
    ----------
    before, after
        Scores, higher is more positive, shape (N,).
    is_positive
        bool, shape (N,).

    Returns
    -------
    Gain whose means are the two areas; all NaN without an item of either kind.

    Raises
    ------
    ValueError
        If shapes differ, or a score is not finite.

    References
    ----------
    DeLong, DeLong, Clarke-Pearson: Comparing the areas under two or more correlated receiver
    operating characteristic curves. Biometrics 1988, equations 5 to 8.
    Menon, van Rooyen, Ong, Williamson: Learning from corrupted binary labels via class-probability
    estimation. ICML 2015, corollary 3 (the straight line).

    Examples
    --------
    >>> y = np.array([True, True, False, False])
    >>> found = paired_auc_gain(np.array([0.9, 0.2, 0.4, 0.1]), np.array([0.9, 0.5, 0.4, 0.1]), y)
    >>> found.before, found.after
    (0.75, 1.0)
    """
    if not before.shape == after.shape == is_positive.shape or before.ndim != 1:
        raise ValueError(
            "paired_auc_gain: scores and kinds of the same items, shape (N,), were expected, got "
            f"{before.shape}, {after.shape} and {is_positive.shape}"
        )
    if not (np.isfinite(before).all() and np.isfinite(after).all()):
        raise ValueError("paired_auc_gain: finite scores were expected, got one that is not")
    n_positive = int(is_positive.sum())
    n_other = len(is_positive) - n_positive
    if not n_positive or not n_other:
        return Gain(len(before), np.nan, np.nan, np.nan, np.nan, np.nan)
    places = [_placements(scores, is_positive) for scores in (before, after)]
    area, more_area = (float(of_positive.mean()) for of_positive, _ in places)
    gain = more_area - area
    variance = 0.0
    for kind in (0, 1):
        more = places[1][kind] - places[0][kind]
        variance += float(more.var(ddof=1)) / len(more) if len(more) > 1 else np.nan
    half = Z * variance**0.5
    return Gain(len(before), area, more_area, gain, gain - half, gain + half)


def _placements(scores: np.ndarray, is_positive: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the share of others below each positive, and of positives above each other one.

    Ties count half.
    """
    positive, other = scores[is_positive], scores[~is_positive]
    below = _below(np.sort(other), positive) / len(other)
    above = 1 - _below(np.sort(positive), other) / len(positive)
    return below, above


def _below(ascending: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Return how many are less than each value, and half of those equal to it."""
    sides = (np.searchsorted(ascending, values, side=side) for side in ("left", "right"))
    return np.asarray(sum(sides) / 2)
