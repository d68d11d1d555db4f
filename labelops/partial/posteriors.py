"""How probably unlabelled items are positive, by their score and the class prior."""

# B bins

import numpy as np
from scipy.optimize import isotonic_regression

from labelops.partial.scores import ScoreCounts


def posteriors(counts: ScoreCounts, *, share: float) -> np.ndarray:
    """Return the probability of an unlabelled item to be positive, by the bin of its score.

    Bayes' rule, α f_p(s) / f_u(s), with the ratio of densities f_p of the labelled and f_u of the
    unlabelled scores that never falls as the score rises and is likeliest (isotonic regression of
    being labelled); then no more than 1, and so that its mean over the unlabelled items is α.

    Parameters
    ----------
    counts
        Of out-of-sample scores.
    share
        α, the share of positives among the unlabelled items, in [0, 1].

    Returns
    -------
    float64 in [0, 1], shape (B,), rising; NaN where one kind of items is not there.

    Raises
    ------
    ValueError
        If the share is not in [0, 1].

    Notes
    -----
    That labelled positives are a random draw is supposed. O(B).

    References
    ----------
    Ayer et al.: An empirical distribution function for sampling with incomplete information. Annals
    of Mathematical Statistics 26, 1955 (pool adjacent violators).

    Examples
    --------
    >>> from labelops.partial.scores import count_scores, score_bins
    >>> scores, is_labelled = np.repeat([0.9, 0.9, 0.1], [500, 300, 700]), np.arange(1500) < 500
    >>> by_bin = posteriors(count_scores(scores, is_labelled), share=0.3)
    >>> by_bin[score_bins(np.array([0.1, 0.9]))].round(2).tolist()
    [0.0, 1.0]
    """
    if not 0 <= share <= 1:
        raise ValueError(f"posteriors: a share in [0, 1] was expected, got {share:g}")
    n_p, n_u = counts.n_labelled, counts.n_unlabelled
    if not n_p or not n_u:
        return np.full(len(counts.labelled), np.nan)
    ratio = _rising(counts.labelled / n_p, counts.unlabelled / n_u)
    weight = counts.unlabelled / n_u
    # min(1, k · ratio) has mean α at one k: its mean rises with k, straight between the bends.
    return _capped(ratio, weight, share)


def _rising(labelled: np.ndarray, unlabelled: np.ndarray) -> np.ndarray:
    """Return the rising ratio of two sets of masses, shape (B,) each; at most about 1e9."""
    used = np.flatnonzero(labelled + unlabelled)
    p, total = labelled[used], (labelled + unlabelled)[used]
    fitted = np.clip(isotonic_regression(p / total, weights=total).x, 0.0, 1 - 1e-9)
    of_used = fitted / (1 - fitted)
    # A bin without items is as the nearest one below, the first ones as the first with any.
    place = np.searchsorted(used, np.arange(len(labelled)), side="right") - 1
    return np.asarray(of_used[np.maximum(place, 0)])


def _capped(ratio: np.ndarray, weight: np.ndarray, share: float) -> np.ndarray:
    """Return min(1, k · ratio) with the k at which its weighted mean is the share."""
    reachable = float(weight[ratio > 0].sum())
    if share >= reachable:
        return np.where(ratio > 0, 1.0, 0.0)
    order = np.argsort(-ratio, kind="stable")
    r, w = ratio[order], weight[order]
    # With the first i capped: mean = Σ_{j<i} w_j + k Σ_{j≥i} w_j r_j.
    capped = np.concatenate([[0.0], np.cumsum(w)[:-1]])
    rest = np.cumsum((w * r)[::-1])[::-1]
    k = (share - capped) / np.maximum(rest, 1e-300)
    fits = k * r <= 1
    first = int(np.argmax(fits))
    return np.asarray(np.minimum(1.0, max(k[first], 0.0) * ratio))
