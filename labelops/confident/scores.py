"""Label quality scores: how well probabilities support the given class; low = suspicious."""

from typing import Literal

import numpy as np

# N items, K classes

Score = Literal["self_confidence", "normalized_margin", "confidence_weighted_entropy"]

MIN_CONFIDENCE = 1e-6


def label_scores(
    probs: np.ndarray,
    given: np.ndarray,
    *,
    score: Score = "self_confidence",
    thresholds: np.ndarray | None = None,
) -> np.ndarray:
    """Return one score in [0, 1] for every item.

    self_confidence: p_y. normalized_margin: (p_y − max_{j≠y} p_j + 1) / 2.
    confidence_weighted_entropy: log(1 + s) / s with s = H(p) / log K / max(p_y, 10⁻⁶), and its
    limit 1 for s = 0.

    Parameters
    ----------
    probs
        Out-of-sample probabilities, shape (N, K).
    given
        Class ids y in 0…K−1, shape (N,).
    score
        Which score.
    thresholds
        Mean self-confidence of each class. If they are given, they are taken off the probabilities
        first, p̃ = p − t + max t, and rows are normalised: items of rare classes are then not
        suspicious merely because the model is never sure of their class. Not for the entropy score.

    Returns
    -------
    float64, shape (N,).

    Raises
    ------
    ValueError
        If thresholds are given with the entropy score, or the score is unknown.

    Notes
    -----
    cleanlab 2.9.0 divides by max(s, 10⁻⁶) and so gives a perfectly sure, right row the score 0, the
    worst there is; here it gets 1.

    References
    ----------
    Kuan, Mueller: Model-agnostic label quality scoring to detect real-world label errors. ICML
    DataPerf workshop 2022, section 3. Northcutt et al., JAIR 70, 2021 (adjustment).

    Examples
    --------
    >>> probs = np.array([[0.9, 0.1], [0.2, 0.8], [1.0, 0.0]])
    >>> given = np.array([0, 0, 0])
    >>> label_scores(probs, given).tolist()
    [0.9, 0.2, 1.0]
    >>> label_scores(probs, given, score="confidence_weighted_entropy").round(3).tolist()
    [0.805, 0.423, 1.0]
    """
    if score not in ("self_confidence", "normalized_margin", "confidence_weighted_entropy"):
        raise ValueError(f"label_scores: unknown score {score!r}")
    n_classes = probs.shape[1]
    p = probs.astype(np.float64)
    rows = np.arange(len(p))
    if score == "confidence_weighted_entropy":
        if thresholds is not None:
            raise ValueError("label_scores: the entropy score is not defined on adjusted rows")
        return weighted_entropy(entropy(p), p[rows, given], n_classes)
    if thresholds is not None:
        p = p - thresholds + thresholds.max()
        p = p / p.sum(axis=1, keepdims=True)
    p_given = p[rows, given]
    if score == "self_confidence":
        return np.asarray(p_given)
    p[rows, given] = -np.inf
    return margin_score(p_given, p.max(axis=1, initial=-np.inf))


def entropy(probs: np.ndarray) -> np.ndarray:
    """Return −Σ p log p of every row, with 0 log 0 = 0; shape (N,)."""
    safe = np.where(probs > 0, probs, 1.0)
    return np.asarray(-np.sum(probs * np.log(safe), axis=1))


def weighted_entropy(entropies: np.ndarray, p_given: np.ndarray, n_classes: int) -> np.ndarray:
    """Return log(1 + s) / s for s = H / log K / max(p_y, 10⁻⁶), and 1 for s = 0."""
    share = entropies / np.log(max(n_classes, 2))
    s = share / np.maximum(p_given.astype(np.float64), MIN_CONFIDENCE)
    return np.asarray(np.where(s > 0, np.log1p(s) / np.where(s > 0, s, 1.0), 1.0))


def margin_score(p_given: np.ndarray, p_other: np.ndarray) -> np.ndarray:
    """Return (p_y − max_{j≠y} p_j + 1) / 2; without another class, 1 for certainty."""
    other = np.maximum(p_other.astype(np.float64), 0.0)
    return np.asarray((p_given.astype(np.float64) - other + 1.0) / 2.0)
