"""How well the given classes of an item fit, as one number; low = suspicious."""

from typing import Literal

import numpy as np

from labelops.multilabel.labels import NO, YES, LabelSets, states

# N items, K classes

RowScore = Literal["ema", "softmin"]

ALPHA = 0.8
TEMPERATURE = 0.1


def cell_scores(probs: np.ndarray, labels: LabelSets) -> np.ndarray:
    """Return the probability of every given state; NaN where nobody looked.

    s_ic = p_ic if class c was said to be present, 1 − p_ic if it was ruled out.

    Returns
    -------
    float64, shape (N, K).

    Examples
    --------
    >>> from labelops.multilabel.labels import label_sets
    >>> cell_scores(np.array([[0.75, 0.25, 0.5]]), label_sets([[0]], [[1]], n_classes=3)).tolist()
    [[0.75, 0.75, nan]]
    """
    table, p = states(labels), probs.astype(np.float64)
    return np.asarray(np.select([table == YES, table == NO], [p, 1 - p], default=np.nan))


def row_scores(probs: np.ndarray, labels: LabelSets, *, score: RowScore = "ema") -> np.ndarray:
    """Return one score in [0, 1] for every item, to which its worst classes contribute most.

    ema: scores of the item's classes in falling order, e_1 = s_(1), e_t = 0.8 s_(t) + 0.2 e_{t−1};
    the last one. softmin: Σ_c s_c softmax((1 − s) / 0.1)_c.

    Parameters
    ----------
    probs
        Out-of-sample probabilities, shape (N, K).
    labels
        Given classes; unknown ones take no part.
    score
        Which.

    Returns
    -------
    float64, shape (N,); 1 for an item of which nothing is known.

    Raises
    ------
    ValueError
        If the score is unknown.

    Notes
    -----
    O(K log K) an item. Of the moving average all but the lowest 25 or so scores weigh less than a
    rounding.

    References
    ----------
    Thyagarajan, Snorrason, Northcutt, Mueller: Identifying Incorrect Annotations in Multi-Label
    Classification Data. 2022, sections 3.2 and 3.3.

    Examples
    --------
    >>> from labelops.multilabel.labels import label_sets
    >>> probs = np.array([[0.9, 0.2, 0.6], [0.1, 0.3, 0.1]])
    >>> row_scores(probs, label_sets([[0, 2], [1]], n_classes=3)).round(3).tolist()
    [0.644, 0.42]
    """
    if score not in ROW_SCORES:
        raise ValueError(f"row_scores: score must be one of {list(ROW_SCORES)}, got {score!r}")
    return np.asarray(ROW_SCORES[score](cell_scores(probs, labels)))


def _ema(scores: np.ndarray) -> np.ndarray:
    # Unknown classes sort to the end and leave the average as it is.
    ordered = -np.sort(-scores, axis=1)
    average = np.where(np.isnan(ordered[:, 0]), 1.0, ordered[:, 0])
    for column in ordered.T[1:]:
        moved = ALPHA * column + (1 - ALPHA) * average
        average = np.where(np.isnan(column), average, moved)
    return average


def _softmin(scores: np.ndarray) -> np.ndarray:
    known = ~np.isnan(scores)
    lowest = np.where(known, scores, np.inf).min(axis=1, initial=np.inf, keepdims=True)
    weight = np.exp(np.where(known, lowest - scores, -np.inf) / TEMPERATURE)
    total = weight.sum(axis=1)
    mean = np.sum(np.where(known, scores, 0.0) * weight, axis=1) / np.where(total > 0, total, 1.0)
    return np.where(total > 0, mean, 1.0)


ROW_SCORES = {"ema": _ema, "softmin": _softmin}
