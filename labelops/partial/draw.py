"""Whether the labelled positives may be a random draw of all positives.

All that is said from positive and unlabelled items rests on it, and it can be tested in part only:
what a selection does to scores, an overlap of the classes may do as well. But among the items that
a classifier is surest of, where next to all are positive, the odds of being labelled must be the
same for all.
"""

# N items, D features

from typing import NamedTuple

import numpy as np
from scipy.special import ndtr

SHARE = 0.2
"""Such parts of the labelled items, the first and the next by score, are looked at."""

LEAST_LABELLED = 20

LEAST_HALF = 0.1
"""Share of the labelled items that a part by a feature has at least."""

LEAST_P = 0.01
"""Below, a random draw is not plausible."""


class DrawCheck(NamedTuple):
    """Whether labelled positives may be a random draw.

    Attributes
    ----------
    p_value : how rarely a random draw differs as much, if all items of high scores are positive;
        NaN with fewer than 20 labelled items or no unlabelled one.
    by_score : deviation of the odds of the next fifth below those of the first, in standard errors.
    by_feature : the largest deviation between items of high and low values of a feature.
    feature : which feature that is; −1: none could be cut.
    """

    p_value: float
    by_score: float
    by_feature: float
    feature: int

    @property
    def is_plausible(self) -> bool:
        """Whether nothing speaks against a random draw; also where too little is known."""
        return not self.p_value < LEAST_P


class _Odds(NamedTuple):
    """Log-odds of being labelled, and their variance."""

    value: float
    variance: float


def _odds(n_labelled: int, n_unlabelled: int) -> _Odds:
    p, u = n_labelled + 0.5, n_unlabelled + 0.5
    return _Odds(float(np.log(p / u)), 1 / p + 1 / u)


def _first_odds(labelled: np.ndarray, unlabelled: np.ndarray) -> tuple[_Odds, _Odds]:
    """Return the odds in the first and in the next fifth, of scores in ascending order."""
    n, found, before = len(labelled), list[_Odds](), (0, 0)
    for part in (1, 2):
        cutoff = labelled[n - max(1, int(n * SHARE * part))]
        n_p, n_u = (
            len(some) - int(np.searchsorted(some, cutoff)) for some in (labelled, unlabelled)
        )
        found.append(_odds(n_p - before[0], n_u - before[1]))
        before = n_p, n_u
    return found[0], found[1]


def _deviation(one: _Odds, other: _Odds) -> float:
    return (one.value - other.value) / float(np.sqrt(one.variance + other.variance))


def check_draw(features: np.ndarray, scores: np.ndarray, is_labelled: np.ndarray) -> DrawCheck:
    """Test whether labelled positives may be a random draw of all.

    The odds of being labelled are compared between the first and the next fifth of the labelled
    items by score, where they fall if labels were rather given to the surest; and, in the first
    fifth of each, between the items above and not above the median of every feature. The p-value is
    twice the smaller one of both (Bonferroni), the second over all features and both directions.

    Parameters
    ----------
    features
        Finite, shape (N, D).
    scores
        Out-of-sample, any that rank positives first, shape (N,).
    is_labelled
        Shape (N,). Known negatives are left out.

    Notes
    -----
    O(D N log N). Two kinds of selection stay unseen: one by what is no feature, which does no harm
    to scores, and one that takes positives of the kind that is never labelled for negatives. And
    classes that overlap even where scores are highest may look like a selection: false alarms and
    power on real tables are measured by `benchmarks/draw.py`.

    References
    ----------
    Teisseyre, Furmańczyk, Mielniczuk: Verifying the selected completely at random assumption in
    positive-unlabeled learning. ECAI 2024 (compares labelled items with those believed positive, by
    feature; there against labels drawn at random among these).

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> positive, x = np.arange(4000) < 1600, rng.normal(size=(4000, 2))
    >>> scores = np.where(positive, 0.6, 0.1) + 0.1 * rng.random(4000)
    >>> check_draw(x, scores, positive & (rng.random(4000) < 0.3)).is_plausible
    True
    >>> check_draw(x, scores, positive & (rng.random(4000) < np.where(x[:, 1] > 0, 0.5, 0.1)))
    ... # doctest: +ELLIPSIS
    DrawCheck(p_value=..., by_score=..., by_feature=..., feature=1)
    """
    is_labelled = np.asarray(is_labelled, bool)
    n_labelled = int(is_labelled.sum())
    if n_labelled < LEAST_LABELLED or n_labelled == len(is_labelled):
        return DrawCheck(float("nan"), 0.0, 0.0, -1)
    order = np.argsort(scores, kind="stable")
    x, s, labelled = np.asarray(features)[order], np.asarray(scores)[order], is_labelled[order]
    by_score = _deviation(*_first_odds(s[labelled], s[~labelled]))
    by_feature, feature, n_compared = 0.0, -1, 0
    for d in range(x.shape[1]):
        high = x[:, d] > np.median(x[labelled, d])
        if not LEAST_HALF <= high[labelled].mean() <= 1 - LEAST_HALF:
            continue
        n_compared += 1
        above, below = (
            _first_odds(s[part & labelled], s[part & ~labelled])[0] for part in (high, ~high)
        )
        found = abs(_deviation(above, below))
        if found > by_feature:
            by_feature, feature = found, d
    least = min(ndtr(-by_score), 2 * max(n_compared, 1) * ndtr(-by_feature))
    return DrawCheck(float(min(1.0, 2 * least)), by_score, by_feature, feature)
