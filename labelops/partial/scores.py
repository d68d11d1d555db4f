"""How many labelled and unlabelled items a classifier of one against the other gives which score.

All that estimates of the class prior read. Counts of two parts of the data add up exactly, whatever
the parts; a bin is 1/128 of a logit wide.
"""

# B bins

from typing import NamedTuple

import numpy as np

from labelops.calibration import log_safe

BINS, PER_LOGIT = 4096, 128
"""From −16 to 16 logits; what lies beyond counts as the last."""

LOGITS = (np.arange(BINS) + 0.5 - BINS // 2) / PER_LOGIT
"""Middle of every bin."""


class ScoreCounts(NamedTuple):
    """Items by the bin of their score, int64, shape (B,) each.

    Attributes
    ----------
    labelled : those known to be positive.
    unlabelled : the others, of which some are.
    """

    labelled: np.ndarray
    unlabelled: np.ndarray

    @property
    def n_labelled(self) -> int:
        """Number of labelled items."""
        return int(self.labelled.sum())

    @property
    def n_unlabelled(self) -> int:
        """Number of unlabelled items."""
        return int(self.unlabelled.sum())


def score_bins(scores: np.ndarray) -> np.ndarray:
    """Return the bin of each probability of being labelled; int64, shape (N,).

    Raises
    ------
    ValueError
        If a score is not in [0, 1].

    Examples
    --------
    >>> score_bins(np.array([0.0, 0.5, 0.9, 1.0])).tolist()
    [0, 2048, 2329, 4095]
    """
    p = np.asarray(scores, np.float64)
    if not ((p >= 0) & (p <= 1)).all():
        first = p[~((p >= 0) & (p <= 1))][0]
        raise ValueError(f"score_bins: probabilities were expected, got {first:g}")
    bins = np.floor((log_safe(p) - log_safe(1 - p)) * PER_LOGIT) + BINS // 2
    return np.asarray(np.clip(bins, 0, BINS - 1).astype(np.int64))


def count_scores(scores: np.ndarray, is_labelled: np.ndarray) -> ScoreCounts:
    """Count items by score.

    Parameters
    ----------
    scores
        Out-of-sample probability of being labelled, in [0, 1], shape (N,).
    is_labelled
        Shape (N,).

    Raises
    ------
    ValueError
        If a score is not in [0, 1].

    Examples
    --------
    >>> counts = count_scores(np.array([0.9, 0.2, 0.9]), np.array([True, False, False]))
    >>> counts.n_labelled, counts.n_unlabelled
    (1, 2)
    """
    bins, is_labelled = score_bins(scores), np.asarray(is_labelled, bool)
    return ScoreCounts(
        np.bincount(bins[is_labelled], minlength=BINS),
        np.bincount(bins[~is_labelled], minlength=BINS),
    )
