"""How far predicted probabilities can be taken at their word, and the one number that helps."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

# N items, K classes, B bins

N_BINS = 15

TINY = 2.0**-149
"""The smallest positive float32."""


class Bins(NamedTuple):
    """Confidence against accuracy in bins of confidence (lo, hi].

    Attributes
    ----------
    n : items in each bin, int64, shape (B,).
    confidence : their mean confidence, shape (B,); 0 where there are none.
    accuracy : share of them that is right, shape (B,); 0 where there are none.
    """

    n: np.ndarray
    confidence: np.ndarray
    accuracy: np.ndarray

    @property
    def gap(self) -> np.ndarray:
        """Distance of accuracy and confidence in each bin."""
        return np.asarray(np.abs(self.accuracy - self.confidence))


def reliability(confidence: np.ndarray, right: np.ndarray, *, n_bins: int = N_BINS) -> Bins:
    """Return confidence and accuracy in bins of equal width.

    Parameters
    ----------
    confidence
        In [0, 1], shape (N,). A confidence of exactly 0 falls into no bin.
    right
        Whether what was predicted with it is so, shape (N,).
    n_bins
        B.

    Examples
    --------
    >>> bins = reliability(np.array([.5, .6, 1.]), np.array([True, False, True]), n_bins=2)
    >>> bins.n.tolist(), bins.confidence.tolist(), bins.accuracy.tolist()
    ([1, 2], [0.5, 0.8], [1.0, 0.5])
    """
    # The edge itself belongs to the bin below it, as in the definition; b/B exactly as written
    # there, because 0.2 × 15 is not 3 in floating point.
    edges = np.arange(n_bins + 1) / n_bins
    bin_of = np.searchsorted(edges, confidence.astype(np.float64), side="left") - 1
    inside = bin_of >= 0
    return _means(bin_of[inside], confidence[inside], right[inside], n_bins)


def top_reliability(probs: np.ndarray, given: np.ndarray, *, n_bins: int = N_BINS) -> Bins:
    """Return the bins of the largest probability against whether its class is the given one.

    Examples
    --------
    >>> bins = top_reliability(np.array([[.7, .3], [.1, .9]]), np.array([0, 0]), n_bins=1)
    >>> bins.accuracy.tolist()
    [0.5]
    """
    return reliability(*_top(probs, given), n_bins=n_bins)


def _means(bin_of: np.ndarray, confidence: np.ndarray, right: np.ndarray, n_bins: int) -> Bins:
    n = np.bincount(bin_of, minlength=n_bins)
    safe = np.maximum(n, 1)
    sums = np.bincount(bin_of, confidence.astype(np.float64), n_bins)
    hits = np.bincount(bin_of, right.astype(np.float64), n_bins)
    return Bins(n.astype(np.int64), sums / safe, hits / safe)


def _weighted_gap(bins: Bins, n_items: int) -> float:
    return float((bins.n * bins.gap).sum() / max(n_items, 1))


def ece(probs: np.ndarray, given: np.ndarray, *, n_bins: int = N_BINS) -> float:
    """Expected calibration error: mean gap between confidence and accuracy, weighted by items.

    ECE = Σ_b |b| / N · | mean_b(h) − mean_b(c) |
    with c_i = max_k p_ik, h_i = [argmax_k p_ik = given_i]

    Parameters
    ----------
    probs
        Rows sum to 1, shape (N, K).
    given
        Class ids, shape (N,).
    n_bins
        B, of equal width.

    Notes
    -----
    Biased upwards for few items, by about √(B / N).

    References
    ----------
    Guo, Pleiss, Sun, Weinberger: On calibration of modern neural networks. ICML 2017, eq. 3.

    Examples
    --------
    >>> round(ece(np.array([[.8, .2], [.8, .2], [.2, .8], [.2, .8]]), np.array([0, 0, 1, 0])), 3)
    0.05
    """
    return _weighted_gap(top_reliability(probs, given, n_bins=n_bins), len(probs))


def mce(probs: np.ndarray, given: np.ndarray, *, n_bins: int = N_BINS) -> float:
    """Maximum calibration error: the largest gap of any bin that has items.

    Examples
    --------
    >>> round(mce(np.array([[.7, .3], [.9, .1]]), np.array([0, 1])), 3)
    0.9
    """
    bins = top_reliability(probs, given, n_bins=n_bins)
    return float(np.max(bins.gap, where=bins.n > 0, initial=0.0))


def adaptive_ece(probs: np.ndarray, given: np.ndarray, *, n_bins: int = N_BINS) -> float:
    """Calibration error over bins of equally many items instead of equal width.

    Items in the order of their confidence are cut by the rule of `numpy.array_split`; equal
    confidences keep the order of the rows.

    References
    ----------
    Nguyen, O'Connor: Posterior calibration and exploratory analysis for natural language
    processing models. EMNLP 2015, section 3 (adaptive binning).

    Examples
    --------
    >>> round(adaptive_ece(np.array([[.8, .2], [.6, .4]]), np.array([0, 1]), n_bins=2), 3)
    0.4
    """
    confidence, right = _top(probs, given)
    bin_of = np.empty(len(confidence), np.int64)
    for b, rows in enumerate(np.array_split(np.argsort(confidence, kind="stable"), n_bins)):
        bin_of[rows] = b
    return _weighted_gap(_means(bin_of, confidence, right, n_bins), len(confidence))


def classwise_ece(probs: np.ndarray, given: np.ndarray, *, n_bins: int = N_BINS) -> float:
    """Mean over the classes of the calibration error of p_ik for the event given_i = k.

    The classes are those of the columns, so a class that no item carries counts, too.

    References
    ----------
    Kull et al.: Beyond temperature scaling: obtaining well-calibrated multi-class probabilities
    with Dirichlet calibration. NeurIPS 2019, section 2.

    Examples
    --------
    >>> round(classwise_ece(np.array([[.8, .2], [.8, .2]]), np.array([0, 1])), 3)
    0.3
    """
    n_classes = probs.shape[1]
    gaps = [
        _weighted_gap(reliability(probs[:, k], given == k, n_bins=n_bins), len(probs))
        for k in range(n_classes)
    ]
    return float(np.mean(gaps))


def nll(probs: np.ndarray, given: np.ndarray) -> float:
    """Mean negative log-likelihood of the given labels, in nats.

    Examples
    --------
    >>> round(nll(np.array([[.5, .5]]), np.array([1])), 4)
    0.6931
    """
    return float(-np.mean(log_safe(_at(probs, given)))) if len(probs) else 0.0


def brier(probs: np.ndarray, given: np.ndarray) -> float:
    """Mean squared distance to the one-hot given label, summed over classes; in [0, 2].

    Examples
    --------
    >>> brier(np.array([[.5, .5]]), np.array([1]))
    0.5
    """
    if not len(probs):
        return 0.0
    p = probs.astype(np.float64)
    return float(np.mean((p * p).sum(axis=1) - 2 * _at(p, given) + 1))


def log_safe(p: np.ndarray) -> np.ndarray:
    """Return the logarithm in float64, with a probability of 0 taken as the least float32.

    A softmax stored in single precision rounds to 0; the logarithm of it would make one item
    outweigh all others.

    Examples
    --------
    >>> log_safe(np.array([1., 0.])).round(1).tolist()
    [0.0, -103.3]
    """
    return np.log(np.maximum(p.astype(np.float64), TINY))


def _at(probs: np.ndarray, given: np.ndarray) -> np.ndarray:
    return np.asarray(probs[np.arange(len(probs)), given])


def _top(probs: np.ndarray, given: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    predicted = probs.argmax(axis=1)
    return _at(probs, predicted), predicted == given


def metrics(probs: np.ndarray, given: np.ndarray, *, n_bins: int = N_BINS) -> Mapping[str, float]:
    """Return all of the above, and accuracy, by name.

    Examples
    --------
    >>> sorted(metrics(np.array([[.5, .5]]), np.array([0])))
    ['accuracy', 'adaptive_ece', 'brier', 'classwise_ece', 'ece', 'mce', 'nll']
    """
    right = probs.argmax(axis=1) == given
    return {
        "accuracy": float(right.mean()) if len(right) else 0.0,
        "nll": nll(probs, given),
        "brier": brier(probs, given),
        "ece": ece(probs, given, n_bins=n_bins),
        "mce": mce(probs, given, n_bins=n_bins),
        "adaptive_ece": adaptive_ece(probs, given, n_bins=n_bins),
        "classwise_ece": classwise_ece(probs, given, n_bins=n_bins),
    }
