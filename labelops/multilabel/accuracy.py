"""Whether the highest classes of an item are among those it has.

Each of these is a share of items, as `labelops.multilabel.resampling` averages them.
"""

import numpy as np

from labelops.multilabel.labels import UNKNOWN, YES, LabelSets, states
from labelops.multilabel.resampling import Share
from labelops.ragged import owners

# N items, K classes


def real_share(predicted: np.ndarray, truth: LabelSets) -> Share:
    """Return which items' predicted class is among those they truly have.

    Items without a present class drop out, and so do those of whose predicted class nobody knows.
    One class is predicted for an item, shape (N,).

    Raises
    ------
    ValueError
        If there is not one class in 0…K−1 for every item.

    References
    ----------
    Beyer, Hénaff, Kolesnikov, Zhai, van den Oord: Are we done with ImageNet? 2020, section 4.

    Examples
    --------
    >>> from labelops.multilabel.labels import label_sets
    >>> truth = label_sets([[0, 1], [2], []], n_classes=3)
    >>> from labelops.multilabel.resampling import average
    >>> average(real_share(np.array([1, 0, 0]), truth), np.ones((1, 3))).tolist()
    [0.5]
    """
    n, n_classes = truth.n_items, truth.n_classes
    if predicted.shape != (n,) or predicted.dtype.kind not in "iu":
        raise ValueError(
            f"predicted must be {n} classes, one an item of truth, got {predicted.dtype} "
            f"{predicted.shape}"
        )
    out = np.flatnonzero((predicted < 0) | (predicted >= n_classes))
    if out.size:
        raise ValueError(
            f"predicted must lie in 0…{n_classes - 1}; item {out[0]} has {predicted[out[0]]}"
        )
    has_any = np.diff(truth.start) > 0
    hits = _says(truth.ids, truth.start, predicted, n_classes)
    is_known = np.ones(n, bool)
    if truth.negative_ids is not None and truth.negative_start is not None:
        is_known = hits | _says(truth.negative_ids, truth.negative_start, predicted, n_classes)
    return Share(hits.astype(np.float64), (has_any & is_known).astype(np.float64))


def _says(ids: np.ndarray, start: np.ndarray, class_id: np.ndarray, n_classes: int) -> np.ndarray:
    """Return whether each item's list holds a class."""
    cells = owners(start) * n_classes + ids.astype(np.int64)
    return np.isin(np.arange(len(class_id)) * n_classes + class_id.astype(np.int64), cells)


def variable_top_k(scores: np.ndarray, truth: LabelSets) -> tuple[Share, Share]:
    """Return which of an item's k present classes are among its k highest, and whether all are.

    Unknown classes are left out of the ranking; of equal scores, shape (N, K), the smaller class
    comes first.

    Returns
    -------
    Recall at k of every item (its mean is "multi-label accuracy"), and exact-set accuracy; items
    without a present class drop out.

    References
    ----------
    Anzaku et al.: Re-assessing ImageNet: how aligned is its single-label assumption with its
    multi-label nature? 2024 (variable top-k).
    """
    table = known_states(scores, truth)
    k = (table == YES).sum(axis=1)
    known = np.where(table == UNKNOWN, -np.inf, scores)
    order = np.argsort(-known, axis=1, kind="stable")
    is_top = np.arange(scores.shape[1]) < k[:, None]
    is_hit = (np.take_along_axis(table, order, axis=1) == YES) & is_top
    has_any = (k > 0).astype(np.float64)
    recall = is_hit.sum(axis=1) / np.maximum(k, 1)
    return Share(recall, has_any), Share((recall == 1) * has_any, has_any)


def known_states(scores: np.ndarray, truth: LabelSets) -> np.ndarray:
    """Return the states of all cells, if they fit the scores.

    Raises
    ------
    ValueError
        If shapes do not fit or a score is NaN.
    """
    if scores.shape != (truth.n_items, truth.n_classes):
        raise ValueError(
            f"{truth.n_items} rows and {truth.n_classes} columns were expected, as truth has items "
            f"and classes; got {scores.shape}"
        )
    if np.isnan(scores).any():
        row = int(np.flatnonzero(np.isnan(scores).any(axis=1))[0])
        raise ValueError(f"scores must be numbers; row {row} has NaN")
    return states(truth)
