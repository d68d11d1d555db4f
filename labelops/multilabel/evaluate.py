"""How good predictions are where an item may have several classes, with intervals.

Nobody looked at every class of every item. What is unknown counts neither for nor against: a cell,
an item or a class of which nothing is known drops out of numerator and denominator, and what is
left undefined is NaN, not zero.

Intervals are those of `labelops.multilabel.resampling`.
"""

from typing import NamedTuple

import numpy as np

from labelops.gate import Interval
from labelops.multilabel.accuracy import known_states, real_share, variable_top_k
from labelops.multilabel.labels import NO, UNKNOWN, YES, LabelSets
from labelops.multilabel.resampling import Share, average, draws, measure, ratio

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

    subset_accuracy: Interval
    micro_f1: Interval
    macro_f1: Interval
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

    mean_average_precision: Interval
    class_average_precision: np.ndarray
    real_accuracy: Interval
    multilabel_accuracy: Interval
    exact_set_accuracy: Interval


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
    """Measure how well scores put present classes first; higher is more present, shape (N, K).

    Items are drawn by `rng` for the intervals, `n_draws` times.

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
    table = known_states(scores, truth)
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
    """Measure how well predicted sets of classes, bool, shape (N, K), fit.

    Items are drawn by `rng` for the intervals, `n_draws` times.

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
    >>> measures = set_measures(
    ...     predicted, label_sets([[0], [1]], n_classes=2), rng=np.random.default_rng(0)
    ... )
    >>> measures.subset_accuracy.value, measures.micro_f1.value
    (0.5, 0.8)
    """
    table = known_states(predicted, truth)
    weights = draws(truth.n_items, rng=rng, n_draws=n_draws)
    twice, counted = _f1_parts(predicted, table, weights)
    wrong = wrong_cells(predicted, table)
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


def wrong_cells(predicted: np.ndarray, table: np.ndarray) -> np.ndarray:
    """Return which cells are predicted otherwise than they are known to be, bool, shape (N, K).

    The table holds 1 (yes), 0 (no) and −1 (unknown).

    Examples
    --------
    >>> wrong_cells(np.array([[True, True, True]]), np.array([[1, 0, -1]])).tolist()
    [[False, True, False]]
    """
    return np.asarray(np.where(predicted, table == NO, table == YES))


def _f1_parts(
    predicted: np.ndarray, table: np.ndarray, weights: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return 2 TP and 2 TP + FP + FN of every draw and class, shape (B, K)."""
    twice = weights @ (2.0 * (predicted & (table == YES)))
    return twice, twice + weights @ wrong_cells(predicted, table).astype(np.float64)


def micro_f1_gain(
    after: np.ndarray,
    before: np.ndarray,
    truth: LabelSets,
    *,
    rng: np.random.Generator,
    n_draws: int = 200,
) -> Interval:
    """Measure by how much one set of predictions has a larger micro-F1 than another.

    Both are measured on the same draws, so that what is hard for both does not widen the interval;
    see `set_measures`.

    Raises
    ------
    ValueError
        If shapes do not fit.

    Examples
    --------
    >>> from labelops.multilabel.labels import label_sets
    >>> truth = label_sets([[0], [1]], n_classes=2)
    >>> right, half = np.eye(2, dtype=bool), np.array([[True, False], [False, False]])
    >>> micro_f1_gain(right, half, truth, rng=np.random.default_rng(0)).value.__round__(3)
    0.333
    """
    weights = draws(truth.n_items, rng=rng, n_draws=n_draws)
    f1 = []
    for predicted in (after, before):
        twice, counted = _f1_parts(predicted, known_states(predicted, truth), weights)
        f1.append(ratio(twice.sum(axis=1), counted.sum(axis=1)))
    return measure(f1[0] - f1[1])
