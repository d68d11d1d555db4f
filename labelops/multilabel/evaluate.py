"""How good predictions are where an item may have several classes, with intervals.

Nobody looked at every class of every item. What is unknown counts neither for nor against: a cell,
an item or a class of which nothing is known drops out of numerator and denominator, and what is
left undefined is NaN, not zero.

Intervals are those of `labelops.multilabel.resampling`.
"""

from typing import NamedTuple

import numpy as np

from labelops.multilabel.labels import NO, UNKNOWN, YES, LabelSets, states
from labelops.multilabel.resampling import Measure, Share, average, draws, measure, ratio

# N items, K classes, B draws


class SetMeasures(NamedTuple):
    """How well predicted sets of classes fit.

    Attributes
    ----------
    subset_accuracy : items whose every known class is right.
    micro_f1 : F1 over all known cells.
    macro_f1 : mean F1 of the classes in which anything is present or predicted.
    class_f1 : F1 by class, NaN where it is not defined; float64, shape (K,).
    """

    subset_accuracy: Measure
    micro_f1: Measure
    macro_f1: Measure
    class_f1: np.ndarray


class RankMeasures(NamedTuple):
    """How well scores put present classes first.

    Attributes
    ----------
    mean_average_precision : mean over the classes that some item is known to have.
    class_average_precision : by class, NaN for others; float64, shape (K,).
    real_accuracy : items whose highest class is present.
    multilabel_accuracy : share of an item's k present classes among its k highest.
    exact_set_accuracy : items whose k highest classes are just its k present ones.
    """

    mean_average_precision: Measure
    class_average_precision: np.ndarray
    real_accuracy: Measure
    multilabel_accuracy: Measure
    exact_set_accuracy: Measure


def real_share(predicted: np.ndarray, truth: LabelSets) -> Share:
    """Return which items' predicted class is among those they truly have.

    Items without a present class drop out, and so do those of whose predicted class nobody knows.

    Parameters
    ----------
    predicted
        One class an item, shape (N,).
    truth
        True classes.

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
    item = np.repeat(np.arange(len(class_id)), np.diff(start))
    cells = item * n_classes + ids.astype(np.int64)
    return np.isin(np.arange(len(class_id)) * n_classes + class_id.astype(np.int64), cells)


def variable_top_k(scores: np.ndarray, truth: LabelSets) -> tuple[Share, Share]:
    """Return which of an item's k present classes are among its k highest, and whether all are.

    Unknown classes are left out of the ranking; of equal scores the smaller class comes first.

    Parameters
    ----------
    scores
        Higher is more present, shape (N, K).
    truth
        True classes.

    Returns
    -------
    Recall at k of every item (its mean is "multi-label accuracy"), and exact-set accuracy; items
    without a present class drop out.

    References
    ----------
    Anzaku et al.: Re-assessing ImageNet: how aligned is its single-label assumption with its
    multi-label nature? 2024 (variable top-k).
    """
    table = _states_of(scores, truth)
    k = (table == YES).sum(axis=1)
    known = np.where(table == UNKNOWN, -np.inf, scores)
    order = np.argsort(-known, axis=1, kind="stable")
    is_top = np.arange(scores.shape[1]) < k[:, None]
    found = (np.take_along_axis(table, order, axis=1) == YES) & is_top
    has_any = (k > 0).astype(np.float64)
    recall = found.sum(axis=1) / np.maximum(k, 1)
    return Share(recall, has_any), Share((recall == 1) * has_any, has_any)


def _states_of(scores: np.ndarray, truth: LabelSets) -> np.ndarray:
    if scores.shape != (truth.n_items, truth.n_classes):
        raise ValueError(
            f"{truth.n_items} rows and {truth.n_classes} columns were expected, as truth has items "
            f"and classes; got {scores.shape}"
        )
    if np.isnan(scores).any():
        row = int(np.flatnonzero(np.isnan(scores).any(axis=1))[0])
        raise ValueError(f"scores must be numbers; row {row} has NaN")
    return states(truth)


def average_precisions(scores: np.ndarray, is_yes: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the average precision of one class for every draw.

    AP = Σ_t (R_t − R_{t−1}) P_t over the distinct scores t, from the highest.

    Parameters
    ----------
    scores
        Of the items with a known state, shape (n,).
    is_yes
        Their states, shape (n,).
    weights
        How often each counts, shape (B, n).

    Returns
    -------
    float64, shape (B,); NaN for draws without a present class.

    Notes
    -----
    O(n log n + B n). Equal scores are one step, so their order does not matter.

    Examples
    --------
    >>> scores, is_yes = np.array([0.9, 0.8, 0.7]), np.array([True, False, True])
    >>> average_precisions(scores, is_yes, np.ones((1, 3))).round(4).tolist()
    [0.8333]
    """
    order = np.argsort(-scores, kind="stable")
    ordered = scores[order]
    is_last = np.append(ordered[1:] != ordered[:-1], True)[: len(ordered)]
    w = weights[:, order]
    all_so_far = np.cumsum(w, axis=1)[:, is_last]
    yes_so_far = np.cumsum(w * is_yes[order], axis=1)[:, is_last]
    precision = np.zeros(all_so_far.shape)
    np.divide(yes_so_far, all_so_far, out=precision, where=all_so_far > 0)
    gained = np.diff(yes_so_far, axis=1, prepend=0.0)
    total = yes_so_far[:, -1] if yes_so_far.shape[1] else np.zeros(len(w))
    return ratio((gained * precision).sum(axis=1), total)


def rank_measures(
    scores: np.ndarray, truth: LabelSets, *, rng: np.random.Generator, n_draws: int = 200
) -> RankMeasures:
    """Measure how well scores put present classes first.

    Parameters
    ----------
    scores
        Higher is more present, shape (N, K).
    truth
        True classes.
    rng
        Draws the items for the intervals.
    n_draws
        How often.

    Raises
    ------
    ValueError
        If shapes do not fit or a score is NaN.

    Examples
    --------
    >>> from labelops.multilabel.labels import label_sets
    >>> scores = np.array([[0.9, 0.1], [0.8, 0.3], [0.2, 0.7]])
    >>> truth = label_sets([[0], [0], [1]], n_classes=2)
    >>> rank_measures(scores, truth, rng=np.random.default_rng(0)).mean_average_precision.value
    1.0
    """
    table = _states_of(scores, truth)
    weights = draws(truth.n_items, rng=rng, n_draws=n_draws)
    by_class = np.full((len(weights), truth.n_classes), np.nan)
    for c in range(truth.n_classes):
        known = np.flatnonzero(table[:, c] != UNKNOWN)
        is_yes = table[known, c] == YES
        if is_yes.any():
            by_class[:, c] = average_precisions(scores[known, c], is_yes, weights[:, known])
    recall, exact = variable_top_k(scores, truth)
    top = scores.argmax(axis=1)
    return RankMeasures(
        mean_average_precision=measure(_mean(by_class)),
        class_average_precision=by_class[0],
        real_accuracy=measure(average(real_share(top, truth), weights)),
        multilabel_accuracy=measure(average(recall, weights)),
        exact_set_accuracy=measure(average(exact, weights)),
    )


def _mean(by_class: np.ndarray) -> np.ndarray:
    """Return the mean over classes that are defined, of every draw."""
    is_defined = ~np.isnan(by_class)
    return ratio(np.where(is_defined, by_class, 0.0).sum(axis=1), is_defined.sum(axis=1))


def set_measures(
    predicted: np.ndarray, truth: LabelSets, *, rng: np.random.Generator, n_draws: int = 200
) -> SetMeasures:
    """Measure how well predicted sets of classes fit.

    Parameters
    ----------
    predicted
        Whether a class is predicted, bool, shape (N, K).
    truth
        True classes.
    rng
        Draws the items for the intervals.
    n_draws
        How often.

    Raises
    ------
    ValueError
        If shapes do not fit.

    Notes
    -----
    F1 = 2 TP / (2 TP + FP + FN), over known cells. An item of which no class is known drops out of
    subset accuracy.

    Examples
    --------
    >>> from labelops.multilabel.labels import label_sets
    >>> predicted = np.array([[True, False], [True, True]])
    >>> found = set_measures(
    ...     predicted, label_sets([[0], [1]], n_classes=2), rng=np.random.default_rng(0)
    ... )
    >>> found.subset_accuracy.value, found.micro_f1.value
    (0.5, 0.8)
    """
    table = _states_of(predicted, truth)
    weights = draws(truth.n_items, rng=rng, n_draws=n_draws)
    hit = predicted & (table == YES)
    wrong = np.where(predicted, table == NO, table == YES)
    twice = weights @ (2.0 * hit)
    counted = twice + weights @ wrong.astype(np.float64)
    by_class = ratio(twice, counted)
    is_known = (table != UNKNOWN).any(axis=1)
    is_right = ~wrong.any(axis=1) & is_known
    subset = Share(is_right.astype(np.float64), is_known.astype(np.float64))
    return SetMeasures(
        subset_accuracy=measure(average(subset, weights)),
        micro_f1=measure(ratio(twice.sum(axis=1), counted.sum(axis=1))),
        macro_f1=measure(_mean(by_class)),
        class_f1=by_class[0],
    )
