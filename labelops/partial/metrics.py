"""Precision, recall, F1 and AUC of a classifier, where nobody knows a negative.

All of the *unlabelled* items, whether or not the labelled ones are part of the same sample: how
many of those that score high are positive, and how many of their positives score high. What
labelled items get stands for all positives, so they must be a random draw of them.
"""

# B bins

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from labelops.partial.choose import proxy_auc, shares_above
from labelops.partial.prior import TAIL, PriorEstimate
from labelops.partial.scores import ScoreCounts


class Metric(NamedTuple):
    """A value in [0, 1] and its 95 % interval; NaN where it cannot be known."""

    value: float
    low: float
    high: float


class PositiveMetrics(NamedTuple):
    """How well the unlabelled items are told apart.

    Attributes
    ----------
    precision : share of positives among those with a score of at least the threshold.
    recall : share of the positives that have such a score.
    f1 : harmonic mean of both.
    auc : how often a positive has a higher score than a negative.
    """

    precision: Metric
    recall: Metric
    f1: Metric
    auc: Metric


def precision(counts: ScoreCounts, *, prior: float, threshold: float) -> float:
    """Return min(1, α r / q), r and q the shares of labelled and unlabelled items above.

    NaN where none is above.

    Examples
    --------
    >>> from labelops.partial.scores import count_scores
    >>> counts = count_scores(np.array([0.9, 0.9, 0.9, 0.1, 0.1]), np.arange(5) < 1)
    >>> precision(counts, prior=0.25, threshold=0.5)
    0.5
    """
    recall, flagged = shares_above(counts, threshold=threshold)
    return min(prior * recall / flagged, 1.0) if flagged else float("nan")


def f1(counts: ScoreCounts, *, prior: float, threshold: float) -> float:
    """Return the harmonic mean of precision and recall, 2 α r / (α + q) where precision is below 1.

    0 where no labelled item is above; see `precision`.

    Examples
    --------
    >>> from labelops.partial.scores import count_scores
    >>> counts = count_scores(np.array([0.9, 0.9, 0.9, 0.1, 0.1]), np.arange(5) < 1)
    >>> round(f1(counts, prior=0.25, threshold=0.5), 3)
    0.667
    """
    recall, _ = shares_above(counts, threshold=threshold)
    if not recall:
        return 0.0
    right = precision(counts, prior=prior, threshold=threshold)
    # Where no unlabelled item is above, all that is known of precision is that nothing was wrong.
    right = 1.0 if np.isnan(right) else right
    return 2 * right * recall / (right + recall)


def auc(counts: ScoreCounts, *, prior: float) -> float:
    """Return (A − α / 2) / (1 − α), A the AUC of labelled against unlabelled items, in [0, 1].

    NaN where all unlabelled items are positive.

    References
    ----------
    Jain, White, Radivojac: Recovering true classifier performance in positive-unlabeled learning.
    AAAI 2017.

    Examples
    --------
    >>> from labelops.partial.scores import count_scores
    >>> counts = count_scores(np.array([0.9, 0.9, 0.1]), np.array([True, False, False]))
    >>> proxy_auc(counts), auc(counts, prior=0.5)
    (0.75, 1.0)
    """
    if prior >= 1:
        return float("nan")
    return float(np.clip((proxy_auc(counts) - prior / 2) / (1 - prior), 0.0, 1.0))


def positive_metrics(
    counts: ScoreCounts,
    prior: PriorEstimate,
    *,
    threshold: float = 0.5,
    n_resamples: int = 200,
    seed: int = 0,
) -> PositiveMetrics:
    """Return how well the unlabelled items are told apart, with intervals.

    Parameters
    ----------
    counts
        Of out-of-sample scores.
    prior
        Share of positives among the unlabelled items, and its interval.
    threshold
        In [0, 1]; rounded to a bin of the counts.
    n_resamples, seed
        Of the bootstrap.

    Notes
    -----
    Each rises with the prior, or does not depend on it. The interval is from the lower end of what
    resampled items say with the low end of the prior to the upper end with its high end: at least
    95 % if the prior's are.

    References
    ----------
    Claesen, Davis, De Smet, De Moor: Assessing binary classifiers using only positive and unlabeled
    data. arXiv 1504.06837, 2015 (counts, and their bounds by those of the prior).

    Examples
    --------
    >>> from labelops.partial.scores import count_scores
    >>> high = [np.linspace(0.6, 0.9, n) for n in (500, 300)]
    >>> scores = np.concatenate([*high, np.full(700, 0.1)])
    >>> found = PriorEstimate(0.3, 0.28, 0.32, True, "dedpul")
    >>> of_all = positive_metrics(count_scores(scores, np.arange(1500) < 500), found)
    >>> [round(value, 2) for value in of_all.precision]
    [1.0, 0.86, 1.0]
    """
    if not counts.n_labelled or not counts.n_unlabelled:
        return PositiveMetrics(*[Metric(float("nan"), float("nan"), float("nan"))] * 4)
    rng = np.random.default_rng(seed)
    drawn = [
        ScoreCounts(*(rng.multinomial(int(part.sum()), part / part.sum()) for part in counts))
        for _ in range(n_resamples)
    ]

    def measured(of: Callable[[ScoreCounts, float], float]) -> Metric:
        value = of(counts, prior.value)
        ends = [
            _quantile([of(some, share) for some in drawn], tail)
            for share, tail in ((prior.low, TAIL), (prior.high, 1 - TAIL))
        ]
        return Metric(value, float(np.fmin(ends[0], value)), float(np.fmax(ends[1], value)))

    return PositiveMetrics(
        measured(lambda some, share: precision(some, prior=share, threshold=threshold)),
        measured(lambda some, _: shares_above(some, threshold=threshold)[0]),
        measured(lambda some, share: f1(some, prior=share, threshold=threshold)),
        measured(lambda some, share: auc(some, prior=share)),
    )


def _quantile(values: list[float], tail: float) -> float:
    known = [value for value in values if not np.isnan(value)]
    return float(np.quantile(known, tail)) if known else float("nan")
