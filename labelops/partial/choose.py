"""How well a classifier does, as far as labelled and unlabelled items tell: to choose between some.

Plain accuracy against the labels takes every unlabelled positive for an error; it is least for the
classifier that finds most of them.
"""

import numpy as np

from labelops.partial.scores import ScoreCounts, score_bins


def proxy_auc(counts: ScoreCounts) -> float:
    """Return how often a labelled item has a higher score than an unlabelled one; ties count half.

    Parameters
    ----------
    counts
        Of out-of-sample scores.

    Returns
    -------
    In [0, 1]; NaN without labelled or unlabelled items.

    Notes
    -----
    α / 2 + (1 − α) AUC on average, with α the share of positives among the unlabelled items: the
    better of two classifiers is better by this, too, and nobody needs to know α. Requires that
    labelled positives are a random draw of all.

    References
    ----------
    Menon, van Rooyen, Ong, Williamson: Learning from corrupted binary labels via class-probability
    estimation. ICML 2015, section 5. Wang et al.: Accessible, realistic, and fair evaluation of
    positive-unlabeled learning algorithms. ICLR 2026.

    Examples
    --------
    >>> from labelops.partial.scores import count_scores
    >>> proxy_auc(count_scores(np.array([0.9, 0.9, 0.1]), np.array([True, False, False])))
    0.75
    """
    n_pairs = counts.n_labelled * counts.n_unlabelled
    if not n_pairs:
        return float("nan")
    below = np.cumsum(counts.unlabelled) - counts.unlabelled
    # Twice the pairs, as Python's integers, which no number of items is too large for.
    twice = counts.labelled.astype(object) @ (2 * below + counts.unlabelled)
    return float(twice / (2 * n_pairs))


def proxy_accuracy(counts: ScoreCounts, *, prior: float, threshold: float = 0.5) -> float:
    """Return the share of the unlabelled items that are told right, by labelled items and a prior.

    1 − α + 2 α r − q with r and q the shares of the labelled and the unlabelled items that have a
    score of at least the threshold.

    Parameters
    ----------
    counts
        Of out-of-sample scores.
    prior
        α, share of positives among the unlabelled items.
    threshold
        In [0, 1]; rounded to a bin of the counts.

    Returns
    -------
    About 1 at most; NaN without labelled or unlabelled items.

    Notes
    -----
    Unbiased if labelled positives are a random draw of all, in both settings, since it is of the
    unlabelled items.

    References
    ----------
    Wang et al., ICLR 2026 (see `proxy_auc`), there of a case–control sample.

    Examples
    --------
    >>> from labelops.partial.scores import count_scores
    >>> counts = count_scores(np.array([0.9, 0.9, 0.1]), np.array([True, False, False]))
    >>> proxy_accuracy(counts, prior=0.5)
    1.0
    """
    if not counts.n_labelled or not counts.n_unlabelled:
        return float("nan")
    recall, flagged = shares_above(counts, threshold=threshold)
    return 1 - prior + 2 * prior * recall - flagged


def shares_above(counts: ScoreCounts, *, threshold: float) -> tuple[float, float]:
    """Return the shares of labelled and of unlabelled items in and above the bin of a threshold.

    Examples
    --------
    >>> from labelops.partial.scores import count_scores
    >>> counts = count_scores(np.array([0.9, 0.5, 0.1]), np.array([True, False, False]))
    >>> shares_above(counts, threshold=0.5)
    (1.0, 0.5)
    """
    first = int(score_bins(np.array([threshold]))[0])
    above, all_above = counts.labelled[first:].sum(), counts.unlabelled[first:].sum()
    return float(above / counts.n_labelled), float(all_above / counts.n_unlabelled)
